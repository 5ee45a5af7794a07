//! Euclidean loss, for the bounding-box regression of a localisation network.

mod cuda;

use crate::ops::Loss;
use crate::tensor::Storage;
use crate::{Grad, Result, StepState, Tensor};

/// Loss `0.5 * sum of (x - target)^2` of every sample, and the gradient of `weight` times the sum of the
/// losses.
///
/// `x` and `target` have the same shape `[N, ..]`. A loss that is not finite clears the flag of `state`.
/// Source: Simonyan & Zisserman 2015, appendix A.1.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ; [`crate::Error::Device`] if `target` or `state` is on
/// another device; [`crate::Error::OutOfMemory`] and [`crate::Error::Cuda`] on a GPU.
pub fn euclidean_loss(x: &Tensor, target: &Tensor, weight: f32, state: &StepState) -> Result<Loss> {
    target.expect_shape("euclidean_loss", "target", x.shape())?;
    x.expect_same_device("euclidean_loss", &[("target", target)])?;
    match x.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) => {
            state.expect_cpu("euclidean_loss")?;
            let (x, target) = (&x.to_plain()?, &target.to_plain()?);
            let (n, per_sample) = (x.shape().first(), x.shape().numel_per_sample());
            let mut losses = Tensor::zeros([n], x.device())?;
            let mut bias_grad = Tensor::zeros([x.shape().last()], x.device())?;
            let sums = bias_grad.cpu_mut("euclidean_loss", "bias gradient")?;
            let dz = Tensor::build(x.shape(), x.device(), |dz| {
                for ((dz, x), t) in dz.iter_mut().zip(x.cpu()).zip(target.cpu()) {
                    *dz = weight * (x - t);
                }
                crate::cpu::add_rows(dz, sums);
            })?;
            let rows = x.cpu().chunks_exact(per_sample).zip(target.cpu().chunks_exact(per_sample));
            for ((x, t), loss) in rows.zip(losses.cpu_mut("euclidean_loss", "losses")?) {
                let sum: f64 = x.iter().zip(t).map(|(x, t)| (f64::from(*x) - f64::from(*t)).powi(2)).sum();
                *loss = (0.5 * sum) as f32;
            }
            state.flag().check(losses.cpu());
            Ok(Loss { per_sample: losses, grad: Grad { grad: dz, bias_grad } })
        }
        Storage::Cuda(_) => cuda::forward(x, target, weight, state),
    }
}
