//! Softmax on the CPU, summed in f64.

use crate::cpu::{Cpu, rows_per_task};

pub(super) fn forward(cpu: Cpu, classes: usize, x: &[f32], y: &mut [f32]) {
    let chunk = rows_per_task(classes) * classes;
    cpu.for_each_chunk(y, chunk, |task, y| {
        let x = &x[task * chunk..][..y.len()];
        for (x, y) in x.chunks_exact(classes).zip(y.chunks_exact_mut(classes)) {
            row(x, y);
        }
    });
}

/// Writes the softmax of one row, and returns the logarithm of its sum of exponentials.
pub(in crate::ops) fn row(x: &[f32], y: &mut [f32]) -> f64 {
    let largest = f64::from(x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = x.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
    for (x, y) in x.iter().zip(y) {
        *y = ((f64::from(*x) - largest).exp() / sum) as f32;
    }
    largest + sum.ln()
}
