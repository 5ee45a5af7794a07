//! Output transform `A^T m A`, and the epilogue that runs while the values are in registers.

use std::ops::Range;

use super::super::ConvShape;
use super::tiles::{CHANNEL_BLOCK, PackedTiles, Place, Tiles};
use super::transform::{Columns, MAX_SIDE, Side, Transform};
use crate::cpu::{SharedMut, Vector, VectorKernel, prefetch, prefetch_write};

/// Epilogue of the output transform.
pub(super) trait Epilogue: Sync {
    /// Processes rows `row` and `row + 1` of a tile (one row if `M` is 1), for `n` filters from `k` on, and
    /// adds to `sum`.
    ///
    /// # Safety
    /// No other task may hold the same tile and filters.
    unsafe fn rows<V: Vector, T: Transform>(
        &self,
        place: Place,
        row: usize,
        k: usize,
        n: usize,
        rows: &[Side<V>; 2],
        sum: &mut V,
    );

    /// Prefetches memory that the rows of a tile will need.
    fn prefetch<T: Transform>(&self, _place: Place, _k: usize) {}

    /// Receives the sums that `rows` accumulated over a range of tiles.
    ///
    /// # Safety
    /// As [`Epilogue::rows`].
    unsafe fn sums<V: Vector>(&self, _range_index: usize, _k: usize, _n: usize, _sum: V) {}
}

/// Transforms a range of tiles back, for all filters.
pub(super) struct OutputTiles<'a, T, F> {
    pub(super) tiles: &'a Tiles,
    pub(super) products: &'a [f32],
    pub(super) layout: PackedTiles,
    /// Tiles of the convolution.
    pub(super) range: Range<usize>,
    /// First tile of the block that `products` holds.
    pub(super) first: usize,
    /// Index of `range` among the ranges of all tiles, for the sums.
    pub(super) range_index: usize,
    pub(super) finish: &'a F,
    pub(super) transform: std::marker::PhantomData<T>,
}

impl<T: Transform, F: Epilogue> VectorKernel for OutputTiles<'_, T, F> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let filters = self.tiles.shape.k;
        let elements = T::SIDE * T::SIDE;
        assert!(self.products.len() >= elements * self.layout.pitch);
        for block in 0..self.layout.blocks {
            let mut sums = [V::splat(0.0); 2];
            // Vectors of the block that contain filters.
            let vectors =
                (CHANNEL_BLOCK / V::LANES).min((filters - block * CHANNEL_BLOCK).div_ceil(V::LANES));
            for tile in self.range.clone() {
                let place = self.tiles.place(tile);
                let at = self.layout.at(tile - self.first, block);
                if tile + 1 < self.range.end {
                    self.finish.prefetch::<T>(self.tiles.place(tile + 1), block * CHANNEL_BLOCK);
                } else if block + 1 < self.layout.blocks {
                    self.finish
                        .prefetch::<T>(self.tiles.place(self.range.start), (block + 1) * CHANNEL_BLOCK);
                }
                for (i, sum) in sums.iter_mut().enumerate().take(vectors) {
                    let k = block * CHANNEL_BLOCK + i * V::LANES;
                    // SAFETY: a vector there lies within every element; tasks hold different tiles.
                    unsafe {
                        let from = self.products.as_ptr().add(at + i * V::LANES);
                        self.tile::<V>(from, place, k, V::LANES.min(filters - k), sum);
                    }
                }
            }
            for (i, sum) in sums.into_iter().enumerate().take(vectors) {
                let k = block * CHANNEL_BLOCK + i * V::LANES;
                // SAFETY: tasks have different ranges.
                unsafe { self.finish.sums(self.range_index, k, V::LANES.min(filters - k), sum) };
            }
        }
    }
}

