//! Max-pooling over 2x2 windows with stride 2, and its gradient.

mod bf16;
pub(super) mod cpu;
mod cuda;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tensor::Storage;
use crate::{Error, Grad, Result, Shape, Tensor};

/// How a side of odd length is pooled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolRounding {
    /// The last row or column is dropped, PyTorch's default.
    Floor,
    /// The last row or column is a window of its own, as in Caffe.
    Ceil,
}

impl PoolRounding {
    /// Length of a pooled side.
    pub fn pooled(self, side: usize) -> usize {
        match self {
            PoolRounding::Floor => side / 2,
            PoolRounding::Ceil => side.div_ceil(2),
        }
    }
}

/// Position of each maximum in its window: one byte per pooled value, row-major in the window.
#[derive(Debug, Clone)]
pub struct PoolIndex {
    storage: Arc<Storage>,
    /// Whether the bytes have the layout of bf16 activations of a CPU.
    blocked: bool,
    input: Shape,
    output: Shape,
}

/// Max-pooling from `[N, H, W, C]` to `[N, H/2, W/2, C]`, rounded by `rounding`, with the index of each
/// maximum.
///
/// The first of equal values is the maximum.
///
/// # Errors
/// [`Error::Rank`] unless `x` has four axes; [`Error::Unsupported`] if the output is empty;
/// [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
pub fn forward(x: &Tensor, rounding: PoolRounding) -> Result<(Tensor, PoolIndex)> {
    let (input, output) = shapes(x, rounding)?;
    match x.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) if x.device().has_bf16_cpu() => bf16::forward(x, output),
        Storage::Cpu(_) | Storage::Blocked(_) => {
            let cpu = x.device().cpu_context();
            let mut index = cpu.memory.try_alloc(output.len())?;
            let y = Tensor::build(output, x.device(), |y| {
                cpu::forward(cpu, input, output, x.cpu(), y, Some(index.as_u8_mut(output.len())));
            })?;
            let storage = Arc::new(Storage::from(index));
            Ok((y, PoolIndex { storage, blocked: false, input, output }))
        }
        Storage::Cuda(_) => match cuda::forward(x, output, true)? {
            (y, Some(index)) => Ok((y, PoolIndex::on_gpu(index, input, output))),
            (_, None) => unreachable!("the index was requested"),
        },
    }
}

/// Like [`forward`], without the index.
///
/// # Errors
/// As [`forward`].
pub fn infer(x: &Tensor, rounding: PoolRounding) -> Result<Tensor> {
    let (input, output) = shapes(x, rounding)?;
    match x.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) if x.device().has_bf16_cpu() => bf16::infer(x, output),
        Storage::Cpu(_) | Storage::Blocked(_) => Tensor::build(output, x.device(), |y| {
            cpu::forward(x.device().cpu_context(), input, output, x.cpu(), y, None);
        }),
        Storage::Cuda(_) => Ok(cuda::forward(x, output, false)?.0),
    }
}

/// Grad-input: each value of `grad.grad` is copied to the position of its maximum.
///
/// The mask of the activation below is already applied to `grad`: a pooled value is positive exactly if its
/// source is. The sums per channel do not change.
///
/// # Errors
/// [`Error::Shape`] if `grad.grad` does not have the pooled shape; [`Error::Device`] if `index` is on another
/// device; [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
pub fn backward(grad: &Grad, index: &PoolIndex) -> Result<Grad> {
    grad.grad.expect_shape("max_pool2d backward", "dz", index.output)?;
    if grad.grad.device().has_bf16_cpu() != index.blocked {
        return Err(Error::Device { op: "max_pool2d", operand: "index" });
    }
    match grad.grad.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) if grad.grad.device().has_bf16_cpu() => {
            bf16::backward(grad, index)
        }
        Storage::Cpu(_) | Storage::Blocked(_) => {
            let Storage::Cpu(bytes) = &*index.storage else {
                return Err(Error::Device { op: "max_pool2d", operand: "index" });
            };
            let dz = Tensor::build(index.input, grad.grad.device(), |dx| {
                let cpu = grad.grad.device().cpu_context();
                cpu::backward(
                    cpu,
                    index.input,
                    index.output,
                    grad.grad.cpu(),
                    bytes.as_u8(index.output.len()),
                    dx,
                );
            })?;
            Ok(Grad { grad: dz, bias_grad: grad.bias_grad.clone() })
        }
        Storage::Cuda(_) => cuda::backward(grad, index),
    }
}

fn shapes(x: &Tensor, rounding: PoolRounding) -> Result<(Shape, Shape)> {
    let [n, h, w, c] = x.axes("max_pool2d", "x", "[N, H, W, C]")?;
    let output = Shape::from([n, rounding.pooled(h), rounding.pooled(w), c]);
    if output.is_empty() {
        let reason = format!("x {} is too small for 2x2 pooling", x.shape());
        return Err(Error::Unsupported { op: "max_pool2d", reason });
    }
    Ok((x.shape(), output))
}
