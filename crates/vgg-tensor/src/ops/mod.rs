//! The operations, one module each: the interface and its checks in `mod.rs`, the CPU and GPU kernels beside
//! it.

pub mod conv2d;
pub mod dropout;
mod euclidean_loss;
mod global_avg_pool2d;
pub mod linear;
pub mod lrn;
pub mod max_pool2d;
mod normalize;
mod sgd_step;
mod softmax;
mod softmax_cross_entropy;

pub use euclidean_loss::euclidean_loss;
pub use global_avg_pool2d::global_avg_pool2d;
pub use normalize::{normalize, normalize_staged};
pub use sgd_step::{MomentumVariant, SgdConfig, sgd_step};
pub use softmax::softmax;
pub use softmax_cross_entropy::{Loss, softmax_cross_entropy, softmax_cross_entropy_staged};
