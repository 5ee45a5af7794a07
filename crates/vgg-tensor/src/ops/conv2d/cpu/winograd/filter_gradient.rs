//! Grad-weight: `dg = G^T [sum over tiles of (B^T d B) * (A dy A^T)] G`.
//!
//! For each tile element, the sum over tiles is a matrix product whose inner dimension is the tiles. The
//! transformed inputs have the layout `[element][c / lanes][tiles][lanes]` and the gradients
//! `[element][k / W][tiles][W]`, so that the kernel reads both sequentially.

use std::marker::PhantomData;

use super::super::GradWeight;
use super::map_tiles::{GradTransform, InputTransform, Map, MapTiles};
use super::tiles::{TileLayout, Tiles};
use super::transform::{Columns, MAX_SIDE, Transform};
use crate::GradMode;
use crate::cpu::{Cpu, SharedMut, Vector, VectorKernel};

/// Tiles that are summed at a time. The sums of these blocks are added in order, so the length affects
/// rounding.
const TILE_BLOCK: usize = 144;
/// Tiles per task of the transforms.
const RANGE: usize = 8;
/// Filters that are adjacent in the transformed gradients: a multiple of the vector length and of
/// [`rows_at_once`].
const fn adjacent_filters(lanes: usize) -> usize {
    if lanes == 16 { 16 } else { 48 }
}

/// Number of filters that the kernel for vectors of `lanes` values handles at once.
const fn rows_at_once(lanes: usize) -> usize {
    if lanes == 16 { 8 } else { 6 }
}

/// Writes or accumulates `dw [k, r, s, c]`.
pub(super) fn grad_weight<T: Transform>(cpu: Cpu, job: &GradWeight, dw: &mut [f32]) {
    let s = &job.shape;
    let tiles = Tiles::new::<T>(s);
    let lanes = cpu.isa.wide_lanes();
    let elements = T::SIDE * T::SIDE;
    let tile_block = TILE_BLOCK.min(tiles.count());
    let x_side = Stretch::new(tile_block, s.c, lanes);
    let dz_side = Stretch::new(tile_block, s.k, adjacent_filters(lanes));
    let mut x = cpu.scratch(elements * x_side.pitch);
    let mut dz = cpu.scratch(elements * dz_side.pitch);
    // `[element][k][c]`, both padded to multiples of the kernel's sizes.
    let at_once = rows_at_once(lanes);
    let (rows, row_len) = (s.k.next_multiple_of(at_once), s.c.next_multiple_of(lanes));
    let mut sums = cpu.scratch(elements * rows * row_len);
    for first in (0..tiles.count()).step_by(tile_block) {
        let count = tile_block.min(tiles.count() - first);
        transform_both::<T>(
            cpu,
            job,
            &tiles,
            first,
            count,
            Transformed { layout: x_side, values: &mut x },
            Transformed { layout: dz_side, values: &mut dz },
        );
        let parts = rows / at_once;
        let per_task = parts.div_ceil(8);
        let tasks = parts.div_ceil(per_task);
        let out = SharedMut::new(&mut sums);
        cpu.for_each(elements * tasks, |task| {
            let (element, part) = (task / tasks, task % tasks);
            cpu.isa.run_wide(Sum {
                x: &x[element * x_side.pitch..][..x_side.pitch],
                dz: &dz[element * dz_side.pitch..][..dz_side.pitch],
                tile_block,
                count,
                rows: part * per_task * at_once..((part + 1) * per_task * at_once).min(rows),
                row_len,
                start: element * rows * row_len,
                add: first > 0,
                sums: &out,
            });
        });
    }
    let depth = s.depth();
    cpu.for_each_chunk(dw, depth, |k, dw| {
        let sums = &sums[k * row_len..];
        let pitch = rows * row_len;
        cpu.isa.run_wide(Filter { sums, pitch, c: s.c, mode: job.mode, dw, transform: PhantomData::<T> });
        job.state.flag().check(dw);
    });
}

/// Layout of the transformed inputs or gradients: `[elements][channels / width][tiles][width]`.
#[derive(Clone, Copy)]
struct Stretch {
    tiles: usize,
    width: usize,
    pitch: usize,
}

