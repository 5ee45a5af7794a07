//! Convolution on the CPU: algorithms behind one trait, and the choice among them.

mod blocks;
mod direct;
mod direct_filter;
mod gather;

use super::shape::ConvShape;
use crate::cpu::Cpu;
use crate::{StepState, Weight, Write};

/// Forward pass: operands of `y = relu(x * weight + bias)`.
pub(super) struct Forward<'a> {
    pub(super) shape: ConvShape,
    pub(super) x: &'a [f32],
    pub(super) weight: &'a Weight,
    pub(super) bias: &'a [f32],
    pub(super) relu: bool,
}

/// Gradient by data: `dx = scale * (dz * rotated weight)` where the saved input `y` is positive.
pub(super) struct BackwardData<'a> {
    pub(super) shape: ConvShape,
    pub(super) dz: &'a [f32],
    pub(super) weight: &'a Weight,
    pub(super) y: &'a [f32],
    pub(super) scale: f32,
}

/// Gradient by filter: `dw = sum over images and pixels of dz (x) x`.
pub(super) struct BackwardFilter<'a> {
    pub(super) shape: ConvShape,
    pub(super) x: &'a [f32],
    pub(super) dz: &'a [f32],
    pub(super) write: Write,
    pub(super) state: &'a StepState,
}

/// A way to compute convolutions. Which one serves a shape decides bits, so the choice depends on the shape alone.
pub(super) trait ConvAlgorithm: Sync {
    /// Writes `y [n, oh, ow, k]`.
    fn forward(&self, cpu: Cpu, job: &Forward, y: &mut [f32]);

    /// Writes `dx [n, h, w, c]` and its sum per channel.
    fn backward_data(&self, cpu: Cpu, job: &BackwardData, dx: &mut [f32], sums: &mut [f32]);

    /// Writes or accumulates `dw [k, r, s, c]`.
    fn backward_filter(&self, cpu: Cpu, job: &BackwardFilter, dw: &mut [f32]);
}

pub(super) fn forward(cpu: Cpu, job: &Forward, y: &mut [f32]) {
    choose(&job.shape).forward(cpu, job, y);
}

pub(super) fn backward_data(cpu: Cpu, job: &BackwardData, dx: &mut [f32], sums: &mut [f32]) {
    choose(&job.shape).backward_data(cpu, job, dx, sums);
}

pub(super) fn backward_filter(cpu: Cpu, job: &BackwardFilter, dw: &mut [f32]) {
    choose(&job.shape).backward_filter(cpu, job, dw);
}

/// Gathering serves dense fc6: few pixels against filters too large to keep a second, packed copy of.
fn choose(shape: &ConvShape) -> &'static dyn ConvAlgorithm {
    if shape.pad == 0 && shape.r > 1 { &gather::Gather } else { &direct::Direct }
}
