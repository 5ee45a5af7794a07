//! Local response normalisation on the CPU, pixel by pixel.

use super::Lrn;
use crate::cpu::{Cpu, SharedMut, add_rows, relu_backward, rows_per_task};

/// `base = k + a * sum of squares over the window`.
pub(super) fn bases(cpu: Cpu, channels: usize, config: Lrn, x: &[f32], base: &mut [f32]) {
    let a = config.weight();
    let chunk = rows_per_task(channels) * channels;
    cpu.for_each_chunk(base, chunk, |task, base| {
        let x = &x[task * chunk..][..base.len()];
        for (x, base) in x.chunks_exact(channels).zip(base.chunks_exact_mut(channels)) {
            window_sums(config.size, x, |x| x * x, base);
            base.iter_mut().for_each(|b| *b = config.k + a * *b);
        }
    });
}

pub(super) fn normalise(cpu: Cpu, config: Lrn, x: &[f32], base: &[f32], y: &mut [f32]) {
    let chunk = 16 * 1024;
    cpu.for_each_chunk(y, chunk, |task, y| {
        let at = task * chunk;
        for (i, y) in y.iter_mut().enumerate() {
            *y = x[at + i] * power(base[at + i], config.beta);
        }
    });
}

/// `dx_i = dy_i base_i^-beta - 2 a beta x_i * sum over the window of dy_j x_j base_j^(-beta-1)`, masked.
pub(super) fn backward(
    cpu: Cpu,
    config: Lrn,
    [dy, x, base]: [&[f32]; 3],
    scale: f32,
    dx: &mut [f32],
    sums: &mut [f32],
) {
    let channels = sums.len();
    let chunk = rows_per_task(channels) * channels;
    let tasks = dx.len().div_ceil(chunk);
    let mut partial = cpu.scratch(tasks * channels);
    let partial_sums = SharedMut::new(&mut partial);
    let factor = 2.0 * config.weight() * config.beta;
    cpu.for_each_chunk(dx, chunk, |task, dx| {
        // SAFETY: each task has sums of its own.
        let sums = unsafe { partial_sums.slice(task * channels, channels) };
        sums.fill(0.0);
        let (mut terms, mut powers) = (cpu.scratch(channels), cpu.scratch(channels));
        for (row, dx) in dx.chunks_exact_mut(channels).enumerate() {
            let at = task * chunk + row * channels;
            let [dy, x, base] = [dy, x, base].map(|v| &v[at..][..channels]);
            powers.iter_mut().zip(base).for_each(|(power, base)| *power = self::power(*base, config.beta));
            for (i, term) in terms.iter_mut().enumerate() {
                *term = dy[i] * x[i] * powers[i] / base[i];
            }
            window_sums(config.size, &terms, |t| t, dx);
            for (i, dx) in dx.iter_mut().enumerate() {
                *dx = dy[i] * powers[i] - factor * x[i] * *dx;
            }
            relu_backward(cpu.isa, dx, x, scale, sums);
        }
    });
    sums.fill(0.0);
    add_rows(&partial, sums);
}

/// Sums of `f(x)` over a window centred on each channel and cut off at the ends. Shifted rows are added one
/// after the other, so that the loop over channels vectorises.
fn window_sums(size: usize, x: &[f32], f: impl Fn(f32) -> f32, sums: &mut [f32]) {
    let half = size / 2;
    sums.fill(0.0);
    for shift in 0..=2 * half {
        let (from, to) = (shift.saturating_sub(half), half.saturating_sub(shift));
        let n = x.len().saturating_sub(from.max(to));
        if n > 0 {
            sums[to..to + n].iter_mut().zip(&x[from..from + n]).for_each(|(sum, x)| *sum += f(*x));
        }
    }
}

/// `base^-beta`; the usual 0.75 uses square roots, which are correctly rounded on every platform.
fn power(base: f32, beta: f32) -> f32 {
    if beta == 0.75 {
        let root = base.sqrt();
        return 1.0 / (root * root.sqrt());
    }
    base.powf(-beta)
}
