//! Local response normalisation on a GPU.

use super::Lrn;
use crate::cuda::{Element, Format, bits, rows};
use crate::{Error, Grad, ReluDropoutMask, Result, Tensor};

const OP: &str = "lrn";

/// `y`, and the bases in f32, padded like `y`.
pub(super) fn forward(x: &Tensor, config: Lrn) -> Result<(Tensor, Tensor)> {
    let device = x.device();
    let cuda = device.cuda_context();
    let (shape, c) = (x.shape(), x.shape().last());
    let input = cuda.activation_of(OP, "x", x)?;
    let format = cuda.activation(c);
    let (y, base) =
        (cuda.alloc(shape, format)?, cuda.alloc(shape, Format { element: Element::F32, ..format })?);
    let (rows, pitch) = (rows(shape), input.pitch);
    let arguments = [
        input.pointer,
        y.pointer(),
        base.pointer(),
        rows as u64,
        c as u64,
        pitch as u64,
        (config.size / 2) as u64,
        bits(config.weight()),
        bits(config.beta),
        bits(config.k),
    ];
    // SAFETY: input, `y` and bases have rows of `pitch` elements, the bases in float.
    unsafe { cuda.launch("lrn_forward", rows * pitch, &arguments) }?;
    Ok((Tensor::from_buffer(shape, y, device), Tensor::from_buffer(shape, base, device)))
}

pub(super) fn backward(dy: &Tensor, mask: ReluDropoutMask, base: &Tensor, config: Lrn) -> Result<Grad> {
    let device = dy.device();
    let cuda = device.cuda_context();
    let (shape, c) = (dy.shape(), dy.shape().last());
    let gradient = cuda.activation_of(OP, "dy", dy)?;
    let x = cuda.activation_of(OP, "x", mask.y)?;
    let (bases, format) = base.cuda_memory(OP, "base")?;
    if format.element != Element::F32 || format.pitch(c) != x.pitch {
        return Err(Error::Unsupported { op: OP, reason: "base is not a result of the forward pass".into() });
    }
    let dx = cuda.alloc(shape, cuda.activation(c))?;
    let (rows, pitch) = (rows(shape), x.pitch);
    let arguments = [
        gradient.pointer,
        x.pointer,
        bases,
        dx.pointer(),
        rows as u64,
        c as u64,
        pitch as u64,
        (config.size / 2) as u64,
        bits(config.weight()),
        bits(config.beta),
    ];
    // SAFETY: gradient, input and `dx` are activations of one shape; the pitch and the element of the bases
    // were checked.
    unsafe { cuda.launch("lrn_backward", rows * pitch, &arguments) }?;
    // SAFETY: `dx` and the input are activations of this shape.
    unsafe { cuda.gradient(shape, dx, Some((x.pointer, mask.scale)), device) }
}
