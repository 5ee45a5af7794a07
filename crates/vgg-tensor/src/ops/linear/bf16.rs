//! The forward pass of a fully connected layer on the CPU's tile unit: the samples are the pixels of a 1x1 map, or of a
//! convolution whose window is the whole image.

use super::{Linear, LinearShape};
use crate::alloc::or_out_of_memory;
use crate::cpu::{Line, OutputLines, SharedMut, Windows, multiply};
use crate::ops::conv2d::bf16::epilogues::{BiasRelu, Output, Scores};
use crate::ops::conv2d::bf16::filters::{self, Sizes};
use crate::ops::conv2d::bf16::padded_bias;
use crate::tensor::{Blocked, BlockedView};
use crate::{Result, Shape, Tensor, Weight};

/// `relu(x weight^T + bias)` in bf16, or without ReLU in f32.
pub(super) fn forward(
    s: LinearShape,
    x: &Tensor,
    weight: &Weight,
    bias: &Weight,
    config: Linear,
) -> Result<Tensor> {
    let device = x.device();
    let cpu = device.cpu_context();
    let x = x.to_blocked()?;
    let view = x.blocked();
    let Blocked { h, w, c, .. } = view.layout;
    let bias = &or_out_of_memory(|| padded_bias(cpu, bias.value().cpu()))?[..];
    let filters = or_out_of_memory(|| filters::forward(cpu, weight, Sizes { k: s.outputs, taps: h * w, c }))?;
    let windows = windows(view);
    let output =
        Output { rows: windows.rows, columns: windows.columns, layout: Blocked::vectors(s.n, s.outputs) };
    let shape = Shape::from([s.n, s.outputs]);
    if config.relu {
        return Tensor::build_blocked(shape, device, |_, lines| {
            let epilogue = BiasRelu { output, bias, lines: OutputLines::new(lines) };
            multiply(cpu, &windows, filters.values(), filters.panels, &epilogue);
        });
    }
    Tensor::build(shape, device, |y| {
        let epilogue = Scores { output, bias, scores: SharedMut::new(y) };
        multiply(cpu, &windows, filters.values(), filters.panels, &epilogue);
    })
}

/// Every sample is the window of a pixel. The pixels are in two rows, so that a block has two tiles; with an odd number
/// of samples the rows overlap.
fn windows(x: BlockedView<'_>) -> Windows<'_> {
    let layout = x.layout;
    let line = size_of::<Line>();
    let rows = layout.n.min(2);
    let columns = layout.n.div_ceil(2);
    Windows {
        images: 1,
        rows,
        columns,
        lines: &x.lines[layout.line(0, 0, 0, 0)..],
        image_stride: 0,
        pixel_row_stride: (layout.n - columns) * layout.sample_stride * line,
        pixel_stride: layout.sample_stride * line,
        blocks: layout.blocks(),
        block_stride: layout.block_stride * line,
        window_rows: layout.h,
        window_row_stride: layout.row_stride * line,
        window_columns: layout.w,
        overlap: true,
    }
}
