//! One step of stochastic gradient descent with momentum and weight decay.

mod cuda;

use serde::{Deserialize, Serialize};

use crate::tensor::Storage;
use crate::{Result, StepState, Tensor, Weight};

/// Where the learning rate enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MomentumVariant {
    /// `v = momentum v + lr (g + decay w); w = w - v`, as Krizhevsky et al. and Caffe: a cut of the rate does not
    /// touch the velocity that has been gathered.
    Caffe,
    /// `v = momentum v + (g + decay w); w = w - lr v`, as PyTorch: a cut of the rate acts on the velocity at once.
    Torch,
}

/// Parameters of a step for one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdConfig {
    /// Where the learning rate enters.
    pub momentum_variant: MomentumVariant,
    /// What is kept of the velocity.
    pub momentum: f32,
    /// L2 penalty, already multiplied for this parameter's kind.
    pub weight_decay: f32,
    /// Multiplies the learning rate of the step state.
    pub lr_mult: f32,
}

/// Updates `weight` and `velocity` from `grad`, all of one shape; does nothing if the step is not finite.
///
/// # Errors
/// [`crate::Error::Shape`] if shapes differ; [`crate::Error::Shared`] if weight or velocity are shared.
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
        Storage::Cpu(_) => {
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
    // Caffe's form scales the gradient, torch's the velocity.
    let (of_grad, of_velocity) = match config.momentum_variant {
        MomentumVariant::Caffe => (lr, 1.0),
        MomentumVariant::Torch => (1.0, lr),
    };
    for ((w, g), v) in w.iter_mut().zip(g).zip(v) {
        *v = momentum * *v + of_grad * (g + weight_decay * *w);
        *w -= of_velocity * *v;
    }
}
