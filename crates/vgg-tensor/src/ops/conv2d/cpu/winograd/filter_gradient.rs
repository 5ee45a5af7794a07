//! Grad-weight: `dg = G^T [sum over tiles of (B^T d B) * (A dy A^T)] G`.
//!
//! For each tile element, the sum over tiles is a matrix product whose inner dimension is the tiles. The
//! transformed inputs have the layout `[element][c / lanes][tiles][lanes]` and the gradients
//! `[element][k / W][tiles][W]`, so that the kernel reads both sequentially.

use std::marker::PhantomData;
use std::ops::Range;

use super::super::GradWeight;
use super::map_tiles::{GradTransform, InputTransform, Map, MapTiles};
use super::tile_sums::{Sum, adjacent_filters, rows_at_once};
use super::tiles::{TileLayout, Tiles};
use super::transform::{Columns, MAX_SIDE, Transform};
use crate::GradMode;
use crate::cpu::{Cpu, SharedMut, Vector, VectorKernel};

/// Tiles that are summed at a time. The sums of these blocks are added in order, so the length affects
/// rounding.
const TILE_BLOCK: usize = 144;
/// Tiles per task of the transforms.
const RANGE: usize = 8;
/// Most bytes of a block's transformed tiles, and of its sums, with which a thread processes whole blocks. Measured on a
/// processor with 2 MB of second-level cache: three times as many bytes still gain.
const OWN_TILES: usize = 6 << 20;
const OWN_SUMS: usize = 1 << 20;
/// Blocks whose sums are kept until they are added in order.
const ROUND: usize = 16;

/// Writes or accumulates `dw [k, r, s, c]`.
pub(super) fn grad_weight<T: Transform>(cpu: Cpu, job: &GradWeight, dw: &mut [f32]) {
    let s = &job.shape;
    let sizes = Sizes::new::<T>(cpu, job);
    let mut sums = cpu.scratch(sizes.elements * sizes.rows * sizes.row_len);
    if sizes.blocks() > 1 && sizes.tiles_len() * 4 <= OWN_TILES && sums.len() * 4 <= OWN_SUMS {
        sum_whole_blocks::<T>(cpu, job, &sizes, &mut sums);
    } else {
        sum_shared_blocks::<T>(cpu, job, &sizes, &mut sums);
    }
    cpu.for_each_chunk(dw, s.depth(), |k, dw| {
        let sums = &sums[k * sizes.row_len..];
        let pitch = sizes.rows * sizes.row_len;
        cpu.isa.run_wide(Filter { sums, pitch, c: s.c, mode: job.mode, dw, transform: PhantomData::<T> });
        job.state.flag().check(dw);
    });
}

/// Sizes of the products.
struct Sizes {
    tiles: Tiles,
    tile_block: usize,
    elements: usize,
    x: Stretch,
    dz: Stretch,
    /// Filters and channels of the sums `[elements][rows][row_len]`, padded to multiples of the kernel's sizes.
    rows: usize,
    row_len: usize,
    rows_at_once: usize,
}

impl Sizes {
    fn new<T: Transform>(cpu: Cpu, job: &GradWeight) -> Sizes {
        let s = &job.shape;
        let tiles = Tiles::new::<T>(s);
        let lanes = cpu.isa.wide_lanes();
        let tile_block = TILE_BLOCK.min(tiles.count());
        let rows_at_once = rows_at_once(lanes);
        Sizes {
            tiles,
            tile_block,
            elements: T::SIDE * T::SIDE,
            x: Stretch::new(tile_block, s.c, lanes),
            dz: Stretch::new(tile_block, s.k, adjacent_filters(lanes)),
            rows: s.k.next_multiple_of(rows_at_once),
            row_len: s.c.next_multiple_of(lanes),
            rows_at_once,
        }
    }

    fn blocks(&self) -> usize {
        self.tiles.count().div_ceil(self.tile_block)
    }

    /// The tiles of a block.
    fn range(&self, block: usize) -> Range<usize> {
        block * self.tile_block..((block + 1) * self.tile_block).min(self.tiles.count())
    }

    /// Number of values of a block's transformed tiles.
    fn tiles_len(&self) -> usize {
        self.elements * (self.x.pitch + self.dz.pitch)
    }
}

/// Sums the blocks one after another. All threads share the transformed tiles of a block.
fn sum_shared_blocks<T: Transform>(cpu: Cpu, job: &GradWeight, sizes: &Sizes, sums: &mut [f32]) {
    let &Sizes { elements, rows, rows_at_once, .. } = sizes;
    let mut tiles = cpu.scratch(sizes.tiles_len());
    let (parts, sums) = (rows / rows_at_once, SharedMut::new(sums));
    let per_task = parts.div_ceil(8);
    let tasks = parts.div_ceil(per_task);
    for block in 0..sizes.blocks() {
        let range = sizes.range(block);
        let out = SharedMut::new(&mut tiles);
        cpu.for_each(range.len().div_ceil(RANGE), |task| {
            let start = range.start + task * RANGE;
            transform_both::<T>(cpu, job, sizes, range.start, start..(start + RANGE).min(range.end), &out);
        });
        cpu.for_each(elements * tasks, |task| {
            let (element, part) = (task / tasks, task % tasks);
            let filters = part * per_task * rows_at_once..((part + 1) * per_task * rows_at_once).min(rows);
            let start = element * rows * sizes.row_len;
            let product = Products { sizes, tiles: &tiles, count: range.len(), element, filters };
            product.add(cpu, &sums, start, block > 0);
        });
    }
}

