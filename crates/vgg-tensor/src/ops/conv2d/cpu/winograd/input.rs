//! Tiles of the input, transformed: `B^T d B` for every channel.

use std::marker::PhantomData;
use std::ops::Range;

use super::tiles::{Placement, Tiles, Window};
use super::transform::{Columns, MAX_SIDE, Transform};
use crate::cpu::{SharedMut, Vector, VectorKernel};

/// Transforms some tiles of all channels.
pub(super) struct InputTiles<'a, T, P> {
    pub(super) tiles: &'a Tiles,
    pub(super) x: &'a [f32],
    /// Which tiles of the convolution.
    pub(super) range: Range<usize>,
    /// First tile of the block that `out` holds.
    pub(super) first: usize,
    pub(super) out: &'a SharedMut<'a, f32>,
    pub(super) layout: P,
    pub(super) transform: PhantomData<T>,
}

impl<T: Transform, P: Placement> VectorKernel for InputTiles<'_, T, P> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let s = self.tiles.shape;
        let pitch = self.layout.pitch();
        for tile in self.range.clone() {
            let place = self.tiles.place(tile);
            let window = Window::new(self.x, (s.h, s.w), s.c, place, s.pad, T::SIDE);
            let whole = window.is_whole();
            for c in (0..s.c).step_by(V::LANES) {
                let start = self.layout.start(tile - self.first, c);
                let n = s.c - c;
                // SAFETY: each tile and channel writes places of its own.
                unsafe {
                    let out = self.out.pointer(start, (T::SIDE * T::SIDE - 1) * pitch + V::LANES);
                    if whole && n >= V::LANES {
                        transform::<T, V, true>(&window, c, n, out, pitch);
                    } else {
                        transform::<T, V, false>(&window, c, n, out, pitch);
                    }
                }
            }
        }
    }
}

/// Transforms one vector of channels of one tile.
///
/// # Safety
/// `out` must be writable for a vector at every multiple of `pitch` up to the last element.
#[inline(always)]
unsafe fn transform<T: Transform, V: Vector, const WHOLE: bool>(
    window: &Window,
    c: usize,
    n: usize,
    out: *mut f32,
    pitch: usize,
) {
    let mut columns = Columns::new();
    for j in 0..T::SIDE {
        let mut d = [V::splat(0.0); MAX_SIDE];
        for (i, d) in d.iter_mut().enumerate().take(T::SIDE) {
            *d = window.load::<V, WHOLE>(i, j, c, n);
        }
        columns.push(T::input(&d));
    }
    for i in 0..T::SIDE {
        let row = T::input(&columns.row(i));
        for (j, value) in row.iter().enumerate().take(T::SIDE) {
            // SAFETY: by the caller's promise.
            unsafe { value.store(out.add((i * T::SIDE + j) * pitch)) };
        }
    }
}
