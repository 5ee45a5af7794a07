//! The kernel of grad-weight: sums over tiles of products of a transformed gradient and a transformed input.

use std::ops::Range;

use crate::cpu::{SharedMut, Vector, VectorKernel, prefetch_write};

/// Filters that are adjacent in the transformed gradients: a multiple of the vector length and of
/// [`rows_at_once`].
pub(super) const fn adjacent_filters(lanes: usize) -> usize {
    if lanes == 16 { 16 } else { 48 }
}

/// Number of filters that the kernel for vectors of `lanes` values handles at once.
pub(super) const fn rows_at_once(lanes: usize) -> usize {
    if lanes == 16 { 8 } else { 6 }
}

/// Adds the products of a tile_block of tiles to the sums of one element, for a range of rows (filters).
pub(super) struct Sum<'a> {
    pub(super) x: &'a [f32],
    pub(super) dz: &'a [f32],
    pub(super) tile_block: usize,
    pub(super) count: usize,
    pub(super) rows: Range<usize>,
    pub(super) row_len: usize,
    pub(super) start: usize,
    pub(super) add: bool,
    pub(super) sums: &'a SharedMut<'a, f32>,
}

impl VectorKernel for Sum<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (at_once, adjacent) = (rows_at_once(V::LANES), adjacent_filters(V::LANES));
        for channel in (0..self.row_len).step_by(2 * V::LANES) {
            let vectors = if self.row_len - channel > V::LANES { 2 } else { 1 };
            let x = &self.x[channel * self.tile_block..];
            let x = &x[..((vectors - 1) * self.tile_block + self.count) * V::LANES];
            for row in self.rows.clone().step_by(at_once) {
                let dz = &self.dz[row / adjacent * adjacent * self.tile_block..][..self.count * adjacent];
                let at = self.start + row * self.row_len + channel;
                // SAFETY: tasks write different rows; the slices are cut to what is read.
                unsafe {
                    let out = self.sums.pointer(at, (at_once - 1) * self.row_len + vectors * V::LANES);
                    let dz = dz.as_ptr().add(row % adjacent);
                    let (x, x_stride) = (x.as_ptr(), self.tile_block * V::LANES);
                    let Sum { count, row_len, add, .. } = self;
                    match (at_once, vectors) {
                        (8, 1) => sum_tiles::<V, 8, 1>(dz, x, x_stride, row_len, count, out, add),
                        (8, _) => sum_tiles::<V, 8, 2>(dz, x, x_stride, row_len, count, out, add),
                        (_, 1) => sum_tiles::<V, 6, 1>(dz, x, x_stride, row_len, count, out, add),
                        _ => sum_tiles::<V, 6, 2>(dz, x, x_stride, row_len, count, out, add),
                    }
                }
            }
        }
    }
}

/// `out[i][..] (+)= sum over tiles of dz[tile][i] x[tile][..]` for `ROWS` filters and `N` vectors of
/// channels.
///
/// # Safety
/// `dz` must be readable for `ROWS` values in each of `count` tiles, `x` for `N` runs of `count` vectors,
/// and `out` writable for `ROWS` rows of `N` vectors.
#[inline(always)]
unsafe fn sum_tiles<V: Vector, const ROWS: usize, const N: usize>(
    dz: *const f32,
    x: *const f32,
    x_stride: usize,
    row_len: usize,
    count: usize,
    out: *mut f32,
    add: bool,
) {
    let mut sums = [[V::splat(0.0); N]; ROWS];
    // SAFETY: all by the caller's promise.
    unsafe {
        let (mut dz, mut x) = (dz, x);
        for tile in 0..count {
            // The rows of sums come from memory: one is prefetched a step.
            let row = out.wrapping_add(tile.min(ROWS - 1) * row_len);
            for j in 0..N {
                prefetch_write(row.wrapping_add(j * V::LANES));
            }
            let mut values = [V::splat(0.0); N];
            for (j, value) in values.iter_mut().enumerate() {
                *value = V::load(x.add(j * x_stride));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let d = V::splat(*dz.add(i));
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = d.mul_add(value, *sum);
                }
            }
            dz = dz.add(adjacent_filters(V::LANES));
            x = x.add(V::LANES);
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let out = out.add(i * row_len + j * V::LANES);
                let sum = if add { V::load(out).add(*sum) } else { *sum };
                sum.store(out);
            }
        }
    }
}
