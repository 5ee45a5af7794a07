//! SGD with momentum and weight decay over the parameters of a network.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
pub use vgg_tensor::ops::MomentumVariant;
use vgg_tensor::ops::{self, SgdConfig};
use vgg_tensor::{Parameter, ParameterKind, StepState, Tensor};

use crate::{Error, Result};

/// Settings of the optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SgdOptions {
    /// Where the learning rate enters.
    pub momentum_variant: MomentumVariant,
    /// What is kept of the velocity; the paper: 0.9.
    pub momentum: f32,
    /// L2 penalty; the paper: 5e-4.
    pub weight_decay: f32,
    /// Whether biases decay too. The paper does not say; Caffe's habit is not.
    pub decay_biases: bool,
    /// Factor on the learning rate of biases.
    pub bias_lr_mult: f32,
}

impl SgdOptions {
    /// The paper's, in Caffe's form; where the paper is silent, Caffe's habit.
    pub const PAPER: SgdOptions = SgdOptions {
        momentum_variant: MomentumVariant::Caffe,
        momentum: 0.9,
        weight_decay: 5e-4,
        decay_biases: false,
        bias_lr_mult: 1.0,
    };
}

/// The optimiser: options, and a velocity per trainable parameter.
#[derive(Debug)]
pub struct Sgd {
    options: SgdOptions,
    velocities: BTreeMap<String, Tensor>,
}

impl Sgd {
    /// An optimiser at rest.
    ///
    /// # Errors
    /// [`Error::Config`] if a setting makes no sense.
    pub fn new(options: SgdOptions) -> Result<Sgd> {
        let SgdOptions { momentum, weight_decay, bias_lr_mult, .. } = options;
        let sound = |v: f32| v >= 0.0 && v.is_finite();
        if !(0.0..1.0).contains(&momentum) || !sound(weight_decay) || !sound(bias_lr_mult) {
            return Err(Error::Config(format!(
                "momentum {momentum} must be in [0, 1), weight_decay {weight_decay} and bias_lr_mult {bias_lr_mult} not negative"
            )));
        }
        Ok(Sgd { options, velocities: BTreeMap::new() })
    }

    /// The settings.
    pub fn options(&self) -> &SgdOptions {
        &self.options
    }

    /// Updates every trainable parameter that has a gradient; nothing if the step is not finite.
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
            // A handle to the gradient, so that weight and gradient can be borrowed apart.
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

    /// Takes up velocities from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Velocity`] if one belongs to no parameter or has another shape.
    pub fn restore(&mut self, velocities: BTreeMap<String, Tensor>, parameters: &[&Parameter]) -> Result<()> {
        for (name, velocity) in &velocities {
            let wrong = |reason: &str| Error::Velocity { name: name.clone(), reason: reason.into() };
            let parameter =
                parameters.iter().find(|p| p.name == *name).ok_or_else(|| wrong("belongs to nothing"))?;
            if parameter.weight.shape() != velocity.shape() {
                return Err(wrong("has another shape than its parameter"));
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
