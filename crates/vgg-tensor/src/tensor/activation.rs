//! Activations: conversions between f32 tensors and the bf16 activations of a CPU.

use super::blocked::{Blocked, BlockedBuffer, BlockedView};
use super::{Device, Grad, Storage, Tensor};
use crate::alloc::or_out_of_memory;
use crate::cpu::{BLOCK, Line, SharedMut, Vector, VectorKernel, add_rows, from_bf16, line_of};
use crate::{Error, Result, Shape};

impl Grad {
    /// A gradient that was computed in f32 as an activation of its device. The bias gradient is the sum of the rounded
    /// values.
    pub(crate) fn into_activation(self) -> Result<Grad> {
        let device = self.grad.device.clone();
        if !device.has_bf16_cpu() {
            return Ok(self);
        }
        let grad = self.grad.to_blocked()?;
        let rounded = grad.to_plain()?;
        let bias_grad = Tensor::build(self.bias_grad.shape, &device, |sums| {
            sums.fill(0.0);
            if !device.cpu_context().dry_run {
                add_rows(rounded.cpu(), sums);
            }
        })?;
        Ok(Grad { grad, bias_grad })
    }
}

impl Tensor {
    /// New blocked activations; `fill` must write every pixel's lines. The border is cleared.
    pub(crate) fn build_blocked(
        shape: Shape,
        device: &Device,
        fill: impl FnOnce(&Blocked, &mut [Line]),
    ) -> Result<Tensor> {
        let Some(layout) = Blocked::of(shape) else {
            let reason = format!("bf16 activations {shape} must have two or four axes");
            return Err(Error::Unsupported { op: "activation", reason });
        };
        let cpu = device.cpu_context();
        or_out_of_memory(|| {
            let mut blocked = BlockedBuffer::new(cpu, layout);
            fill(&layout, blocked.lines_mut());
            Tensor::from_buffer(shape, Storage::Blocked(blocked), device)
        })
    }

    /// The lines of blocked activations. An operation calls this only after [`Tensor::to_blocked`].
    pub(crate) fn blocked(&self) -> BlockedView<'_> {
        let Storage::Blocked(buffer) = &*self.storage else { unreachable!("the tensor is not blocked") };
        let sample = self.offset / self.shape.numel_per_sample().max(1);
        let mut layout = buffer.layout;
        layout.n = self.shape.first();
        BlockedView { lines: &buffer.lines()[sample * layout.sample_stride..], layout }
    }

    /// A result of an operation as the activations of its device: in bf16 if the device computes in bf16.
    pub(crate) fn into_activation(self) -> Result<Tensor> {
        if self.device.has_bf16_cpu() { self.to_blocked() } else { Ok(self) }
    }

    /// This tensor as blocked bf16 activations; nothing is copied if it already is.
    pub(crate) fn to_blocked(&self) -> Result<Tensor> {
        if matches!(&*self.storage, Storage::Blocked(_)) {
            return Ok(self.clone());
        }
        let x = self.cpu();
        let cpu = self.device.cpu_context();
        let c = self.shape.last();
        Tensor::build_blocked(self.shape, &self.device, |layout, lines| {
            let lines = SharedMut::new(lines);
            cpu.for_each(layout.n * layout.h, |row| {
                let x = &x[row * layout.w * c..][..layout.w * c];
                cpu.isa.run_wide(ToLines { x, row, layout, lines: &lines });
            });
        })
    }

    /// This tensor in unpadded f32; nothing is copied if it already is. A GPU tensor stays as it is.
    pub(crate) fn to_plain(&self) -> Result<Tensor> {
        if !matches!(&*self.storage, Storage::Blocked(_)) {
            return Ok(self.clone());
        }
        let view = self.blocked();
        let (layout, cpu) = (view.layout, self.device.cpu_context());
        let c = layout.c;
        Tensor::build(self.shape, &self.device, |y| {
            cpu.for_each_chunk(y, layout.w * c, |row, y| cpu.isa.run_wide(FromLines { view, row, y }));
        })
    }
}

/// Converts a row of pixels to lines.
struct ToLines<'a> {
    x: &'a [f32],
    row: usize,
    layout: &'a Blocked,
    lines: &'a SharedMut<'a, Line>,
}

impl VectorKernel for ToLines<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let layout = self.layout;
        let (sample, y) = (self.row / layout.h, self.row % layout.h);
        for (column, x) in self.x.chunks_exact(layout.c).enumerate() {
            for (block, values) in x.chunks(BLOCK).enumerate() {
                // SAFETY: each line is written once.
                let line = unsafe { self.lines.slice(layout.line(sample, block, y, column), 1) };
                line_of(values, &mut line[0]);
            }
        }
    }
}

/// Converts the lines of a row of pixels to f32.
struct FromLines<'a> {
    view: BlockedView<'a>,
    row: usize,
    y: &'a mut [f32],
}

impl VectorKernel for FromLines<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let layout = self.view.layout;
        let (sample, row) = (self.row / layout.h, self.row % layout.h);
        for (column, y) in self.y.chunks_exact_mut(layout.c).enumerate() {
            for (block, values) in y.chunks_mut(BLOCK).enumerate() {
                let line = &self.view.lines[layout.line(sample, block, row, column)];
                values.iter_mut().zip(line).for_each(|(y, x)| *y = from_bf16(*x));
            }
        }
    }
}
