//! References and tools for tests of numerical code: plain loops in f64, finite differences, tolerances, and
//! weights that are made by an integer hash, the same in Rust and in Python.
//!
//! It depends on no other crate of the workspace, so that it can check all of them. Images are `[N, H, W, C]`,
//! filters `[K, R, S, C]`.
//!
//! ```
//! use vgg_testkit::{assert_close, hashed};
//! let a = hashed("a", 1.0, 100);
//! assert_close(&a, &a, 1e-6, "a value and itself");
//! ```

mod hash;
mod reference;
mod tolerance;

pub use hash::{fmix32, hashed, unit};
pub use reference::{
    ConvGradients, conv2d, conv2d_gradients, finite_difference, linear, lrn, max_pool2d,
    softmax_cross_entropy,
};
pub use tolerance::{assert_close, relative_error};