/// Sums each block in a task of its own, then adds the sums in the order of the blocks: the same bits as
/// [`sum_shared_blocks`]. With few channels, products take less time than to read tiles that another thread has
/// transformed.
fn sum_whole_blocks<T: Transform>(cpu: Cpu, job: &GradWeight, sizes: &Sizes, sums: &mut [f32]) {
    let len = sums.len();
    let mut kept = cpu.scratch(ROUND.min(sizes.blocks()) * len);
    for first in (0..sizes.blocks()).step_by(ROUND) {
        let count = ROUND.min(sizes.blocks() - first);
        let of_blocks = SharedMut::new(&mut kept);
        cpu.for_each_with_scratch(count, sizes.tiles_len(), |block, tiles| {
            let range = sizes.range(first + block);
            let out = SharedMut::new(tiles);
            transform_both::<T>(cpu, job, sizes, range.start, range.clone(), &out);
            for element in 0..sizes.elements {
                let start = block * len + element * sizes.rows * sizes.row_len;
                let product = Products { sizes, tiles, count: range.len(), element, filters: 0..sizes.rows };
                product.add(cpu, &of_blocks, start, false);
            }
        });
        let chunk = len / sizes.elements;
        cpu.for_each_chunk(sums, chunk, |i, sums| {
            for (block, values) in kept.chunks_exact(len).take(count).enumerate() {
                let values = &values[i * chunk..][..chunk];
                cpu.isa.run_wide(AddSums { values, sums: &mut *sums, add: first + block > 0 });
            }
        });
    }
}

/// Writes the sums of a block, or adds them.
struct AddSums<'a> {
    values: &'a [f32],
    sums: &'a mut [f32],
    add: bool,
}

impl VectorKernel for AddSums<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        if self.add {
            self.sums.iter_mut().zip(self.values).for_each(|(sum, value)| *sum += value);
        } else {
            self.sums.copy_from_slice(self.values);
        }
    }
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

/// Transforms tiles of input and gradient, of the block that begins with tile `first`: the values of all elements of the
/// input, then those of the gradient.
fn transform_both<T: Transform>(
    cpu: Cpu,
    job: &GradWeight,
    sizes: &Sizes,
    first: usize,
    range: Range<usize>,
    out: &SharedMut<f32>,
) {
    let s = &job.shape;
    let input = Map { values: job.x, size: [s.h, s.w], channels: s.c, pad: s.pad };
    let gradient = Map { values: job.dz, size: [s.oh, s.ow], channels: s.k, pad: 0 };
    let dz = Gradients { of: sizes.dz, start: sizes.elements * sizes.x.pitch };
    cpu.isa.run_wide(MapTiles {
        tiles: &sizes.tiles,
        map: input,
        range: range.clone(),
        first,
        out,
        layout: sizes.x,
        transform: PhantomData::<InputTransform<T>>,
    });
    cpu.isa.run_wide(MapTiles {
        tiles: &sizes.tiles,
        map: gradient,
        range,
        first,
        out,
        layout: dz,
        transform: PhantomData::<GradTransform<T>>,
    });
}

/// The layout of the transformed gradients, which lie behind the inputs.
#[derive(Clone, Copy)]
struct Gradients {
    of: Stretch,
    start: usize,
}

impl TileLayout for Gradients {
    #[inline(always)]
    fn start(&self, tile: usize, channel: usize) -> usize {
        self.start + self.of.start(tile, channel)
    }

    #[inline(always)]
    fn pitch(&self) -> usize {
        self.of.pitch
    }
}

/// The products of a block of `count` transformed tiles for one element and a range of filters.
struct Products<'a> {
    sizes: &'a Sizes,
    tiles: &'a [f32],
    count: usize,
    element: usize,
    filters: Range<usize>,
}

impl Products<'_> {
    /// Writes the products to the sums of the element, which begin at `start`, or adds them.
    fn add(self, cpu: Cpu, sums: &SharedMut<f32>, start: usize, add: bool) {
        let Sizes { elements, tile_block, row_len, x, dz, .. } = self.sizes;
        let gradients = elements * x.pitch + self.element * dz.pitch;
        cpu.isa.run_wide(Sum {
            x: &self.tiles[self.element * x.pitch..][..x.pitch],
            dz: &self.tiles[gradients..][..dz.pitch],
            tile_block: *tile_block,
            count: self.count,
            rows: self.filters,
            row_len: *row_len,
            start,
            add,
            sums,
        });
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