impl Stretch {
    fn new(tiles: usize, channels: usize, width: usize) -> Stretch {
        Stretch { tiles, width, pitch: channels.div_ceil(width) * tiles * width + 16 }
    }
}

impl TileLayout for Stretch {
    #[inline(always)]
    fn start(&self, tile: usize, channel: usize) -> usize {
        (channel / self.width * self.tiles + tile) * self.width + channel % self.width
    }

    #[inline(always)]
    fn pitch(&self) -> usize {
        self.pitch
    }
}

/// Destination of the transformed inputs or gradients.
struct Transformed<'a> {
    layout: Stretch,
    values: &'a mut [f32],
}

/// Transforms the tiles `first .. first + count` of input and gradient.
fn transform_both<T: Transform>(
    cpu: Cpu,
    job: &GradWeight,
    tiles: &Tiles,
    first: usize,
    count: usize,
    x: Transformed,
    dz: Transformed,
) {
    let s = &job.shape;
    let input = Map { values: job.x, size: [s.h, s.w], channels: s.c, pad: s.pad };
    let gradient = Map { values: job.dz, size: [s.oh, s.ow], channels: s.k, pad: 0 };
    let (x_values, dz_values) = (SharedMut::new(x.values), SharedMut::new(dz.values));
    cpu.for_each(count.div_ceil(RANGE), |task| {
        let range = first + task * RANGE..first + ((task + 1) * RANGE).min(count);
        cpu.isa.run_wide(MapTiles {
            tiles,
            map: input,
            range: range.clone(),
            first,
            out: &x_values,
            layout: x.layout,
            transform: PhantomData::<InputTransform<T>>,
        });
        cpu.isa.run_wide(MapTiles {
            tiles,
            map: gradient,
            range,
            first,
            out: &dz_values,
            layout: dz.layout,
            transform: PhantomData::<GradTransform<T>>,
        });
    });
}

/// Adds the products of a tile_block of tiles to the sums of one element, for a range of rows (filters).
struct Sum<'a> {
    x: &'a [f32],
    dz: &'a [f32],
    tile_block: usize,
    count: usize,
    rows: std::ops::Range<usize>,
    row_len: usize,
    start: usize,
    add: bool,
    sums: &'a SharedMut<'a, f32>,
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
        for _ in 0..count {
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

/// The gradient of one filter from its sums: `G^T u G`.
struct Filter<'a, T> {
    /// Sums from this filter's row of the first element on.
    sums: &'a [f32],
    pitch: usize,
    c: usize,
    mode: GradMode,
    dw: &'a mut [f32],
    transform: PhantomData<T>,
}

impl<T: Transform> VectorKernel for Filter<'_, T> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let zero = V::splat(0.0);
        for c in (0..self.c).step_by(V::LANES) {
            let n = V::LANES.min(self.c - c);
            let mut columns: Columns<V> = Columns::new();
            for j in 0..T::SIDE {
                let mut u = [zero; MAX_SIDE];
                for (i, u) in u.iter_mut().enumerate().take(T::SIDE) {
                    let from = &self.sums[(i * T::SIDE + j) * self.pitch + c..][..V::LANES];
                    // SAFETY: `from` holds a vector.
                    *u = unsafe { V::load(from.as_ptr()) };
                }
                let [first, second, third] = T::filter_gradient(&u);
                columns.push([first, second, third, zero, zero, zero, zero, zero]);
            }
            for i in 0..T::R {
                let row = T::filter_gradient(&columns.row(i));
                for (j, value) in row.iter().enumerate().take(T::R) {
                    let to = &mut self.dw[(i * T::R + j) * self.c + c..][..n];
                    // SAFETY: `to` holds `n` values.
                    unsafe {
                        let before = if self.mode == GradMode::Accumulate {
                            V::load_part(to.as_ptr(), n)
                        } else {
                            zero
                        };
                        value.add(before).store_part(to.as_mut_ptr(), n);
                    }
                }
            }
        }
    }
}
