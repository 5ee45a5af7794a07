//! The gradient contract that every backward operation keeps.

use crate::Tensor;

/// A gradient and its sum per channel.
///
/// `grad` has the shape of the value that it belongs to and is taken *before* the activation that made this value:
/// where the value is not positive, it is zero. `bias_grad [C]` is the sum of `grad` over every axis but the
/// last, which is the gradient of the bias of the layer below.
#[derive(Debug, Clone)]
pub struct Grad {
    /// The gradient.
    pub grad: Tensor,
    /// Its sum per channel.
    pub bias_grad: Tensor,
}

/// The activation between an operation and the layer below: a ReLU, and dropout behind it.
///
/// The gradient passes, times `scale`, where the saved output `y` is positive. The same rule serves a value that
/// was max-pooled or normalised after the ReLU, for both keep the sign.
#[derive(Debug, Clone, Copy)]
pub struct ReluDropoutMask<'a> {
    /// Saved output of the layer below, the input of this operation.
    pub y: &'a Tensor,
    /// `1 / (1 - rate)` behind dropout, else 1.
    pub scale: f32,
}
