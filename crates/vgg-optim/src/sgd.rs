//! SGD with momentum and weight decay for the parameters of a network.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
pub use vgg_tensor::ops::MomentumVariant;
use vgg_tensor::ops::{self, SgdConfig};
use vgg_tensor::{Parameter, ParameterKind, StepState, Tensor};

use crate::{Error, Result};

/// Settings of the optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SgdOptions {
    /// Momentum formula: Caffe's or PyTorch's.
    pub momentum_variant: MomentumVariant,
    /// Momentum, in [0, 1). Paper: 0.9.
    pub momentum: f32,
    /// Weight decay (L2 penalty multiplier). Paper: 5e-4.
    pub weight_decay: f32,
    /// Whether weight decay applies to biases. The paper does not say; in Caffe models it usually does not.
    pub decay_biases: bool,
    /// Factor of the learning rate for biases, Caffe's `lr_mult`.
    pub bias_lr_mult: f32,
}

impl SgdOptions {
    /// The paper's settings, with Caffe's momentum formula. Biases do not decay and use the learning rate of
    /// weights.
    pub const PAPER: SgdOptions = SgdOptions {
        momentum_variant: MomentumVariant::Caffe,
        momentum: 0.9,
        weight_decay: 5e-4,
        decay_biases: false,
        bias_lr_mult: 1.0,
    };
}

/// SGD with momentum: its settings, and a velocity for every trainable parameter.
#[derive(Debug)]
pub struct Sgd {
    options: SgdOptions,
    velocities: BTreeMap<String, Tensor>,
}

impl Sgd {
    /// Creates an optimiser whose velocities are zero.
    ///
    /// # Errors
    /// [`Error::Config`] if a setting is out of range.
    pub fn new(options: SgdOptions) -> Result<Sgd> {
        let SgdOptions { momentum, weight_decay, bias_lr_mult, .. } = options;
        let sound = |v: f32| v >= 0.0 && v.is_finite();
        if !(0.0..1.0).contains(&momentum) {
            return Err(Error::Config(format!("momentum {momentum} must be at least 0 and below 1")));
        }
        for (name, value) in [("weight_decay", weight_decay), ("bias_lr_mult", bias_lr_mult)] {
            if !sound(value) {
                return Err(Error::Config(format!("{name} {value} must be finite and not negative")));
            }
        }
        Ok(Sgd { options, velocities: BTreeMap::new() })
    }

    /// The settings.
    pub fn options(&self) -> &SgdOptions {
        &self.options
    }

    /// Updates every trainable parameter that has a gradient. Changes nothing if the finite flag of `state`
    /// is cleared.
    ///
    /// # Errors
    /// [`Error::Tensor`] if an operation fails.
    pub fn step<'a>(
        &mut self,
        parameters: impl Iterator<Item = &'a mut Parameter>,
        state: &StepState,
    ) -> Result<()> {
        for parameter in parameters.filter(|p| p.trainable) {
            let config = self.config(parameter.kind);
            // Clones the handle, so that weight and gradient can be borrowed separately.
            let Some(grad) = parameter.grad().cloned() else { continue };
            let velocity = match self.velocities.get_mut(&parameter.name) {
                Some(velocity) => velocity,
                None => {
                    let zero = Tensor::zeros(grad.shape(), grad.device())?;
                    self.velocities.entry(parameter.name.clone()).or_insert(zero)
                }
            };
            ops::sgd_step(&mut parameter.weight, &grad, velocity, state, &config)?;
        }
        Ok(())
    }

    /// Velocities by parameter name, for a checkpoint.
    pub fn velocities(&self) -> &BTreeMap<String, Tensor> {
        &self.velocities
    }

    /// Restores velocities from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Velocity`] if no parameter has the name of a velocity, or the shapes differ.
    pub fn restore(&mut self, velocities: BTreeMap<String, Tensor>, parameters: &[&Parameter]) -> Result<()> {
        for (name, velocity) in &velocities {
            let wrong = |reason: &str| Error::Velocity { name: name.clone(), reason: reason.into() };
            let parameter =
                parameters.iter().find(|p| p.name == *name).ok_or_else(|| wrong("matches no parameter"))?;
            if parameter.weight.shape() != velocity.shape() {
                return Err(wrong("has a shape different from its parameter"));
            }
        }
        self.velocities = velocities;
        Ok(())
    }

    fn config(&self, kind: ParameterKind) -> SgdConfig {
        let o = self.options;
        let bias = kind == ParameterKind::Bias;
        SgdConfig {
            momentum_variant: o.momentum_variant,
            momentum: o.momentum,
            weight_decay: if bias && !o.decay_biases { 0.0 } else { o.weight_decay },
            lr_mult: if bias { o.bias_lr_mult } else { 1.0 },
        }
    }
}
