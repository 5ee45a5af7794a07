//! Tiles of the input, transformed: `B^T d B` for every channel.

use std::ops::Range;

use super::tiles::Tiles;
use super::transform::{Columns, Transform, side_of};
use crate::cpu::{SharedMut, Vector, VectorKernel};

/// Transforms some tiles of all channels.
pub(super) struct InputTiles<'a, T, F> {
    pub(super) tiles: &'a Tiles,
    pub(super) x: &'a [f32],
    /// Which tiles of the convolution.
    pub(super) range: Range<usize>,
    pub(super) out: &'a SharedMut<'a, f32>,
    /// Values from one tile element to the next in `out`.
    pub(super) pitch: usize,
    /// Where a tile (counted from the range's block) and a channel, a multiple of the vector's length, start in `out`.
    pub(super) at: F,
    /// First tile of the block that `at` counts from.
    pub(super) first: usize,
    pub(super) transform: std::marker::PhantomData<T>,
}

impl<T: Transform, F: Fn(usize, usize) -> usize> VectorKernel for InputTiles<'_, T, F> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let s = self.tiles.shape;
        for tile in self.range.clone() {
            let place = self.tiles.place(tile);
            // Rows and columns of the tile that lie inside of the image.
            let rows = inside(place.y, s.pad, s.h, T::SIDE);
            let columns = inside(place.x, s.pad, s.w, T::SIDE);
            let whole = rows == (0..T::SIDE) && columns == (0..T::SIDE);
            let origin = ((place.image * s.h + place.y) * s.w + place.x) * s.c;
            // May lie before the image; only pixels inside are read.
            let corner = self.x.as_ptr().wrapping_add(origin).wrapping_sub((s.pad * s.w + s.pad) * s.c);
            for c in (0..s.c).step_by(V::LANES) {
                let at = |i: usize, j: usize| corner.wrapping_add((i * s.w + j) * s.c + c);
                let start = (self.at)(tile - self.first, c);
                // SAFETY: each tile and channel writes places of its own.
                let out = unsafe { self.out.pointer(start, (T::SIDE * T::SIDE - 1) * self.pitch + V::LANES) };
                let n = s.c - c;
                // SAFETY: pixels inside of the image hold `n` values from channel `c` on.
                unsafe {
                    if whole && n >= V::LANES {
                        transform::<T, V>(|i, j| V::load(at(i, j)), out, self.pitch);
                    } else {
                        let load = |i, j| match rows.contains(&i) && columns.contains(&j) {
                            false => V::splat(0.0),
                            true if n >= V::LANES => V::load(at(i, j)),
                            true => V::load_part(at(i, j), n),
                        };
                        transform::<T, V>(load, out, self.pitch);
                    }
                }
            }
        }
    }
}

/// Which of `side` places from `first - pad` on lie in `0..len`, counted from the first place.
#[inline(always)]
pub(super) fn inside(first: usize, pad: usize, len: usize, side: usize) -> Range<usize> {
    pad.saturating_sub(first).min(side)..(len + pad - first).min(side)
}

/// Transforms one vector of channels of one tile; `load(row, column)` gives a pixel.
///
/// # Safety
/// `out` must be writable for a vector at every multiple of `pitch` up to the last element.
#[inline(always)]
unsafe fn transform<T: Transform, V: Vector>(load: impl Fn(usize, usize) -> V, out: *mut f32, pitch: usize) {
    let columns = Columns::new(T::SIDE, |j| T::input(&side_of(T::SIDE, |i| load(i, j))));
    for i in 0..T::SIDE {
        let row = T::input(&columns.row(i));
        for (j, value) in row.iter().enumerate().take(T::SIDE) {
            // SAFETY: by the caller's promise.
            unsafe { value.store(out.add((i * T::SIDE + j) * pitch)) };
        }
    }
}
