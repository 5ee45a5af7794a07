//! 2D convolution with stride 1, bias and ReLU fused, and its gradients.

pub(super) mod bf16;
mod cpu;
mod cuda;
mod shape;

use shape::ConvShape;

use crate::alloc::or_out_of_memory;
use crate::ops::max_pool2d::{self, PoolRounding};
use crate::tensor::Storage;
use crate::{Error, Grad, GradMode, ReluDropoutMask, Result, Shape, StepState, Tensor, Weight};

const OP: &str = "conv2d";

/// Settings of a convolution other than its filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// Zero padding on each side: 1 for a 3x3 filter that keeps the size, 0 for 1x1 and unpadded filters.
    pub pad: usize,
    /// Whether to apply a ReLU.
    pub relu: bool,
}

/// `y = relu(x * weight + bias)`, where `*` is the cross-correlation that deep-learning libraries call
/// convolution.
///
/// `x [N, H, W, C]`, `weight [K, R, S, C]`, `bias [K]`; returns
/// `[N, H + 2 pad - R + 1, W + 2 pad - S + 1, K]`.
///
/// # Errors
/// [`Error::Shape`], [`Error::Rank`] or [`Error::Device`] if the operands do not match;
/// [`Error::Unsupported`] if an operand is empty, if the filter is not square, not larger than the padding or
/// larger than the padded image, and beyond 1024 x 1024 pixels per image or 256 images;
/// [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
pub fn forward(x: &Tensor, weight: &Weight, bias: &Weight, config: Conv2d) -> Result<Tensor> {
    let s = ConvShape::of(x.shape(), weight.shape(), config.pad)?;
    bias.value().expect_shape("conv2d", "bias", [s.k])?;
    run_forward(s, x, weight, bias, config, None)
}

/// [`forward`] followed by 2x2 max-pooling; if the algorithm supports it, only the pooled map is written to
/// memory.
///
/// Returns `[N, PH, PW, K]`, bitwise identical to the two operations one after the other.
///
/// # Errors
/// As [`forward`]; [`Error::Unsupported`] if the output is too small to pool.
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
        let reason = format!("output {} is too small for 2x2 pooling", s.output());
        return Err(Error::Unsupported { op: "conv2d", reason });
    }
    match x.storage() {
        // The tile unit pools after a ReLU only.
        Storage::Cpu(_) | Storage::Blocked(_) if config.relu || !x.device().has_bf16_cpu() => {
            run_forward(s, x, weight, bias, config, Some(pooled))
        }
        Storage::Cpu(_) | Storage::Blocked(_) | Storage::Cuda(_) => {
            max_pool2d::infer(&run_forward(s, x, weight, bias, config, None)?, rounding)
        }
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
    weight.value().expect_plain(OP, "weight")?;
    bias.value().expect_plain(OP, "bias")?;
    match x.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) if x.device().has_bf16_cpu() => {
            if bf16::supports(&s) {
                return bf16::forward(s, x, weight, bias, config, pooled);
            }
            let y = forward_in_f32(s, &x.to_plain()?, weight, bias, config, pooled)?;
            if config.relu { y.into_activation() } else { Ok(y) }
        }
        Storage::Cpu(_) | Storage::Blocked(_) => forward_in_f32(s, x, weight, bias, config, pooled),
        Storage::Cuda(_) => cuda::forward(s, x, weight, bias, config),
    }
}

fn forward_in_f32(
    s: ConvShape,
    x: &Tensor,
    weight: &Weight,
    bias: &Weight,
    config: Conv2d,
    pooled: Option<(usize, usize)>,
) -> Result<Tensor> {
    let output = pooled.map_or(s.output(), |(h, w)| Shape::from([s.n, h, w, s.k]));
    Tensor::build(output, x.device(), |y| {
        let (x_values, bias, relu) = (x.cpu(), bias.value().cpu(), config.relu);
        let job = cpu::Forward { shape: s, x: x_values, weight, bias, relu, pooled };
        cpu::forward(x.device().cpu_context(), &job, y);
    })
}

/// Grad-input: the gradient with respect to the input, before the activation of the layer below.
///
/// `dz [N, OH, OW, K]` is the gradient of this convolution's output before its own ReLU; `mask.y [N, H, W,
/// C]` is its input. Returns the gradient in the shape of the input.
///
/// # Errors
/// As [`forward`].
pub fn grad_input(dz: &Tensor, weight: &Weight, config: Conv2d, mask: ReluDropoutMask) -> Result<Grad> {
    let s = gradient_shape(dz, weight, config, mask.y)?;
    match dz.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) if dz.device().has_bf16_cpu() => {
            if bf16::supports_grad_input(&s) {
                return bf16::grad_input(s, dz, weight, mask.y, mask.scale);
            }
            let y = &mask.y.to_plain()?;
            let mask = ReluDropoutMask { y, ..mask };
            grad_input_in_f32(s, &dz.to_plain()?, weight, mask)?.into_activation()
        }
        Storage::Cpu(_) | Storage::Blocked(_) => grad_input_in_f32(s, dz, weight, mask),
        Storage::Cuda(_) => cuda::grad_input(s, dz, weight, mask.y, mask.scale),
    }
}

