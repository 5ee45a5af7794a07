//! The gradients that backward operations return, and the activation that they apply.

use crate::Tensor;

/// A gradient and its sum per channel.
///
/// `grad` has the shape of the value that it belongs to and is the gradient *before* the activation that
/// produced this value: it is zero where the value is not positive. `bias_grad [C]` is the sum of `grad` over
/// every axis but the last, which is the gradient of the bias of the layer below.
#[derive(Debug, Clone)]
pub struct Grad {
    /// The gradient.
    pub grad: Tensor,
    /// Sum of `grad` per channel.
    pub bias_grad: Tensor,
}

/// The activation between an operation and the layer below: a ReLU, optionally followed by dropout.
///
/// The gradient is multiplied by `scale` where the saved output `y` is positive, and is zero elsewhere. This
/// also holds for a value that was max-pooled or normalised after the ReLU, because both keep the sign.
#[derive(Debug, Clone, Copy)]
pub struct ReluDropoutMask<'a> {
    /// Saved output of the layer below, the input of this operation.
    pub y: &'a Tensor,
    /// `1 / (1 - rate)` after dropout, else 1.
    pub scale: f32,
}
