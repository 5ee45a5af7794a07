//! Dropout on a GPU.

use super::DropoutKey;
use crate::cuda::{bits, rows};
use crate::{Result, Tensor};

pub(super) fn forward(x: &Tensor, rate: f32, key: DropoutKey) -> Result<Tensor> {
    let device = x.device();
    let cuda = device.cuda_context();
    let (shape, c) = (x.shape(), x.shape().last());
    let input = cuda.activation_of("dropout", "x", x)?;
    let y = cuda.take(shape, cuda.activation(c))?;
    let n = shape.first();
    let pixels = rows(shape) / n.max(1);
    let threshold = (f64::from(rate) * 4_294_967_296.0) as u64;
    let arguments = [
        input.pointer,
        y.pointer(),
        n as u64,
        pixels as u64,
        c as u64,
        input.pitch as u64,
        threshold,
        bits(1.0 / (1.0 - rate)),
        key.seed,
        key.step,
        cuda.captured_step(),
        u64::from(key.layer),
        key.first_sample as u64,
    ];
    cuda.launch("dropout", rows(shape) * input.pitch / 8, &arguments)?;
    Ok(Tensor::from_buffer(shape, y, device))
}