impl<T: Transform, F: Epilogue> OutputTiles<'_, T, F> {
    /// Transforms one vector of filters of one tile.
    ///
    /// # Safety
    /// `from` must be readable for a vector at every multiple of the pitch up to the last element.
    #[inline(always)]
    unsafe fn tile<V: Vector>(&self, from: *const f32, place: Place, k: usize, n: usize, sum: &mut V) {
        let mut columns = Columns::new();
        for j in 0..T::SIDE {
            let mut m = [V::splat(0.0); MAX_SIDE];
            for (i, m) in m.iter_mut().enumerate().take(T::SIDE) {
                // SAFETY: by the caller's promise.
                *m = unsafe { V::load(from.add((i * T::SIDE + j) * self.layout.pitch)) };
            }
            columns.push(T::output(&m));
        }
        for row in (0..T::M).step_by(2) {
            let first = T::output(&columns.row(row));
            let second = if row + 1 < T::M { T::output(&columns.row(row + 1)) } else { first };
            let rows = [first, second];
            // SAFETY: by the caller's promise.
            unsafe { self.finish.rows::<V, T>(place, row, k, n, &rows, sum) };
        }
    }
}

/// Adds the bias, clamps at `floor`, and writes the output.
pub(super) struct BiasRelu<'a> {
    pub(super) tiles: &'a Tiles,
    pub(super) bias: &'a [f32],
    pub(super) floor: f32,
    pub(super) y: SharedMut<'a, f32>,
}

impl Epilogue for BiasRelu<'_> {
    #[inline(always)]
    unsafe fn rows<V: Vector, T: Transform>(
        &self,
        place: Place,
        row: usize,
        k: usize,
        n: usize,
        rows: &[Side<V>; 2],
        _sum: &mut V,
    ) {
        let s = &self.tiles.shape;
        let bias = load(&self.bias[k..], n);
        let floor = V::splat(self.floor);
        for (i, values) in rows.iter().enumerate() {
            let y = place.y + row + i;
            if row + i >= T::M || y >= s.oh {
                break;
            }
            let start = (place.image * s.oh + y) * s.ow + place.x;
            for (j, value) in values.iter().enumerate().take(T::M) {
                if place.x + j < s.ow {
                    // SAFETY: the pixel lies in the output, and only this task writes its filters.
                    unsafe { store(&self.y, (start + j) * s.k + k, n, value.add(bias).max_nan_first(floor)) };
                }
            }
        }
    }

    #[inline(always)]
    fn prefetch<T: Transform>(&self, place: Place, k: usize) {
        for_each_pixel::<T>(&self.tiles.shape, place, k, |at| {
            prefetch_write(self.y.as_ptr().wrapping_add(at))
        });
    }
}

/// Like [`BiasRelu`], followed by 2x2 max-pooling.
pub(super) struct ActivateAndPool<'a> {
    pub(super) tiles: &'a Tiles,
    pub(super) bias: &'a [f32],
    pub(super) floor: f32,
    /// Height and width of the pooled map.
    pub(super) pooled: (usize, usize),
    pub(super) y: SharedMut<'a, f32>,
}

impl Epilogue for ActivateAndPool<'_> {
    #[inline(always)]
    unsafe fn rows<V: Vector, T: Transform>(
        &self,
        place: Place,
        row: usize,
        k: usize,
        n: usize,
        rows: &[Side<V>; 2],
        _sum: &mut V,
    ) {
        let s = &self.tiles.shape;
        let (ph, pw) = self.pooled;
        let (y, x) = ((place.y + row) / 2, place.x / 2);
        if y >= ph {
            return;
        }
        let bias = load(&self.bias[k..], n);
        let floor = V::splat(self.floor);
        let has_second = place.y + row + 1 < s.oh;
        for j in (0..T::M).step_by(2) {
            if x + j / 2 >= pw {
                break;
            }
            // Adding a bias and the ReLU are monotonic, so they may follow the maximum; a cut-off window has
            // fewer values.
            let mut largest = rows[0][j];
            if place.x + j + 1 < s.ow {
                largest = largest.max_nan_first(rows[0][j + 1]);
            }
            if has_second {
                let mut low = rows[1][j];
                if place.x + j + 1 < s.ow {
                    low = low.max_nan_first(rows[1][j + 1]);
                }
                largest = largest.max_nan_first(low);
            }
            let at = (((place.image * ph + y) * pw) + x + j / 2) * s.k + k;
            // SAFETY: the pixel lies in the pooled map, and its window lies in this tile alone.
            unsafe { store(&self.y, at, n, largest.add(bias).max_nan_first(floor)) };
        }
    }
}

