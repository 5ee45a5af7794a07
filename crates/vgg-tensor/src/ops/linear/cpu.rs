//! Fully connected layers on the CPU, as matrix products.

use super::LinearShape;
use crate::cpu::{Cpu, add_bias, add_rows, gemm_nn, gemm_nt, gemm_tn, relu_backward};
use crate::{GradMode, ReluDropoutMask, StepState};

pub(super) fn forward(
    cpu: Cpu,
    s: LinearShape,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    relu: bool,
    y: &mut [f32],
) {
    gemm_nt(cpu, x, weight, s.inputs, y);
    add_bias(cpu.isa, y, bias, relu);
}

pub(super) fn grad_input(
    cpu: Cpu,
    s: LinearShape,
    dz: &[f32],
    weight: &[f32],
    below: ReluDropoutMask,
    dx: &mut [f32],
    sums: &mut [f32],
) {
    gemm_nn(cpu, dz, weight, s.outputs, dx);
    // Each sample has its own sum; the sums are added in sample order.
    let channels = sums.len();
    let mut partial = cpu.scratch(s.n * channels);
    let y = below.y.cpu();
    let partial_sums = crate::cpu::SharedMut::new(&mut partial);
    cpu.for_each_chunk(dx, s.inputs, |i, dx| {
        // SAFETY: each sample has sums of its own.
        let sums = unsafe { partial_sums.slice(i * channels, channels) };
        sums.fill(0.0);
        relu_backward(cpu.isa, dx, &y[i * s.inputs..][..s.inputs], below.scale, sums);
    });
    sums.fill(0.0);
    add_rows(&partial, sums);
}

pub(super) fn grad_weight(
    cpu: Cpu,
    s: LinearShape,
    x: &[f32],
    dz: &[f32],
    dw: &mut [f32],
    mode: GradMode,
    state: &StepState,
) {
    gemm_tn(cpu, dz, x, s.n, dw, mode, state.flag());
}
