//! Max-pooling on a GPU.

use std::sync::Arc;

use super::PoolIndex;
use crate::cuda::CudaBuffer;
use crate::tensor::Storage;
use crate::{Error, Grad, Result, Shape, Tensor};

const OP: &str = "max_pool2d";

/// The pooled map, and the index of each maximum if `index` is set.
pub(super) fn forward(x: &Tensor, output: Shape, index: bool) -> Result<(Tensor, Option<CudaBuffer>)> {
    let device = x.device();
    let cuda = device.cuda_context();
    let format = cuda.activation(output.last());
    let pitch = format.pitch(output.last());
    let y = cuda.alloc(output, format)?;
    let index = match index {
        true => Some(cuda.alloc_bytes(output.len() / output.last() * pitch)?),
        false => None,
    };
    let input = cuda.activation_of(OP, "x", x)?;
    let bytes = index.as_ref().map_or(0, |index| index.pointer());
    let sizes = sizes(x.shape(), output, pitch);
    let arguments: Vec<u64> = [input.pointer, y.pointer(), bytes].into_iter().chain(sizes).collect();
    // SAFETY: input and `y` are activations of these sizes, and the index, if asked for, has a byte for each
    // element of `y`.
    unsafe { cuda.launch("max_pool2d_forward", output.len() / output.last() * pitch / 8, &arguments) }?;
    Ok((Tensor::from_buffer(output, y, device), index))
}

pub(super) fn backward(grad: &Grad, index: &PoolIndex) -> Result<Grad> {
    let device = grad.grad.device();
    let cuda = device.cuda_context();
    let Storage::Cuda(bytes) = &*index.storage else {
        return Err(Error::Device { op: OP, operand: "index" });
    };
    let format = cuda.activation(index.input.last());
    let pitch = format.pitch(index.input.last());
    let dx = cuda.alloc(index.input, format)?;
    let dz = cuda.activation_of(OP, "dz", &grad.grad)?;
    let sizes = sizes(index.input, index.output, pitch);
    let arguments: Vec<u64> = [dz.pointer, bytes.pointer(), dx.pointer()].into_iter().chain(sizes).collect();
    let [n, h, w, ..] = *index.input.dims() else { unreachable!("pooled maps have four axes") };
    // SAFETY: the gradient and the index are of the pooled map, and `dx` is an activation of its input's
    // size.
    unsafe { cuda.launch("max_pool2d_backward", n * h.div_ceil(2) * w.div_ceil(2) * pitch / 8, &arguments) }?;
    Ok(Grad { grad: Tensor::from_buffer(index.input, dx, device), bias_grad: grad.bias_grad.clone() })
}

/// `n, h, w, pitch, oh, ow` as arguments.
fn sizes(input: Shape, output: Shape, pitch: usize) -> [u64; 6] {
    let (i, o) = (input.dims(), output.dims());
    [i[0], i[1], i[2], pitch, o[1], o[2]].map(|size| size as u64)
}

impl PoolIndex {
    pub(super) fn on_gpu(index: CudaBuffer, input: Shape, output: Shape) -> PoolIndex {
        PoolIndex { storage: Arc::new(Storage::from(index)), blocked: false, input, output }
    }
}
