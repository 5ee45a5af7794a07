//! Convolution of images with filters, stride 1, with bias and ReLU fused, and its gradients.

mod cpu;
mod cuda;
mod shape;

use shape::ConvShape;

use crate::ops::max_pool2d::{self, PoolRounding};
use crate::tensor::Storage;
use crate::{Error, Grad, GradMode, ReluDropoutMask, Result, Shape, StepState, Tensor, Weight};

const OP: &str = "conv2d";

/// What a convolution does besides its filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// Zero pixels around the image: 1 for a 3x3 filter that keeps the size, 0 for 1x1 and for a valid one.
    pub pad: usize,
    /// Whether to clamp the result at zero.
    pub relu: bool,
}

/// `y = relu(x * weight + bias)`: the cross-correlation that every deep-learning library calls convolution.
///
/// `x [N, H, W, C]`, `weight [K, R, S, C]`, `bias [K]`; returns `[N, H + 2 pad - R + 1, W + 2 pad - S + 1, K]`.
///
/// # Errors
/// [`Error::Shape`] and [`Error::Rank`] if operands do not fit each other; [`Error::Unsupported`] if the filter is
/// max_nan_first than the padded image, or sizes are beyond 1024 x 1024 pixels or 256 images.
pub fn forward(x: &Tensor, weight: &Weight, bias: &Weight, config: Conv2d) -> Result<Tensor> {
    let s = ConvShape::of(x.shape(), weight.shape(), config.pad)?;
    bias.value().expect_shape("conv2d", "bias", [s.k])?;
    run_forward(s, x, weight, bias, config, None)
}

/// As [`forward`] followed by 2x2 max-pooling; where the algorithm can, only the pooled map goes to memory.
///
/// Returns `[N, PH, PW, K]`, the bits of the two operations one after the other.
///
/// # Errors
/// As [`forward`]; [`Error::Unsupported`] if pooling leaves nothing.
pub fn forward_pooled(
    x: &Tensor,
    weight: &Weight,
    bias: &Weight,
    config: Conv2d,
    rounding: PoolRounding,
) -> Result<Tensor> {
    let s = ConvShape::of(x.shape(), weight.shape(), config.pad)?;
    bias.value().expect_shape("conv2d", "bias", [s.k])?;
    let pooled = (rounding.pooled(s.oh), rounding.pooled(s.ow));
    if pooled.0 * pooled.1 == 0 {
        let reason = format!("nothing is left of {} after 2x2 pooling", s.output());
        return Err(Error::Unsupported { op: "conv2d", reason });
    }
    match x.storage() {
        Storage::Cpu(_) => run_forward(s, x, weight, bias, config, Some(pooled)),
        Storage::Cuda(_) => max_pool2d::infer(&run_forward(s, x, weight, bias, config, None)?, rounding),
    }
}

fn run_forward(
    s: ConvShape,
    x: &Tensor,
    weight: &Weight,
    bias: &Weight,
    config: Conv2d,
    pooled: Option<(usize, usize)>,
) -> Result<Tensor> {
    x.expect_same_device(OP, &[("weight", weight.value()), ("bias", bias.value())])?;
    let device = x.device();
    let output = pooled.map_or(s.output(), |(h, w)| Shape::from([s.n, h, w, s.k]));
    match x.storage() {
        Storage::Cpu(_) => Ok(Tensor::build(output, device, |y| {
            let (x, bias, relu) = (x.cpu(), bias.value().cpu(), config.relu);
            let job = cpu::Forward { shape: s, x, weight, bias, relu, pooled };
            cpu::forward(device.cpu_context(), &job, y);
        })),
        Storage::Cuda(_) => cuda::forward(s, x, weight, bias, config),
    }
}

