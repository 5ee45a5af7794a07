//! SGD step on a GPU: one pass over weight, velocity, gradient and the packed copy of the weight.

use super::{MomentumVariant, SgdConfig};
use crate::cuda::bits;
use crate::{Result, StepState, Tensor, Weight};

const OP: &str = "sgd_step";

pub(super) fn step(
    weight: &mut Weight,
    grad: &Tensor,
    velocity: &mut Tensor,
    state: &StepState,
    config: &SgdConfig,
) -> Result<()> {
    let cuda = grad.device().cuda_context();
    let gradient = cuda.plain_of(OP, "grad", grad)?;
    let v = velocity.cuda_memory_mut(OP, "velocity")?;
    let c = grad.shape().last();
    let pitch = cuda.weight_layout(weight.shape()).format.pitch(c);
    let (w, copy) = weight.update_on_gpu(OP)?;
    let n = grad.shape().len();
    let arguments = [
        w,
        v,
        gradient.pointer,
        copy.unwrap_or(0),
        state.pointer(OP, cuda)?,
        n as u64,
        bits(config.momentum),
        bits(config.weight_decay),
        bits(config.lr_mult),
        u64::from(config.momentum_variant == MomentumVariant::Caffe),
        c as u64,
        pitch as u64,
    ];
    // SAFETY: weight, velocity and gradient have one shape, the copy is padded to `pitch`, and the state is
    // of this device.
    unsafe { cuda.launch(OP, n, &arguments) }
}
