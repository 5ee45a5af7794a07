//! A fully connected layer with bias and ReLU fused, and its gradients.

mod cpu;
mod cuda;

use crate::tensor::Storage;
use crate::{Error, Grad, GradMode, ReluDropoutMask, Result, Shape, StepState, Tensor, Weight};

/// What a fully connected layer does besides its matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    /// Whether to clamp the result at zero.
    pub relu: bool,
}

/// `y = relu(x weight^T + bias)`.
///
/// `x` has any number of axes and is taken as `[N, in]`, so `[N, H, W, C]` needs no flattening; `weight [out, in]`,
/// `bias [out]`. Returns `[N, out]`.
///
/// # Errors
/// [`Error::Shape`] and [`Error::Rank`] if operands do not fit each other.
pub fn forward(x: &Tensor, weight: &Weight, bias: &Weight, config: Linear) -> Result<Tensor> {
    let s = LinearShape::of(x.shape(), weight.shape())?;
    bias.value().expect_shape("linear", "bias", [s.outputs])?;
    x.expect_same_device("linear", &[("weight", weight.value()), ("bias", bias.value())])?;
    match x.storage() {
        Storage::Cpu(_) => Ok(Tensor::build(Shape::from([s.n, s.outputs]), x.device(), |y| {
            let cpu = x.device().cpu_context();
            cpu::forward(cpu, s, x.cpu(), weight.value().cpu(), bias.value().cpu(), config.relu, y);
        })),
        Storage::Cuda(_) => cuda::forward(s, x, weight, bias, config),
    }
}

/// Gradient by the input, before the activation of the layer below.
///
/// `dz [N, out]` is the gradient of the output before its own ReLU; `gate.y` is the input, in the shape that it
/// had. Returns the gradient in that shape, and its sum over all but the last axis.
///
/// # Errors
/// As [`forward`].
pub fn grad_input(dz: &Tensor, weight: &Weight, gate: ReluDropoutMask) -> Result<Grad> {
    let x = gate.y.shape();
    let s = LinearShape::of(x, weight.shape())?;
    dz.expect_shape("linear backward by data", "dz", [s.n, s.outputs])?;
    dz.expect_same_device("linear", &[("weight", weight.value()), ("the saved input", gate.y)])?;
    match dz.storage() {
        Storage::Cpu(_) => {
            let cpu = dz.device().cpu_context();
            let mut bias_grad = Tensor::zeros([x.last()], dz.device())?;
            let sums = bias_grad.cpu_mut("linear", "bias gradient")?;
            let dz = Tensor::build(x, dz.device(), |dx| {
                cpu::grad_input(cpu, s, dz.cpu(), weight.value().cpu(), gate, dx, sums);
            });
            Ok(Grad { grad: dz, bias_grad })
        }
        Storage::Cuda(_) => cuda::grad_input(s, dz, weight, gate.y, gate.scale),
    }
}

/// Gradient by the matrix, written into `dw [out, in]` or added to it.
///
/// `x` is the input, `dz [N, out]` the gradient of the output before the ReLU. A value that is not finite clears
/// the flag of `state`.
///
/// # Errors
/// As [`forward`]; [`Error::Shared`] if another handle holds `dw`.
pub fn grad_weight(
    x: &Tensor,
    dz: &Tensor,
    dw: &mut Tensor,
    mode: GradMode,
    state: &StepState,
) -> Result<()> {
    let s = LinearShape::of(x.shape(), dw.shape())?;
    dz.expect_shape("linear backward by weight", "dz", [s.n, s.outputs])?;
    x.expect_same_device("linear", &[("dz", dz), ("dw", dw)])?;
    match x.storage() {
        Storage::Cpu(_) => {
            state.expect_cpu("linear")?;
            let cpu = x.device().cpu_context();
            cpu::grad_weight(cpu, s, x.cpu(), dz.cpu(), dw.cpu_mut("linear", "dw")?, mode, state);
            Ok(())
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
            let reason = format!("an empty operand: x {x}, weight {weight}");
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