/// Gradient by the input, before the activation of the layer below.
///
/// `dz` is the gradient of this convolution's output before its own ReLU, `[N, OH, OW, K]`; `gate.y` is its input
/// `[N, H, W, C]`. Returns the gradient in the shape of the input.
///
/// # Errors
/// As [`forward`].
pub fn grad_input(dz: &Tensor, weight: &Weight, config: Conv2d, gate: ReluDropoutMask) -> Result<Grad> {
    let s = gradient_shape(dz, weight, config, gate.y)?;
    match dz.storage() {
        Storage::Cpu(_) => Ok(run_backward_data(s, dz, weight, gate.scale, |run| {
            Tensor::build(s.input(), dz.device(), |dx| run(Some(gate.y.cpu()), dx))
        })),
        Storage::Cuda(_) => cuda::grad_input(s, dz, weight, gate.y, gate.scale),
    }
}

/// As [`grad_input`] with an input that is not needed any more: where the algorithm can, the gradient takes its
/// memory.
///
/// # Errors
/// As [`forward`].
pub fn grad_input_in_place(
    dz: &Tensor,
    weight: &Weight,
    config: Conv2d,
    mut y: Tensor,
    scale: f32,
) -> Result<Grad> {
    let s = gradient_shape(dz, weight, config, &y)?;
    let in_place = match dz.storage() {
        Storage::Cpu(_) => cpu::gates_in_place(dz.device().cpu_context(), &s) && y.cpu_mut(OP, "y").is_ok(),
        Storage::Cuda(_) => false,
    };
    if !in_place {
        return grad_input(dz, weight, config, ReluDropoutMask { y: &y, scale });
    }
    Ok(run_backward_data(s, dz, weight, scale, |run| {
        match y.cpu_mut(OP, "y") {
            Ok(dx) => run(None, dx),
            Err(_) => unreachable!("it was writable above"),
        }
        y
    }))
}

fn gradient_shape(dz: &Tensor, weight: &Weight, config: Conv2d, y: &Tensor) -> Result<ConvShape> {
    let s = ConvShape::of(y.shape(), weight.shape(), config.pad)?;
    dz.expect_shape("conv2d backward by data", "dz", s.output())?;
    dz.expect_same_device(OP, &[("weight", weight.value()), ("the saved input", y)])?;
    Ok(s)
}

/// `build` calls its argument with the saved input, or without if it lies in the gradient's memory, and that memory.
fn run_backward_data(
    shape: ConvShape,
    dz: &Tensor,
    weight: &Weight,
    scale: f32,
    build: impl FnOnce(&mut dyn FnMut(Option<&[f32]>, &mut [f32])) -> Tensor,
) -> Grad {
    let mut bias_grad = dz.device().cpu_context().memory.take_f32(shape.c);
    bias_grad.as_f32_mut(shape.c).fill(0.0);
    let dx = build(&mut |y, dx| {
        let job = cpu::GradInput { shape, dz: dz.cpu(), weight, y, scale };
        cpu::grad_input(dz.device().cpu_context(), &job, dx, bias_grad.as_f32_mut(shape.c));
    });
    let bias_grad = Tensor::from_buffer(Shape::from([shape.c]), bias_grad, dz.device());
    Grad { grad: dx, bias_grad }
}

/// Gradient by the filters, written into `dw [K, R, S, C]` or added to it.
///
/// `x [N, H, W, C]` is the input, `dz [N, OH, OW, K]` the gradient of the output before the ReLU. A value that is
/// not finite clears the flag of `state`.
///
/// # Errors
/// As [`forward`]; [`Error::Shared`] if another handle holds `dw`.
pub fn grad_weight(
    x: &Tensor,
    dz: &Tensor,
    config: Conv2d,
    dw: &mut Tensor,
    mode: GradMode,
    state: &StepState,
) -> Result<()> {
    let s = ConvShape::of(x.shape(), dw.shape(), config.pad)?;
    dz.expect_shape("conv2d backward by filter", "dz", s.output())?;
    x.expect_same_device(OP, &[("dz", dz), ("dw", dw)])?;
    match x.storage() {
        Storage::Cpu(_) => {
            state.expect_cpu(OP)?;
            let job = cpu::GradWeight { shape: s, x: x.cpu(), dz: dz.cpu(), mode, state };
            cpu::grad_weight(x.device().cpu_context(), &job, dw.cpu_mut(OP, "dw")?);
            Ok(())
        }
        Storage::Cuda(_) => cuda::grad_weight(s, x, dz, dw, mode, state),
    }
}
