//! Convolution on the CPU: the interface of the algorithms, and dispatch to the one that `plan.rs` chooses.

mod algorithm;
mod blocks;
mod direct;
mod direct_filter;
mod gather;
mod winograd;

use self::algorithm::choose;
use super::shape::ConvShape;
use crate::cpu::Cpu;
use crate::{GradMode, Shape, StepState, Weight};

/// Operands of the forward pass `y = relu(x * weight + bias)`.
pub(super) struct Forward<'a> {
    pub(super) shape: ConvShape,
    pub(super) x: &'a [f32],
    pub(super) weight: &'a Weight,
    pub(super) bias: &'a [f32],
    pub(super) relu: bool,
    /// Height and width of the output after 2x2 max-pooling, if only the pooled output is wanted.
    pub(super) pooled: Option<(usize, usize)>,
}

/// Operands of grad-input: `dx = scale * (dz * rotated weight)` where the saved input is positive,
/// else 0.
pub(super) struct GradInput<'a> {
    pub(super) shape: ConvShape,
    pub(super) dz: &'a [f32],
    pub(super) weight: &'a Weight,
    /// `None` if the output buffer holds the saved input, which needs [`ConvKernel::masks_in_place`].
    pub(super) saved_x: Option<&'a [f32]>,
    pub(super) scale: f32,
}

/// Operands of grad-weight: `dw = sum over images and pixels of dz (x) x`.
pub(super) struct GradWeight<'a> {
    pub(super) shape: ConvShape,
    pub(super) x: &'a [f32],
    pub(super) dz: &'a [f32],
    pub(super) mode: GradMode,
    pub(super) state: &'a StepState,
}

/// A convolution algorithm. The algorithm affects rounding, so it is chosen by shape alone.
pub(super) trait ConvKernel: Sync {
    /// Writes `y [n, oh, ow, k]`, or the pooled map if it is requested and [`ConvKernel::can_pool`].
    fn forward(&self, cpu: Cpu, job: &Forward, y: &mut [f32]);

    /// Writes `dx [n, h, w, c]` and its sum per channel.
    fn grad_input(&self, cpu: Cpu, job: &GradInput, dx: &mut [f32], sums: &mut [f32]);

    /// Writes or accumulates `dw [k, r, s, c]`.
    fn grad_weight(&self, cpu: Cpu, job: &GradWeight, dw: &mut [f32]);

    /// Whether grad-input may overwrite the saved input that masks it.
    fn masks_in_place(&self) -> bool {
        false
    }

    /// Whether the forward pass can write only the pooled map.
    fn can_pool(&self) -> bool {
        false
    }
}

pub(super) fn forward(cpu: Cpu, job: &Forward, y: &mut [f32]) {
    let s = &job.shape;
    let algorithm = choose(cpu.conv, s);
    match job.pooled {
        Some(pooled) if !algorithm.can_pool() => {
            let mut whole = cpu.scratch(s.output().len());
            algorithm.forward(cpu, &Forward { pooled: None, ..*job }, &mut whole);
            let pooled = Shape::from([s.n, pooled.0, pooled.1, s.k]);
            crate::ops::max_pool2d::cpu::forward(cpu, s.output(), pooled, &whole, y, None);
        }
        _ => algorithm.forward(cpu, job, y),
    }
}

pub(super) fn masks_in_place(cpu: Cpu, shape: &ConvShape) -> bool {
    choose(cpu.conv, shape).masks_in_place()
}

pub(super) fn grad_input(cpu: Cpu, job: &GradInput, dx: &mut [f32], sums: &mut [f32]) {
    choose(cpu.conv, &job.shape).grad_input(cpu, job, dx, sums);
}

pub(super) fn grad_weight(cpu: Cpu, job: &GradWeight, dw: &mut [f32]) {
    choose(cpu.conv, &job.shape).grad_weight(cpu, job, dw);
}
