//! Measurement of the processor's peak throughput: multiply-adds in registers, and memory reads.

use std::hint::black_box;
use std::time::Instant;

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
    let gflops = (2 * threads * STEPS * ACCUMULATORS * lanes) as f64 / seconds / 1e9;
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