/// Backward pass of the ReLU and dropout below: the gradient is scaled where the saved output is positive,
/// zero elsewhere, and summed per channel.
pub(super) struct ReluBackward<'a> {
    pub(super) tiles: &'a Tiles,
    /// The saved output; `None` if the gradient overwrites it.
    pub(super) saved: Option<&'a [f32]>,
    pub(super) scale: f32,
    pub(super) dx: SharedMut<'a, f32>,
    /// `[ranges][k]`.
    pub(super) sums: SharedMut<'a, f32>,
}

impl Epilogue for ReluBackward<'_> {
    #[inline(always)]
    unsafe fn rows<V: Vector, T: Transform>(
        &self,
        place: Place,
        row: usize,
        k: usize,
        n: usize,
        rows: &[Side<V>; 2],
        sum: &mut V,
    ) {
        let s = &self.tiles.shape;
        let scale = V::splat(self.scale);
        for (i, values) in rows.iter().enumerate() {
            let y = place.y + row + i;
            if row + i >= T::M || y >= s.oh {
                break;
            }
            let start = (place.image * s.oh + y) * s.ow + place.x;
            for (j, value) in values.iter().enumerate().take(T::M) {
                if place.x + j < s.ow {
                    let at = (start + j) * s.k + k;
                    let saved = match self.saved {
                        Some(saved) => load(&saved[at..], n),
                        // SAFETY: only this task touches the place, and reads it before it writes.
                        None => load(unsafe { self.dx.slice(at, n) }, n),
                    };
                    let value = value.mul(scale).mask_gt_zero(saved);
                    *sum = sum.add(value);
                    // SAFETY: the pixel lies in the gradient, and only this task writes its channels.
                    unsafe { store(&self.dx, at, n, value) };
                }
            }
        }
    }

    #[inline(always)]
    fn prefetch<T: Transform>(&self, place: Place, k: usize) {
        for_each_pixel::<T>(&self.tiles.shape, place, k, |at| {
            if let Some(saved) = self.saved {
                prefetch(saved.as_ptr().wrapping_add(at));
            }
            prefetch_write(self.dx.as_ptr().wrapping_add(at));
        });
    }

    #[inline(always)]
    unsafe fn sums<V: Vector>(&self, range_index: usize, k: usize, n: usize, sum: V) {
        // SAFETY: only this task writes the range's sums.
        unsafe { store(&self.sums, range_index * self.tiles.shape.k + k, n, sum) };
    }
}

/// Calls `f` with the place of filter `k` of each output pixel of a tile.
#[inline(always)]
fn for_each_pixel<T: Transform>(s: &ConvShape, place: Place, k: usize, f: impl Fn(usize)) {
    for i in 0..T::M.min(s.oh - place.y) {
        let start = (place.image * s.oh + place.y + i) * s.ow + place.x;
        for j in 0..T::M.min(s.ow - place.x) {
            f((start + j) * s.k + k);
        }
    }
}

#[inline(always)]
fn load<V: Vector>(from: &[f32], n: usize) -> V {
    let from = &from[..n];
    // SAFETY: `from` holds `n` values.
    unsafe { if n >= V::LANES { V::load(from.as_ptr()) } else { V::load_part(from.as_ptr(), n) } }
}

/// # Safety
/// No other task may touch the `n` values from `at` on.
#[inline(always)]
unsafe fn store<V: Vector>(to: &SharedMut<f32>, at: usize, n: usize, value: V) {
    // SAFETY: the pointer is good for `n` values.
    unsafe {
        let to = to.pointer(at, n);
        if n >= V::LANES { value.store(to) } else { value.store_part(to, n) }
    }
}
