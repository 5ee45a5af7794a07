//! Convolution on a GPU: cuDNN on padded channels, and separate kernels for masks and bias gradients.

use super::{Conv2d, ConvShape};
use crate::cuda::{ConvolutionKey, ConvolutionOperands, ConvolutionPass, Cuda, Element};
use crate::ops::linear;
use crate::{Grad, GradMode, Result, StepState, Tensor, Weight};

const OP: &str = "conv2d";

/// `y [n, oh, ow, k]`. fc8 of a fully convolutional network, 1x1 without ReLU, is a matrix product with f32
/// results.
pub(super) fn forward(
    s: ConvShape,
    x: &Tensor,
    weight: &Weight,
    bias: &Weight,
    config: Conv2d,
) -> Result<Tensor> {
    let device = x.device();
    let cuda = device.cuda_context();
    if s.r == 1 && s.pad == 0 && !config.relu {
        return linear::scores_on_gpu(x, weight, bias, s.output());
    }
    let y = cuda.alloc(s.output(), cuda.activation(s.k))?;
    let input = cuda.activation_of(OP, "x", x)?;
    let (filters, bias) = (cuda.weight_of(OP, "weight", weight)?, cuda.weight_of(OP, "bias", bias)?);
    if is_conv1_1(cuda, &s, config) {
        // Enough blocks to fill the largest GPU.
        let blocks = (s.n * s.h.div_ceil(8) * s.w.div_ceil(32)).min(1024);
        let pointers = [input.pointer, filters.pointer, bias.pointer, y.pointer()];
        let arguments = [&pointers[..], &[s.n as u64, s.h as u64, s.w as u64]].concat();
        // SAFETY: input, filters, bias and `y` are padded activations and weights of the sizes that this
        // kernel requires.
        unsafe { cuda.launch_blocks("conv1_1", [blocks, 1], &arguments) }?;
        return Ok(Tensor::from_buffer(s.output(), y, device));
    }
    let pass = ConvolutionPass::Forward { relu: config.relu };
    let operands =
        ConvolutionOperands { x: input.pointer, w: filters.pointer, y: y.pointer(), bias: bias.pointer };
    // SAFETY: the operands are activations and padded weights of the sizes in the key.
    unsafe { cuda.convolution(key(cuda, &s, pass), operands) }?;
    Ok(Tensor::from_buffer(s.output(), y, device))
}

/// Grad-input in the shape of the saved input `saved_x [n, h, w, c]`, masked by its ReLU and multiplied by
/// `scale`, the 1 / (1 - p) of its dropout.
pub(super) fn grad_input(
    s: ConvShape,
    dz: &Tensor,
    weight: &Weight,
    saved_x: &Tensor,
    scale: f32,
) -> Result<Grad> {
    let device = dz.device();
    let cuda = device.cuda_context();
    let dx = cuda.alloc(s.input(), cuda.activation(s.c))?;
    let gradient = cuda.activation_of(OP, "dz", dz)?;
    let filters = cuda.weight_of(OP, "weight", weight)?;
    let saved = cuda.activation_of(OP, "the saved input", saved_x)?;
    let operands = ConvolutionOperands { x: dx.pointer(), w: filters.pointer, y: gradient.pointer, bias: 0 };
    // SAFETY: as above, with `dx` in the place of the input.
    unsafe { cuda.convolution(key(cuda, &s, ConvolutionPass::GradInput), operands) }?;
    // SAFETY: `dx` and the saved input are activations of this shape.
    unsafe { cuda.gradient(s.input(), dx, Some((saved.pointer, scale)), device) }
}

/// Grad-weight: computed in the precision of activations, then written or added in f32.
pub(super) fn grad_weight(
    s: ConvShape,
    x: &Tensor,
    dz: &Tensor,
    dw: &mut Tensor,
    mode: GradMode,
    state: &StepState,
) -> Result<()> {
    let cuda = x.device().cuda_context();
    let (input, gradient) = (cuda.activation_of(OP, "x", x)?, cuda.activation_of(OP, "dz", dz)?);
    let layout = cuda.weight_layout(dw.shape());
    let padded = cuda.alloc(layout.padded, layout.format)?;
    let operands =
        ConvolutionOperands { x: input.pointer, w: padded.pointer(), y: gradient.pointer, bias: 0 };
    // SAFETY: as above; the gradient of the filters is laid out as padded weights are.
    unsafe { cuda.convolution(key(cuda, &s, ConvolutionPass::GradWeight), operands) }?;
    let (shape, to) = (dw.shape(), dw.cuda_memory_mut(OP, "dw")?);
    let add = mode == GradMode::Accumulate;
    // SAFETY: `padded` is the padded form of `dw`; `to` is the unpadded f32 memory of `dw`.
    unsafe { cuda.unpad(padded.pointer(), layout.format, shape, to, add, state.pointer(OP, cuda)?) }
}

/// Whether this is conv1_1 of a full-width network, which has a kernel of its own.
fn is_conv1_1(cuda: &Cuda, s: &ConvShape, config: Conv2d) -> bool {
    let &ConvShape { c, k, r, pad, .. } = s;
    cuda.element() == Element::Bf16 && c <= 8 && k == 64 && (r, pad) == (3, 1) && config.relu
}

fn key(cuda: &Cuda, s: &ConvShape, pass: ConvolutionPass) -> ConvolutionKey {
    let padded = |channels: usize| cuda.activation(channels).pitch(channels);
    let &ConvShape { n, h, w, c, k, r, pad, .. } = s;
    ConvolutionKey { pass, n, h, w, c: padded(c), k: padded(k), r, pad }
}
