//! Transforms of tiles, channel by channel: `B^T d B` of the input, and `A dy A^T` of the output's gradient.

use std::marker::PhantomData;
use std::ops::Range;

use super::tiles::{TileLayout, Tiles, Window};
use super::transform::{Columns, MAX_SIDE, Side, Transform};
use crate::cpu::{SharedMut, Vector, VectorKernel, prefetch_write};

/// Transform of the pixels of a tile along one side.
pub(super) trait TileTransform {
    /// Pixels along a side.
    const PIXELS: usize;
    /// Values along a side of the transformed tile.
    const SIDE: usize;
    /// Transforms a row or a column.
    fn transform<V: Vector>(pixels: &Side<V>) -> Side<V>;
}

/// Transform of the input.
pub(super) struct InputTransform<T>(PhantomData<T>);

/// Transform of the output's gradient.
pub(super) struct GradTransform<T>(PhantomData<T>);

impl<T: Transform> TileTransform for InputTransform<T> {
    const PIXELS: usize = T::SIDE;
    const SIDE: usize = T::SIDE;

    #[inline(always)]
    fn transform<V: Vector>(pixels: &Side<V>) -> Side<V> {
        T::input(pixels)
    }
}

impl<T: Transform> TileTransform for GradTransform<T> {
    const PIXELS: usize = T::M;
    const SIDE: usize = T::SIDE;

    #[inline(always)]
    fn transform<V: Vector>(pixels: &Side<V>) -> Side<V> {
        T::output_gradient(pixels)
    }
}

/// Images `[n, h, w, channels]`. A tile starts `pad` pixels before its place.
#[derive(Clone, Copy)]
pub(super) struct Map<'a> {
    pub(super) values: &'a [f32],
    pub(super) size: [usize; 2],
    pub(super) channels: usize,
    pub(super) pad: usize,
}

/// Transforms all channels of a range of tiles.
pub(super) struct MapTiles<'a, R, P> {
    pub(super) tiles: &'a Tiles,
    pub(super) map: Map<'a>,
    /// Tiles of the convolution.
    pub(super) range: Range<usize>,
    /// First tile of the block that `out` holds.
    pub(super) first: usize,
    pub(super) out: &'a SharedMut<'a, f32>,
    pub(super) layout: P,
    pub(super) transform: PhantomData<R>,
}

impl<R: TileTransform, P: TileLayout> VectorKernel for MapTiles<'_, R, P> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Map { values, size, channels, pad } = self.map;
        let pitch = self.layout.pitch();
        for tile in self.range.clone() {
            let place = self.tiles.place(tile);
            let window = Window::new(values, size, channels, place, pad, R::PIXELS);
            let whole = window.is_whole();
            for c in (0..channels).step_by(V::LANES) {
                let start = self.layout.start(tile - self.first, c);
                let n = channels - c;
                let next = self.layout.start(tile - self.first, c + V::LANES);
                let next = self.out.as_ptr().wrapping_add(next);
                // SAFETY: each tile and channel writes places of its own.
                unsafe {
                    let out = self.out.pointer(start, (R::SIDE * R::SIDE - 1) * pitch + V::LANES);
                    if whole && n >= V::LANES {
                        transform::<R, V, true>(&window, c, n, out, next, pitch);
                    } else {
                        transform::<R, V, false>(&window, c, n, out, next, pitch);
                    }
                }
            }
        }
    }
}

/// Transforms one vector of channels of one tile, and prefetches where the next vector is written, from `next` on:
/// waiting for the lines to arrive takes a third of the time otherwise.
///
/// # Safety
/// `out` must be writable for a vector at every multiple of `pitch` up to the last element.
#[inline(always)]
unsafe fn transform<R: TileTransform, V: Vector, const WHOLE: bool>(
    window: &Window,
    c: usize,
    n: usize,
    out: *mut f32,
    next: *const f32,
    pitch: usize,
) {
    let mut columns = Columns::new();
    for j in 0..R::PIXELS {
        let mut pixels = [V::splat(0.0); MAX_SIDE];
        for (i, pixel) in pixels.iter_mut().enumerate().take(R::PIXELS) {
            *pixel = window.load::<V, WHOLE>(i, j, c, n);
        }
        columns.push(R::transform(&pixels));
    }
    for i in 0..R::SIDE {
        let row = R::transform(&columns.row(i));
        for (j, value) in row.iter().enumerate().take(R::SIDE) {
            // SAFETY: by the caller's promise.
            unsafe { value.store(out.add((i * R::SIDE + j) * pitch)) };
            prefetch_write(next.wrapping_add((i * R::SIDE + j) * pitch));
        }
    }
}
