//! Winograd's convolution: overlapping tiles of the input and the filters are transformed so that a convolution
//! becomes one product per tile element; a matrix product over channels for each element; the results are transformed
//! back. See `docs/winograd.md`.

mod filter_gradient;
mod filters;
mod map_tiles;
mod output;
mod product;
mod tiles;
mod transform;

use std::marker::PhantomData;

use self::filters::{Pass, filters_len, transform_filters};
use self::map_tiles::{InputTransform, Map, MapTiles};
use self::output::{ActivateAndPool, BiasRelu, Epilogue, OutputTiles, ReluBackward};
use self::product::Product;
use self::tiles::{BLOCK, PackedTiles, Tiles};
use self::transform::{F1, F2, F4, F6, Transform};
use super::{ConvKernel, ConvShape, Forward, GradInput, GradWeight};
use crate::cpu::{Cpu, SharedMut};
use crate::tensor::PackedKind;
use crate::tensor::Storage;

/// A 1x1 convolution as a matrix product.
pub(super) static POINTWISE: &dyn ConvKernel = &Winograd::<F1>(PhantomData);
/// 2x2 outputs a tile.
pub(super) static WINOGRAD2: &dyn ConvKernel = &Winograd::<F2>(PhantomData);
/// 4x4 outputs a tile.
pub(super) static WINOGRAD4: &dyn ConvKernel = &Winograd::<F4>(PhantomData);
/// 6x6 outputs a tile.
pub(super) static WINOGRAD6: &dyn ConvKernel = &Winograd::<F6>(PhantomData);

/// The algorithm with the tiles of one transform.
struct Winograd<T>(PhantomData<T>);

/// Floats of scratch memory that one thread's tiles and products may take where threads work alone: what its caches
/// hold without pushing out the filters.
const ALONE: usize = 200 * 1024;
/// Tiles in such a block, at least and at most.
const ALONE_TILES: [usize; 2] = [24, 96];
/// Blocks below which a few threads would not share out evenly, so that they work together instead.
const FEW_BLOCKS: usize = 8;
/// Tiles transformed at once where threads work together.
const TOGETHER: usize = 192;
/// Channels in and out from which the threads work together on one block, so that the transformed filters, max_nan_first
/// than any cache, are read from memory once for many tiles.
const SHARED_FILTERS: usize = 128 * 256;

impl<T: Transform> ConvKernel for Winograd<T> {
    fn forward(&self, cpu: Cpu, job: &Forward, y: &mut [f32]) {
        let s = &job.shape;
        let filters = job.weight.packed(PackedKind::WinogradForward(T::M), filters_len::<T>(s), |out| {
            transform_filters::<T>(cpu, s, job.weight.value().cpu(), Pass::Forward, out);
        });
        let Storage::Cpu(filters) = &*filters else { unreachable!("made in host memory") };
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
        let Storage::Cpu(filters) = &*filters else { unreachable!("made in host memory") };
        let filters = filters.as_f32(filters_len::<T>(s));
        let tiles = Tiles::new::<T>(s);
        let mut partial = cpu.scratch(tiles.count().div_ceil(RANGE) * s.k);
        let finish = ReluBackward {
            tiles: &tiles,
            saved: job.y,
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

    fn gates_in_place(&self) -> bool {
        true
    }

    fn can_pool(&self) -> bool {
        T::M.is_multiple_of(2)
    }
}

/// Tiles that one task transforms, forth or back. Blocks hold a multiple of it.
const RANGE: usize = 6;

/// Tiles that go through the three phases before the next, and whether all threads work on one such block.
fn block_len<T: Transform>(s: &ConvShape, tiles: usize) -> (usize, bool) {
    let [least, most] = ALONE_TILES;
    let channels = s.c.next_multiple_of(BLOCK) + s.k.next_multiple_of(BLOCK);
    let alone = (ALONE / (T::SIDE * T::SIDE * channels)).clamp(least, most);
    let shared = s.c * s.k >= SHARED_FILTERS || tiles.div_ceil(alone) < FEW_BLOCKS;
    let len = if shared { TOGETHER } else { alone };
    (len.min(tiles).next_multiple_of(RANGE), shared)
}

/// One convolution: `finish` sees every tile of the output.
fn convolve<T: Transform, F: Epilogue>(cpu: Cpu, tiles: &Tiles, x: &[f32], filters: &[f32], finish: &F) {
    let s = &tiles.shape;
    let count = tiles.count();
    let (len, shared) = block_len::<T>(s, count);
    let rows = product::rows(cpu.isa.wide_lanes());
    let block = Block::<T, F> {
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
        // Inside of a task the phases of a block run on its thread alone.
        cpu.for_each_with_scratch(blocks, scratch, run);
    }
}

/// What the blocks of a convolution share.
struct Block<'a, T, F> {
    cpu: Cpu<'a>,
    tiles: &'a Tiles,
    x: &'a [f32],
    filters: &'a [f32],
    finish: &'a F,
    v: PackedTiles,
    m: PackedTiles,
    transform: PhantomData<T>,
}

impl<T: Transform, F: Epilogue> Block<'_, T, F> {
    /// The three phases of the tiles `first .. first + count`.
    fn run(&self, first: usize, count: usize, v: &mut [f32], m: &mut [f32]) {
        let (cpu, groups) = (self.cpu, self.v);
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
                layout: groups,
                transform: PhantomData::<InputTransform<T>>,
            });
        });
        self.products(count, v, m);
        cpu.for_each(ranges, |i| {
            cpu.isa.run_wide(OutputTiles {
                tiles: self.tiles,
                products: m,
                groups: self.m,
                range: range(i),
                first,
                group: first / RANGE + i,
                finish: self.finish,
                transform: self.transform,
            });
        });
    }

    fn products(&self, count: usize, v: &[f32], m: &mut [f32]) {
        let s = &self.tiles.shape;
        let panels = self.m.blocks;
        // Two tasks an element, so that even 16 of them share out evenly.
        let parts = 2.min(panels);
        let filters_len = panels * s.c * BLOCK;
        let m = SharedMut::new(m);
        self.cpu.for_each(T::SIDE * T::SIDE * parts, |task| {
            let (element, part) = (task / parts, task % parts);
            self.cpu.isa.run_wide(Product {
                v: &v[element * self.v.pitch..][..self.v.pitch],
                v_groups: self.v,
                tiles: count,
                channels: s.c,
                u: &self.filters[element * filters_len..][..filters_len],
                panels: part * panels / parts..(part + 1) * panels / parts,
                m: &m,
                m_groups: self.m,
                m_start: element * self.m.pitch,
            });
        });
    }
}
