//! Max-pooling over 2x2 windows at stride 2, and its gradient.

pub(super) mod cpu;
mod cuda;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tensor::Storage;
use crate::{Error, Grad, Result, Shape, Tensor};

/// How a side that two does not divide is pooled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolRounding {
    /// The last row or column is dropped, as PyTorch does by default.
    Floor,
    /// The last row or column makes a window of its own, as Caffe does.
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

/// Which element of its window every pooled value came from: one byte each, row-major in the window.
#[derive(Debug, Clone)]
pub struct PoolIndex {
    storage: Arc<Storage>,
    input: Shape,
    output: Shape,
}

/// Largest value of each 2x2 window: `[N, H, W, C]` to `[N, H/2, W/2, C]`, and where it was.
///
/// Of equal values the first counts.
///
/// # Errors
/// [`Error::Rank`] unless `x` has four axes; [`Error::Unsupported`] if nothing would be left.
pub fn forward(x: &Tensor, rounding: PoolRounding) -> Result<(Tensor, PoolIndex)> {
    let (input, output) = shapes(x, rounding)?;
    match x.storage() {
        Storage::Cpu(_) => {
            let cpu = x.device().cpu_context();
            let mut index = cpu.memory.take(output.len());
            let y = Tensor::build(output, x.device(), |y| {
                cpu::forward(cpu, input, output, x.cpu(), y, Some(index.as_u8_mut(output.len())));
            });
            let storage = Arc::new(Storage::from(index));
            Ok((y, PoolIndex { storage, input, output }))
        }
        Storage::Cuda(_) => match cuda::forward(x, output, true)? {
            (y, Some(index)) => Ok((y, PoolIndex::on_gpu(index, input, output))),
            (_, None) => unreachable!("the index was asked for"),
        },
    }
}

/// As [`forward`], without remembering where the values were.
///
/// # Errors
/// As [`forward`].
pub fn infer(x: &Tensor, rounding: PoolRounding) -> Result<Tensor> {
    let (input, output) = shapes(x, rounding)?;
    match x.storage() {
        Storage::Cpu(_) => Ok(Tensor::build(output, x.device(), |y| {
            cpu::forward(x.device().cpu_context(), input, output, x.cpu(), y, None);
        })),
        Storage::Cuda(_) => Ok(cuda::forward(x, output, false)?.0),
    }
}

/// Gradient by the input: each value of `grad.grad` goes to where the window's largest value was.
///
/// The gate of the activation below has been applied to the pooled gradient already (a pooled value is positive
/// exactly if the value it came from is), and scattering keeps the sums per channel.
///
/// # Errors
/// [`Error::Shape`] if `grad.grad` is not of the pooled shape.
pub fn backward(grad: &Grad, index: &PoolIndex) -> Result<Grad> {
    grad.grad.expect_shape("max_pool2d backward", "dz", index.output)?;
    match grad.grad.storage() {
        Storage::Cpu(_) => {
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
            });
            Ok(Grad { grad: dz, bias_grad: grad.bias_grad.clone() })
        }
        Storage::Cuda(_) => cuda::backward(grad, index),
    }
}

fn shapes(x: &Tensor, rounding: PoolRounding) -> Result<(Shape, Shape)> {
    let [n, h, w, c] = x.axes("max_pool2d", "x", "[N, H, W, C]")?;
    let output = Shape::from([n, rounding.pooled(h), rounding.pooled(w), c]);
    if output.is_empty() {
        let reason = format!("nothing is left of x {} after 2x2 pooling", x.shape());
        return Err(Error::Unsupported { op: "max_pool2d", reason });
    }
    Ok((x.shape(), output))
}
