//! Measurement of the processor's peak throughput: multiply-adds in registers, or products of bf16 tiles, and memory
//! reads.

use std::hint::black_box;
use std::time::Instant;

use super::amx::{Nothing, Product, STEP, Sums, TILE, TileIsa, TileKernel, TileUnit};
use super::bf16::{BLOCK, Line};
use super::simd::{Vector, VectorKernel};
use super::{Cpu, SharedMut};
use crate::PeakThroughput;

/// Number of repetitions. The fastest counts, because other load on the machine only slows a repetition.
const REPETITIONS: usize = 7;
/// Multiply-adds per task and accumulator.
const STEPS: usize = 1 << 20;
/// Independent accumulators: enough to hide the latency of a multiply-add.
const ACCUMULATORS: usize = 12;
/// Number of values read: far more than a cache holds.
const READ: usize = 64 << 20;

pub(crate) fn measure(cpu: Cpu) -> PeakThroughput {
    let threads = cpu.threads.count();
    let lanes = cpu.isa.wide_lanes();
    let mut sums = vec![0.0f32; threads];
    let seconds = best_seconds(|| {
        cpu.for_each_chunk(&mut sums, 1, |_, sum| cpu.isa.run_wide(MultiplyAdd { sum: &mut sum[0] }));
    });
    let vector_gflops = (2 * threads * STEPS * ACCUMULATORS * lanes) as f64 / seconds / 1e9;
    let gflops = cpu.bf16.map_or(vector_gflops, |tiles| measure_tiles(cpu, tiles));
    // Allocated outside of the arena, so that its high-water mark does not include these values.
    let memory = vec![1.0f32; READ];
    let part = READ / (8 * threads);
    let mut sums = vec![0.0f32; READ / part];
    let seconds = best_seconds(|| {
        let shared = SharedMut::new(&mut sums);
        cpu.for_each(READ / part, |task| {
            // SAFETY: every task writes a different element.
            let sum = &mut unsafe { shared.slice(task, 1) }[0];
            cpu.isa.run_wide(Read { values: &memory[task * part..][..part], sum });
        });
    });
    black_box(&sums);
    PeakThroughput { gflops, read_gb_per_s: (READ * 4) as f64 / seconds / 1e9 }
}

/// GFLOP/s of products of tiles that lie in the first-level cache.
fn measure_tiles(cpu: Cpu, tiles: TileIsa) -> f64 {
    // The software model is slower by far; its speed does not matter.
    let repeats = if tiles == TileIsa::Model { 4 } else { 1 << 14 };
    let threads = cpu.threads.count();
    let mut results = vec![0.0f32; threads];
    let seconds = best_seconds(|| {
        cpu.for_each_chunk(&mut results, 1, |_, result| {
            tiles.run(TILE, MultiplyTiles { repeats, result: &mut result[0] });
        });
    });
    black_box(&results);
    (threads * repeats * TILE_STEPS * 4 * 2 * TILE * TILE * BLOCK) as f64 / seconds / 1e9
}

/// Steps of a product whose operands, two and 16 KiB, fit into a first-level cache.
const TILE_STEPS: usize = 8;

struct MultiplyTiles<'a> {
    repeats: usize,
    result: &'a mut f32,
}

impl TileKernel for MultiplyTiles<'_> {
    #[inline(always)]
    fn run<U: TileUnit>(self, unit: U) {
        let a = [0x3f80u16; 2 * TILE * BLOCK];
        let b = [0x3f80u16; TILE_STEPS * STEP];
        let mut sums: Sums = [[[0.0; BLOCK]; TILE]; 2];
        let product = Product {
            a: [a.as_ptr(), a[TILE * BLOCK..].as_ptr()],
            a_pitch: size_of::<Line>(),
            outer: TILE_STEPS,
            outer_stride: 0,
            window_rows: 1,
            row_stride: 0,
            window_columns: 1,
            b: b.as_ptr(),
        };
        for _ in 0..self.repeats {
            // SAFETY: `a` has two tiles, `b` two tiles for each step.
            unsafe { unit.multiply(black_box(&product), &mut sums, false, &mut Nothing) };
        }
        *self.result = sums[1][TILE - 1][BLOCK - 1];
    }
}

fn best_seconds(mut f: impl FnMut()) -> f64 {
    let times = (0..REPETITIONS).map(|_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

struct MultiplyAdd<'a> {
    sum: &'a mut f32,
}

impl VectorKernel for MultiplyAdd<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let mut sums = [V::splat(black_box(0.5)); ACCUMULATORS];
        let (factor, term) = (V::splat(black_box(0.5)), V::splat(black_box(0.25)));
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = sum.mul_add(factor, term);
            }
        }
        *self.sum = sums.iter().map(|s| s.sum()).sum();
    }
}

struct Read<'a> {
    values: &'a [f32],
    sum: &'a mut f32,
}

impl VectorKernel for Read<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let mut sums = [V::splat(0.0); 4];
        for values in self.values.chunks_exact(4 * V::LANES) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the chunk holds four vectors.
                *sum = sum.add(unsafe { V::load(values.as_ptr().add(i * V::LANES)) });
            }
        }
        *self.sum = sums.iter().map(|s| s.sum()).sum();
    }
}
