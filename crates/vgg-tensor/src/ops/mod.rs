//! The operations, one module each: the contract in `mod.rs`, kernels beside it.

pub mod conv2d;
pub mod dropout;
mod from_pixels;
pub mod linear;
pub mod lrn;
pub mod max_pool2d;
mod sgd_step;
mod softmax;
mod softmax_cross_entropy;
mod spatial_mean;
mod squared_error;

pub use from_pixels::{from_pixels, from_upload};
pub use sgd_step::{SgdConfig, SgdForm, sgd_step};
pub use softmax::softmax;
pub use softmax_cross_entropy::{Loss, softmax_cross_entropy, softmax_cross_entropy_of_upload};
pub use spatial_mean::spatial_mean;
pub use squared_error::squared_error;
