//! A step of stochastic gradient descent with momentum and weight decay.

mod cuda;

use serde::{Deserialize, Serialize};

use crate::tensor::Storage;
use crate::{Result, StepState, Tensor, Weight};

/// Where the learning rate enters the momentum update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MomentumVariant {
    /// Krizhevsky et al. and Caffe: `v = momentum v + lr (g + decay w); w = w - v`. A learning rate cut
    /// leaves the accumulated velocity unchanged.
    Caffe,
    /// PyTorch: `v = momentum v + (g + decay w); w = w - lr v`. A learning rate cut scales the accumulated
    /// velocity at once.
    Torch,
}

/// Hyperparameters of the step of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdConfig {
    /// Where the learning rate enters the momentum update.
    pub momentum_variant: MomentumVariant,
    /// Momentum: the factor of the previous velocity.
    pub momentum: f32,
    /// Weight decay (L2 penalty), with the factor of this parameter's kind applied.
    pub weight_decay: f32,
    /// Factor of the step state's learning rate.
    pub lr_mult: f32,
}

/// Updates `weight` and `velocity` from `grad`, which have the same shape. Does nothing if the flag of
/// `state` is clear.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ; [`crate::Error::Device`] if operands are on different
/// devices; [`crate::Error::Shared`] if `weight` or `velocity` has another handle; [`crate::Error::Cuda`] on
/// a GPU.
pub fn sgd_step(
    weight: &mut Weight,
    grad: &Tensor,
    velocity: &mut Tensor,
    state: &StepState,
    config: &SgdConfig,
) -> Result<()> {
    let op = "sgd_step";
    grad.expect_shape(op, "grad", weight.shape())?;
    velocity.expect_shape(op, "velocity", weight.shape())?;
    grad.expect_same_device(op, &[("weight", weight.value()), ("velocity", velocity)])?;
    match grad.storage() {
        Storage::Cpu(_) | Storage::Blocked(_) => {
            let grad = &grad.to_plain()?;
            state.expect_cpu(op)?;
            if !state.finite()? {
                return Ok(());
            }
            let v = crate::cpu::SharedMut::new(velocity.cpu_mut(op, "velocity")?);
            let (w, g) = (weight.update(op)?, grad.cpu());
            let cpu = grad.device().cpu_context();
            let chunk = 64 * 1024;
            cpu.for_each_chunk(w, chunk, |task, w| {
                // SAFETY: chunks of different tasks are disjoint.
                let v = unsafe { v.slice(task * chunk, w.len()) };
                update(w, &g[task * chunk..][..w.len()], v, state.lr() * config.lr_mult, config);
            });
            Ok(())
        }
        Storage::Cuda(_) => cuda::step(weight, grad, velocity, state, config),
    }
}

fn update(w: &mut [f32], g: &[f32], v: &mut [f32], lr: f32, config: &SgdConfig) {
    let SgdConfig { momentum, weight_decay, .. } = *config;
    // Caffe's variant scales the gradient by the learning rate, PyTorch's the velocity.
    let (of_grad, of_velocity) = match config.momentum_variant {
        MomentumVariant::Caffe => (lr, 1.0),
        MomentumVariant::Torch => (1.0, lr),
    };
    for ((w, g), v) in w.iter_mut().zip(g).zip(v) {
        *v = momentum * *v + of_grad * (g + weight_decay * *w);
        *w -= of_velocity * *v;
    }
}
