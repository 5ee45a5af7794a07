//! Winograd convolution. Overlapping tiles of the input and the filters are transformed, one matrix product
//! over channels is computed for each element of the transformed tiles, and the results are transformed back.
//! See `docs/winograd.md`.

mod filter_gradient;
mod filters;
mod map_tiles;
mod output;
mod product;
mod tile_sums;
mod tiles;
mod transform;

use std::marker::PhantomData;

use self::filters::{Pass, filters_len, filters_pitch, transform_filters};
use self::map_tiles::{InputTransform, Map, MapTiles};
use self::output::{ActivateAndPool, BiasRelu, Epilogue, OutputTiles, ReluBackward};
use self::product::Product;
use self::tiles::{CHANNEL_BLOCK, PackedTiles, Tiles};
use self::transform::{F1, F2, F4, F6, Transform};
use super::{ConvKernel, ConvShape, Forward, GradInput, GradWeight};
use crate::cpu::{Cpu, SharedMut};
use crate::tensor::PackedKind;
use crate::tensor::Storage;

/// A 1x1 convolution as a matrix product.
pub(super) static POINTWISE: &dyn ConvKernel = &Winograd::<F1>(PhantomData);
/// Tiles of 2x2 outputs.
pub(super) static WINOGRAD2: &dyn ConvKernel = &Winograd::<F2>(PhantomData);
/// Tiles of 4x4 outputs.
pub(super) static WINOGRAD4: &dyn ConvKernel = &Winograd::<F4>(PhantomData);
/// Tiles of 6x6 outputs.
pub(super) static WINOGRAD6: &dyn ConvKernel = &Winograd::<F6>(PhantomData);

/// The algorithm with the tile size of transform `T`.
struct Winograd<T>(PhantomData<T>);

/// Floats of scratch memory per thread for tiles and products when each thread works on its own block: what
/// fits in its caches next to the filters.
const ALONE: usize = 200 * 1024;
/// Fewest and most tiles in such a block.
const ALONE_TILES: [usize; 2] = [24, 96];
/// With fewer blocks than this, a few threads would be loaded unevenly, so all threads work on one block.
const FEW_BLOCKS: usize = 8;
/// Most tiles per block when all threads work on one block.
const TOGETHER: usize = 204;
/// If input channels times output channels is at least this, all threads work on one block. The transformed
/// filters are then larger than any cache and are read from memory once for many tiles.
const SHARED_FILTERS: usize = 128 * 256;

impl<T: Transform> ConvKernel for Winograd<T> {
    fn forward(&self, cpu: Cpu, job: &Forward, y: &mut [f32]) {
        let s = &job.shape;
        let filters = job.weight.packed(PackedKind::WinogradForward(T::M), filters_len::<T>(s), |out| {
            transform_filters::<T>(cpu, s, job.weight.value().cpu(), Pass::Forward, out);
        });
        let Storage::Cpu(filters) = &*filters else { unreachable!("filters are packed in host memory") };
        let filters = filters.as_f32(filters_len::<T>(s));
        let tiles = Tiles::new::<T>(s);
        let floor = if job.relu { 0.0 } else { f32::NEG_INFINITY };
        let y = SharedMut::new(y);
        match job.pooled {
            None => convolve::<T, _>(
                cpu,
                &tiles,
                job.x,
                filters,
                &BiasRelu { tiles: &tiles, bias: job.bias, floor, y },
            ),
            Some(pooled) => {
                let finish = ActivateAndPool { tiles: &tiles, bias: job.bias, floor, pooled, y };
                convolve::<T, _>(cpu, &tiles, job.x, filters, &finish);
            }
        }
    }

    fn grad_input(&self, cpu: Cpu, job: &GradInput, dx: &mut [f32], sums: &mut [f32]) {
        let s = &job.shape.mirrored();
        let filters = job.weight.packed(PackedKind::WinogradGradInput(T::M), filters_len::<T>(s), |out| {
            transform_filters::<T>(cpu, s, job.weight.value().cpu(), Pass::GradInput, out);
        });
        let Storage::Cpu(filters) = &*filters else { unreachable!("filters are packed in host memory") };
        let filters = filters.as_f32(filters_len::<T>(s));
        let tiles = Tiles::new::<T>(s);
        let mut partial = cpu.scratch(tiles.count().div_ceil(RANGE) * s.k);
        let finish = ReluBackward {
            tiles: &tiles,
            saved: job.saved_x,
            scale: job.scale,
            dx: SharedMut::new(dx),
            sums: SharedMut::new(&mut partial),
        };
        convolve::<T, _>(cpu, &tiles, job.dz, filters, &finish);
        sums.fill(0.0);
        crate::cpu::add_rows(&partial, sums);
    }

    fn grad_weight(&self, cpu: Cpu, job: &GradWeight, dw: &mut [f32]) {
        filter_gradient::grad_weight::<T>(cpu, job, dw);
    }

    fn masks_in_place(&self) -> bool {
        true
    }