fn grad_input_in_f32(s: ConvShape, dz: &Tensor, weight: &Weight, mask: ReluDropoutMask) -> Result<Grad> {
    run_grad_input(s, dz, weight, mask.scale, |run| {
        Tensor::build(s.input(), dz.device(), |dx| run(Some(mask.y.cpu()), dx))
    })
}

/// Like [`grad_input`], for an input `y` that is no longer needed: if the algorithm supports it, the gradient
/// overwrites `y`.
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
        Storage::Cpu(_) if !dz.device().has_bf16_cpu() => {
            cpu::masks_in_place(dz.device().cpu_context(), &s) && y.cpu_mut(OP, "y").is_ok()
        }
        Storage::Cpu(_) | Storage::Blocked(_) | Storage::Cuda(_) => false,
    };
    if !in_place {
        return grad_input(dz, weight, config, ReluDropoutMask { y: &y, scale });
    }
    run_grad_input(s, dz, weight, scale, |run| {
        match y.cpu_mut(OP, "y") {
            Ok(dx) => or_out_of_memory(|| run(None, dx))?,
            Err(_) => unreachable!("`in_place` has checked that y is writable"),
        }
        Ok(y)
    })
}

fn gradient_shape(dz: &Tensor, weight: &Weight, config: Conv2d, y: &Tensor) -> Result<ConvShape> {
    let s = ConvShape::of(y.shape(), weight.shape(), config.pad)?;
    dz.expect_shape("conv2d grad_input", "dz", s.output())?;
    dz.expect_same_device(OP, &[("weight", weight.value()), ("the saved input", y)])?;
    weight.value().expect_plain(OP, "weight")?;
    Ok(s)
}

/// `build` passes its argument the saved input and the memory of the gradient, or `None` and that memory if
/// it holds the saved input.
fn run_grad_input(
    shape: ConvShape,
    dz: &Tensor,
    weight: &Weight,
    scale: f32,
    build: impl FnOnce(&mut dyn FnMut(Option<&[f32]>, &mut [f32])) -> Result<Tensor>,
) -> Result<Grad> {
    let mut bias_grad = dz.device().cpu_context().memory.try_alloc(4 * shape.c)?;
    bias_grad.as_f32_mut(shape.c).fill(0.0);
    let dx = build(&mut |saved_x, dx| {
        let job = cpu::GradInput { shape, dz: dz.cpu(), weight, saved_x, scale };
        cpu::grad_input(dz.device().cpu_context(), &job, dx, bias_grad.as_f32_mut(shape.c));
    })?;
    let bias_grad = Tensor::from_buffer(Shape::from([shape.c]), bias_grad, dz.device());
    Ok(Grad { grad: dx, bias_grad })
}

/// Grad-weight: the gradient with respect to the filters, written to `dw [K, R, S, C]` or added to it.
///
/// `x [N, H, W, C]` is the input, `dz [N, OH, OW, K]` the gradient of the output before the ReLU. A gradient
/// that is not finite clears the flag of `state`.
///
/// # Errors
/// As [`forward`]; [`Error::Shared`] if `dw` has another handle; [`Error::Device`] if `state` is another
/// device's.
pub fn grad_weight(
    x: &Tensor,
    dz: &Tensor,
    config: Conv2d,
    dw: &mut Tensor,
    mode: GradMode,
    state: &StepState,
) -> Result<()> {
    let s = ConvShape::of(x.shape(), dw.shape(), config.pad)?;
    dz.expect_shape("conv2d grad_weight", "dz", s.output())?;
    x.expect_same_device(OP, &[("dz", dz), ("dw", dw)])?;
    match x.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) => {
            state.expect_cpu(OP)?;
            if x.device().has_bf16_cpu() && bf16::supports_grad_weight(&s) {
                return bf16::grad_weight(s, x, dz, dw, mode, state);
            }
            let (x, dz) = (&x.to_plain()?, &dz.to_plain()?);
            let job = cpu::GradWeight { shape: s, x: x.cpu(), dz: dz.cpu(), mode, state };
            let dw = dw.cpu_mut(OP, "dw")?;
            or_out_of_memory(|| cpu::grad_weight(x.device().cpu_context(), &job, dw))
        }
        Storage::Cuda(_) => cuda::grad_weight(s, x, dz, dw, mode, state),
    }
}
