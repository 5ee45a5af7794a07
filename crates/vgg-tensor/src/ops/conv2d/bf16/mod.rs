//! Convolution of bf16 activations on the CPU's tile unit.
//!
//! Sums are f32; the result of a ReLU is rounded to bf16, scores stay f32. Windows are read in place from blocked
//! activations. A convolution that is padded by more than their border is computed in f32.

pub(in crate::ops) mod epilogues;
mod filter_gradient;
pub(in crate::ops) mod filters;
mod window_lines;

pub(super) use self::filter_gradient::{grad_weight, supports as supports_grad_weight};

use self::epilogues::{BiasRelu, Mask, Output, Pooled, Scores};
use super::Conv2d;
use super::shape::ConvShape;
use crate::alloc::or_out_of_memory;
use crate::cpu::{BLOCK, Cpu, Line, OutputLines, SharedMut, Windows, add_rows, multiply};
use crate::tensor::{BORDER, Blocked, BlockedView, Storage};
use crate::{Grad, Result, Shape, Tensor, Weight};
use filters::Sizes;

/// Whether the tile unit computes the forward pass.
pub(super) fn supports(s: &ConvShape) -> bool {
    s.pad <= BORDER
}

/// `relu(x * weight + bias)` in bf16, pooled if `pooled` has the pooled height and width; without ReLU in f32, not
/// pooled.
pub(super) fn forward(
    s: ConvShape,
    x: &Tensor,
    weight: &Weight,
    bias: &Weight,
    config: Conv2d,
    pooled: Option<(usize, usize)>,
) -> Result<Tensor> {
    let device = x.device();
    let cpu = device.cpu_context();
    let bias = or_out_of_memory(|| padded_bias(cpu, bias.value().cpu()))?;
    let bias = &bias[..];
    let input = Input::of(&s, x)?;
    let filters = or_out_of_memory(|| filters::forward(cpu, weight, input.sizes(&s)))?;
    let run = Run { cpu, s, input: &input, filters: filters.values(), panels: filters.panels };
    let output = |layout: &Blocked| Output { rows: s.oh, columns: s.ow, layout: *layout };
    match (config.relu, pooled) {
        (true, None) => Tensor::build_blocked(s.output(), device, |layout, lines| {
            run.multiply(&BiasRelu { output: output(layout), bias, lines: OutputLines::new(lines) });
        }),
        (true, Some((h, w))) => {
            Tensor::build_blocked(Shape::from([s.n, h, w, s.k]), device, |layout, lines| {
                run.multiply(&Pooled { output: output(layout), bias, lines: OutputLines::new(lines) });
            })
        }
        (false, _) => Tensor::build(s.output(), device, |y| {
            let layout = Blocked::images([s.n, s.oh, s.ow, s.k]);
            run.multiply(&Scores { output: output(&layout), bias, scores: SharedMut::new(y) });
        }),
    }
}

/// Whether the tile unit computes grad-input.
pub(super) fn supports_grad_input(s: &ConvShape) -> bool {
    s.mirrored().pad <= BORDER
}

/// Grad-input, masked by the saved input `saved`.
pub(super) fn grad_input(
    s: ConvShape,
    dz: &Tensor,
    weight: &Weight,
    saved: &Tensor,
    scale: f32,
) -> Result<Grad> {
    let device = dz.device();
    let cpu = device.cpu_context();
    let (dz, saved) = (dz.to_blocked()?, saved.to_blocked()?);
    let mirrored = s.mirrored();
    let filters = or_out_of_memory(|| filters::grad_input(cpu, weight, &s))?;
    let windows = windows(&mirrored, dz.blocked());
    let channels = s.c.div_ceil(BLOCK) * BLOCK;
    let mut sums = or_out_of_memory(|| cpu.scratch(channels))?;
    let mut partial = or_out_of_memory(|| cpu.scratch(windows.pairs() * channels))?;
    let dx = Tensor::build_blocked(s.input(), device, |layout, lines| {
        let epilogue = Mask {
            output: Output { rows: s.h, columns: s.w, layout: *layout },
            saved: saved.blocked().lines,
            scale,
            lines: OutputLines::new(lines),
            partial: SharedMut::new(&mut partial),
        };
        multiply(cpu, &windows, filters.values(), filters.panels, &epilogue);
    })?;
    sums.fill(0.0);
    if !cpu.dry_run {
        add_rows(&partial, &mut sums);
    }
    Ok(Grad { grad: dx, bias_grad: Tensor::from_slice(&sums[..s.c], [s.c], device)? })
}

/// A forward pass or grad-input with its operands.
struct Run<'a> {
    cpu: Cpu<'a>,
    s: ConvShape,
    input: &'a Input,
    filters: &'a [u16],
    panels: usize,
}

impl Run<'_> {
    fn multiply<E: crate::cpu::Epilogue>(&self, epilogue: &E) {
        match self.input {
            Input::Blocked(x) => {
                multiply(self.cpu, &windows(&self.s, x.blocked()), self.filters, self.panels, epilogue);
            }
            Input::Pixels(x) => {
                window_lines::multiply(self.cpu, &self.s, x.cpu(), self.filters, self.panels, epilogue);
            }
        }
    }
}

/// The input of a convolution.
enum Input {
    Blocked(Tensor),
    /// f32 pixels, whose windows are lines.
    Pixels(Tensor),
}

impl Input {
    fn of(s: &ConvShape, x: &Tensor) -> Result<Input> {
        if window_lines::fits(s) && matches!(x.storage(), Storage::Cpu(_)) {
            return Ok(Input::Pixels(x.clone()));
        }
        Ok(Input::Blocked(x.to_blocked()?))
    }

    /// Sizes of the filters for this input.
    fn sizes(&self, s: &ConvShape) -> Sizes {
        match self {
            Input::Blocked(_) => Sizes { k: s.k, taps: s.r * s.s, c: s.c },
            Input::Pixels(_) => Sizes { k: s.k, taps: 1, c: s.depth() },
        }
    }
}

/// The windows of a convolution over blocked activations.
fn windows<'a>(s: &ConvShape, x: BlockedView<'a>) -> Windows<'a> {
    let layout = x.layout;
    let line = size_of::<Line>();
    // The border has the pixels of the padding; a convolution without padding starts inside of it.
    let first = layout.line(0, 0, 0, 0) - s.pad * (layout.row_stride + 1);
    Windows {
        images: s.n,
        rows: s.oh,
        columns: s.ow,
        lines: &x.lines[first..],
        image_stride: layout.sample_stride * line,
        pixel_row_stride: layout.row_stride * line,
        pixel_stride: line,
        blocks: layout.blocks(),
        block_stride: layout.block_stride * line,
        window_rows: s.r,
        window_row_stride: layout.row_stride * line,
        window_columns: s.s,
        overlap: false,
    }
}

/// Bias, filled up with zeros to whole blocks.
pub(in crate::ops) fn padded_bias(cpu: Cpu, bias: &[f32]) -> crate::cpu::Scratch {
    let mut padded = cpu.scratch(bias.len().next_multiple_of(BLOCK));
    padded[..bias.len()].copy_from_slice(bias);
    padded[bias.len()..].fill(0.0);
    padded
}