    fn can_pool(&self) -> bool {
        T::M.is_multiple_of(2)
    }
}

/// Tiles per task of the input and output transforms. Blocks hold a multiple of it.
const RANGE: usize = 6;

/// Number of tiles that pass through the three phases together, and whether all threads work on one such
/// block.
fn block_len<T: Transform>(s: &ConvShape, tiles: usize) -> (usize, bool) {
    let [least, most] = ALONE_TILES;
    let channels = s.c.next_multiple_of(CHANNEL_BLOCK) + s.k.next_multiple_of(CHANNEL_BLOCK);
    let alone = (ALONE / (T::SIDE * T::SIDE * channels)).clamp(least, most);
    let shared = s.c * s.k >= SHARED_FILTERS || tiles.div_ceil(alone) < FEW_BLOCKS;
    let most = if shared { TOGETHER } else { alone };
    // Blocks of equal size, because a small last block would read all filters for a few tiles.
    let len = tiles.div_ceil(tiles.div_ceil(most));
    (len.next_multiple_of(2 * RANGE), shared)
}

/// Computes a convolution, and calls `finish` on every tile of the output.
fn convolve<T: Transform, F: Epilogue>(cpu: Cpu, tiles: &Tiles, x: &[f32], filters: &[f32], finish: &F) {
    let s = &tiles.shape;
    let count = tiles.count();
    let (len, shared) = block_len::<T>(s, count);
    let rows = product::rows(cpu.isa.wide_lanes());
    let block = TileBlock::<T, F> {
        cpu,
        tiles,
        x,
        filters,
        finish,
        v: PackedTiles::new(len, s.c, rows),
        m: PackedTiles::new(len, s.k, rows),
        transform: PhantomData,
    };
    let elements = T::SIDE * T::SIDE;
    let v_len = elements * block.v.pitch;
    let scratch = v_len + elements * block.m.pitch;
    let run = |i: usize, scratch: &mut [f32]| {
        let (v, m) = scratch.split_at_mut(v_len);
        block.run(i * len, len.min(count - i * len), v, m);
    };
    let blocks = count.div_ceil(len);
    if shared {
        let mut scratch = cpu.scratch(scratch);
        (0..blocks).for_each(|i| run(i, &mut scratch));
    } else {
        // Inside a task, the phases of a block run on its thread.
        cpu.for_each_with_scratch(blocks, scratch, run);
    }
}

/// Data shared by the blocks of a convolution.
struct TileBlock<'a, T, F> {
    cpu: Cpu<'a>,
    tiles: &'a Tiles,
    x: &'a [f32],
    filters: &'a [f32],
    finish: &'a F,
    v: PackedTiles,
    m: PackedTiles,
    transform: PhantomData<T>,
}

impl<T: Transform, F: Epilogue> TileBlock<'_, T, F> {
    /// Runs the three phases for the tiles `first .. first + count`: input transform, matrix products, output
    /// transform.
    fn run(&self, first: usize, count: usize, v: &mut [f32], m: &mut [f32]) {
        let (cpu, layout) = (self.cpu, self.v);
        let range = |i: usize| first + i * RANGE..first + ((i + 1) * RANGE).min(count);
        let ranges = count.div_ceil(RANGE);
        let transformed = SharedMut::new(v);
        let s = &self.tiles.shape;
        let map = Map { values: self.x, size: [s.h, s.w], channels: s.c, pad: s.pad };
        cpu.for_each(ranges, |i| {
            cpu.isa.run_wide(MapTiles {
                tiles: self.tiles,
                map,
                range: range(i),
                first,
                out: &transformed,
                layout,
                transform: PhantomData::<InputTransform<T>>,
            });
        });
        self.products(count, v, m);
        cpu.for_each(ranges, |i| {
            cpu.isa.run_wide(OutputTiles {
                tiles: self.tiles,
                products: m,
                layout: self.m,
                range: range(i),
                first,
                range_index: first / RANGE + i,
                finish: self.finish,
                transform: self.transform,
            });
        });
    }

    fn products(&self, count: usize, v: &[f32], m: &mut [f32]) {
        let s = &self.tiles.shape;
        let panels = self.m.blocks;
        // Two tasks share the 16 elements of a small transform or the one of a 1x1 filter. More elements are enough to
        // load the threads evenly, and then only one of them reads an element's tiles.
        let parts = if panels < 4 || T::SIDE > 4 { 1 } else { 2 };
        let pitch = filters_pitch(s);
        let m = SharedMut::new(m);
        self.cpu.for_each(T::SIDE * T::SIDE * parts, |task| {
            let (element, part) = (task / parts, task % parts);
            self.cpu.isa.run_wide(Product {
                v: &v[element * self.v.pitch..][..self.v.pitch],
                v_layout: self.v,
                tiles: count,
                channels: s.c,
                u: &self.filters[element * pitch..][..pitch],
                panels: part * panels / parts..(part + 1) * panels / parts,
                m: &m,
                m_layout: self.m,
                m_start: element * self.m.pitch,
            });
        });
    }
}
