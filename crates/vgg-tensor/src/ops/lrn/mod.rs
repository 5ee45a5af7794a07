//! Local response normalisation across channels, and its gradient.

mod cpu;
mod cuda;

use serde::{Deserialize, Serialize};

use crate::tensor::Storage;
use crate::{Error, Grad, ReluDropoutMask, Result, Tensor};

/// Whether `alpha` multiplies the sum over the window or its mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrnStyle {
    /// Krizhevsky et al. 2012: `(k + alpha * sum)^beta`.
    AlexNet,
    /// Caffe and PyTorch: `(k + alpha / size * sum)^beta`.
    Caffe,
}

/// Parameters of `y = x / (k + a * sum of x^2 over a window of channels)^beta`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lrn {
    /// Channels in the window, an odd number; the window is cut off at the first and last channel.
    pub size: usize,
    /// Factor of the squares.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
    /// Constant added to the squares.
    pub k: f32,
    /// Meaning of `alpha`.
    pub style: LrnStyle,
}

impl Lrn {
    /// The parameters of Krizhevsky et al. 2012, which VGG adopts: size 5, alpha 1e-4, beta 0.75, k 2.
    pub fn alexnet(style: LrnStyle) -> Lrn {
        Lrn { size: 5, alpha: 1e-4, beta: 0.75, k: 2.0, style }
    }

    fn weight(&self) -> f32 {
        match self.style {
            LrnStyle::AlexNet => self.alpha,
            LrnStyle::Caffe => self.alpha / self.size as f32,
        }
    }
}

/// Normalises over the last axis. Returns `y` and the bases of the powers, which [`backward`] needs; both
/// have the shape of `x`.
///
/// # Errors
/// [`Error::Unsupported`] if the window size is not odd; [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
pub fn forward(x: &Tensor, config: Lrn) -> Result<(Tensor, Tensor)> {
    check(config)?;
    match x.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) => {
            let x = &x.to_plain()?;
            let cpu = x.device().cpu_context();
            let base = Tensor::build(x.shape(), x.device(), |b| {
                cpu::bases(cpu, x.shape().last(), config, x.cpu(), b)
            })?;
            let y = Tensor::build(x.shape(), x.device(), |y| {
                cpu::normalise(cpu, config, x.cpu(), base.cpu(), y)
            })?;
            Ok((y.into_activation()?, base))
        }
        Storage::Cuda(_) => cuda::forward(x, config),
    }
}

/// Grad-input, before the activation of the layer below.
///
/// `dy` is the gradient of the output; `mask.y` is the input `x`; `base` is the second result of [`forward`].
/// Where `x` is not positive, `dy` may already be zero: after a ReLU `x` is zero there, so `dy` does not
/// contribute to the gradient of other channels.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Device`] if the operands do not match; [`Error::Unsupported`] if the window
/// size is not odd or `base` has another format; [`Error::OutOfMemory`] and [`Error::Cuda`] on a GPU.
pub fn backward(dy: &Tensor, mask: ReluDropoutMask, base: &Tensor, config: Lrn) -> Result<Grad> {
    check(config)?;
    dy.expect_shape("lrn backward", "dy", mask.y.shape())?;
    base.expect_shape("lrn backward", "base", mask.y.shape())?;
    dy.expect_same_device("lrn", &[("x", mask.y), ("base", base)])?;
    match dy.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) => {
            let (dy, x) = (&dy.to_plain()?, &mask.y.to_plain()?);
            let cpu = dy.device().cpu_context();
            let mut bias_grad = Tensor::zeros([mask.y.shape().last()], dy.device())?;
            let sums = bias_grad.cpu_mut("lrn", "bias gradient")?;
            let dz = Tensor::build(dy.shape(), dy.device(), |dx| {
                cpu::backward(cpu, config, [dy.cpu(), x.cpu(), base.cpu()], mask.scale, dx, sums);
            })?;
            Grad { grad: dz, bias_grad }.into_activation()
        }
        Storage::Cuda(_) => cuda::backward(dy, mask, base, config),
    }
}

fn check(config: Lrn) -> Result<()> {
    if config.size % 2 == 1 {
        return Ok(());
    }
    let reason = format!("a window of {} channels must be odd", config.size);
    Err(Error::Unsupported { op: "lrn", reason })
}
