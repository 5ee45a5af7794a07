//! A fully connected layer with bias and ReLU fused, and its gradients.

mod bf16;
mod cpu;
mod cuda;

use crate::alloc::or_out_of_memory;
use crate::tensor::Storage;
use crate::{Error, Grad, GradMode, ReluDropoutMask, Result, Shape, StepState, Tensor, Weight};

/// Settings of a fully connected layer other than its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    /// Whether to apply a ReLU.
    pub relu: bool,
}

/// `y = relu(x weight^T + bias)`.
///
/// `x` may have any number of axes and is read as `[N, in]`, so `[N, H, W, C]` needs no flattening;
/// `weight [out, in]`, `bias [out]`. Returns `[N, out]`.
///
/// # Errors
/// [`Error::Shape`], [`Error::Rank`] or [`Error::Device`] if the operands do not match;
/// [`Error::Unsupported`] if an operand is empty; [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
pub fn forward(x: &Tensor, weight: &Weight, bias: &Weight, config: Linear) -> Result<Tensor> {
    let s = LinearShape::of(x.shape(), weight.shape())?;
    bias.value().expect_shape("linear", "bias", [s.outputs])?;
    x.expect_same_device("linear", &[("weight", weight.value()), ("bias", bias.value())])?;
    weight.value().expect_plain("linear", "weight")?;
    bias.value().expect_plain("linear", "bias")?;
    match x.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) if x.device().has_bf16_cpu() => {
            bf16::forward(s, x, weight, bias, config)
        }
        Storage::Cpu(_) | Storage::Blocked(_) => {
            Tensor::build(Shape::from([s.n, s.outputs]), x.device(), |y| {
                let cpu = x.device().cpu_context();
                cpu::forward(cpu, s, x.cpu(), weight.value().cpu(), bias.value().cpu(), config.relu, y);
            })
        }
        Storage::Cuda(_) => cuda::forward(s, x, weight, bias, config),
    }
}

/// Grad-input: the gradient with respect to the input, before the activation of the layer below.
///
/// `dz [N, out]` is the gradient of the output before its own ReLU; `mask.y` is the input, in its original
/// shape. Returns the gradient in that shape, and its sum over all axes but the last.
///
/// # Errors
/// As [`forward`].
pub fn grad_input(dz: &Tensor, weight: &Weight, mask: ReluDropoutMask) -> Result<Grad> {
    let x = mask.y.shape();
    let s = LinearShape::of(x, weight.shape())?;
    dz.expect_shape("linear grad_input", "dz", [s.n, s.outputs])?;
    dz.expect_same_device("linear", &[("weight", weight.value()), ("the saved input", mask.y)])?;
    weight.value().expect_plain("linear", "weight")?;
    match dz.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) => {
            // With bf16 activations too, this reads the f32 weights, once: to pack them would take longer.
            let (dz, y) = (&dz.to_plain()?, &mask.y.to_plain()?);
            let cpu = dz.device().cpu_context();
            let mut bias_grad = Tensor::zeros([x.last()], dz.device())?;
            let sums = bias_grad.cpu_mut("linear", "bias gradient")?;
            let grad = Tensor::build(x, dz.device(), |dx| {
                let mask = ReluDropoutMask { y, ..mask };
                cpu::grad_input(cpu, s, dz.cpu(), weight.value().cpu(), mask, dx, sums);
            })?;
            Grad { grad, bias_grad }.into_activation()
        }
        Storage::Cuda(_) => cuda::grad_input(s, dz, weight, mask.y, mask.scale),
    }
}

/// Grad-weight: the gradient with respect to the weights, written to `dw [out, in]` or added to it.
///
/// `x` is the input, `dz [N, out]` the gradient of the output before the ReLU. A gradient that is not finite
/// clears the flag of `state`.
///
/// # Errors
/// As [`forward`]; [`Error::Shared`] if `dw` has another handle; [`Error::Device`] if `state` is another
/// device's.
pub fn grad_weight(
    x: &Tensor,
    dz: &Tensor,
    dw: &mut Tensor,
    mode: GradMode,
    state: &StepState,
) -> Result<()> {
    let s = LinearShape::of(x.shape(), dw.shape())?;
    dz.expect_shape("linear grad_weight", "dz", [s.n, s.outputs])?;
    x.expect_same_device("linear", &[("dz", dz), ("dw", dw)])?;
    match x.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) => {
            state.expect_cpu("linear")?;
            let (x, dz) = (&x.to_plain()?, &dz.to_plain()?);
            let cpu = x.device().cpu_context();
            let dw = dw.cpu_mut("linear", "dw")?;
            or_out_of_memory(|| cpu::grad_weight(cpu, s, x.cpu(), dz.cpu(), dw, mode, state))
        }
        Storage::Cuda(_) => cuda::grad_weight(s, x, dz, dw, mode, state),
    }
}

/// Scores of every row of `x [.., C]` on a GPU, in `shape`: a 1x1 convolution without ReLU.
pub(super) fn scores_on_gpu(x: &Tensor, weight: &Weight, bias: &Weight, shape: Shape) -> Result<Tensor> {
    cuda::scores_of_rows(x, weight, bias, shape)
}

#[derive(Debug, Clone, Copy)]
struct LinearShape {
    n: usize,
    inputs: usize,
    outputs: usize,
}

impl LinearShape {
    fn of(x: Shape, weight: Shape) -> Result<LinearShape> {
        let op = "linear";
        let &[outputs, inputs] = weight.dims() else {
            return Err(Error::Rank { op, operand: "weight", expected: "[out, in]", got: weight });
        };
        if x.is_empty() || weight.is_empty() {
            let reason = format!("x {x} or weight {weight} is empty");
            return Err(Error::Unsupported { op, reason });
        }
        if x.numel_per_sample() != inputs {
            return Err(Error::Shape {
                op,
                operand: "x",
                expected: Shape::from([x.first(), inputs]),
                got: x,
            });
        }
        Ok(LinearShape { n: x.first(), inputs, outputs })
    }
}
