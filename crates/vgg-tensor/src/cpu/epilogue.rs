//! Epilogues: bias, ReLU and their gradients, applied to a result while it is in cache.

use super::Isa;
use super::simd::{Vector, VectorKernel};

/// Adds `bias` to every row of `bias.len()` values, then applies ReLU if `relu`.
pub(crate) fn add_bias(isa: Isa, rows: &mut [f32], bias: &[f32], relu: bool) {
    isa.run_wide(AddBias { rows, bias, relu });
}

/// Backward pass of ReLU and dropout: `dx = scale * dx` where the output `y` is positive, else 0. Adds every
/// row of `sums.len()` values of the result to `sums`.
pub(crate) fn relu_backward(isa: Isa, dx: &mut [f32], y: &[f32], scale: f32, sums: &mut [f32]) {
    isa.run_wide(ReluBackward { dx, y, scale, sums });
}

/// As [`relu_backward`] without an activation: adds every row of `sums.len()` values to `sums`.
pub(crate) fn add_rows(rows: &[f32], sums: &mut [f32]) {
    for row in rows.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
}

struct AddBias<'a> {
    rows: &'a mut [f32],
    bias: &'a [f32],
    relu: bool,
}

impl VectorKernel for AddBias<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        for row in self.rows.chunks_exact_mut(self.bias.len()) {
            for (y, b) in row.iter_mut().zip(self.bias) {
                let z = *y + b;
                // Not `f32::max`, which would replace a NaN with the floor.
                *y = if z < floor { floor } else { z };
            }
        }
    }
}

struct ReluBackward<'a> {
    dx: &'a mut [f32],
    y: &'a [f32],
    scale: f32,
    sums: &'a mut [f32],
}

impl VectorKernel for ReluBackward<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let channels = self.sums.len();
        for (dx, y) in self.dx.chunks_exact_mut(channels).zip(self.y.chunks_exact(channels)) {
            for ((dx, y), sum) in dx.iter_mut().zip(y).zip(self.sums.iter_mut()) {
                *dx = if *y > 0.0 { *dx * self.scale } else { 0.0 };
                *sum += *dx;
            }
        }
    }
}
