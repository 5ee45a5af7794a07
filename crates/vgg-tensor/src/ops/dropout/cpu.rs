//! Dropout on the CPU, sample by sample.

use super::{DropoutKey, philox};
use crate::cpu::Cpu;

pub(super) fn forward(cpu: Cpu, per_sample: usize, x: &[f32], rate: f32, key: DropoutKey, y: &mut [f32]) {
    let scale = 1.0 / (1.0 - rate);
    // Dropped if the 32 random bits, as a fraction of 2^32, are below the rate.
    let threshold = (f64::from(rate) * 4_294_967_296.0) as u64;
    let blocks = per_sample.div_ceil(4) as u64;
    cpu.for_each_chunk(y, per_sample, |sample, y| {
        let x = &x[sample * per_sample..][..per_sample];
        let first = (key.first_sample + sample) as u64 * blocks;
        for ((block, x), y) in x.chunks(4).enumerate().zip(y.chunks_mut(4)) {
            let bits = philox::block(key.seed, first + block as u64, key.step, key.layer);
            for ((x, y), bits) in x.iter().zip(y).zip(bits) {
                *y = if u64::from(bits) < threshold { 0.0 } else { x * scale };
            }
        }
    });
}
