//! Dropout on a GPU.

use super::DropoutKey;
use crate::cuda::{bits, rows};
use crate::{Result, StepState, Tensor};

const OP: &str = "dropout";

pub(super) fn forward(x: &Tensor, rate: f32, key: DropoutKey, state: Option<&StepState>) -> Result<Tensor> {
    let device = x.device();
    let cuda = device.cuda_context();
    let (shape, c) = (x.shape(), x.shape().last());
    let input = cuda.activation_of(OP, "x", x)?;
    let y = cuda.alloc(shape, cuda.activation(c))?;
    let n = shape.first();
    let pixels = rows(shape) / n.max(1);
    let threshold = (f64::from(rate) * 4_294_967_296.0) as u64;
    // Address of the step state from which the kernel reads the step number, or 0.
    let state = state.map_or(Ok(0), |state| state.pointer(OP, cuda))?;
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
        state,
        u64::from(key.layer),
        key.first_sample as u64,
    ];
    // SAFETY: input and `y` are activations of one shape; the state is of this device, or 0.
    unsafe { cuda.launch(OP, rows(shape) * input.pitch / 8, &arguments) }?;
    Ok(Tensor::from_buffer(shape, y, device))
}
