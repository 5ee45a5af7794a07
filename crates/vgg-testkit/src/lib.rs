//! References and tools for tests of numerical code: plain f64 loops, finite differences, tolerances, and
//! pseudo-random weights that are the same in Rust and Python.
//!
//! The crate depends on no other crate of the workspace, so that it can check all of them. Images are `[N, H,
//! W, C]`, filters `[K, R, S, C]`.
//!
//! ```
//! use vgg_testkit::{assert_close, pseudo_random};
//! let a = pseudo_random("a", 1.0, 100);
//! assert_close(&a, &a, 1e-6, "a value and itself");
//! ```

mod hash;
pub mod imagenet;
mod pictures;
mod pillow;
mod reference;
mod skip;
mod small_disk;
mod tolerance;

pub use hash::{fmix32, projections, pseudo_random, unit};
pub use pictures::{PICTURE_CLASSES, PICTURES_PER_CLASS, make_pictures, picture, picture_path};
pub use pillow::pillow_resize;
pub use reference::{
    ConvGradients, conv2d, conv2d_gradients, finite_difference, linear, lrn, max_pool2d,
    softmax_cross_entropy,
};
pub use skip::skip;
pub use small_disk::SmallDisk;
pub use tolerance::{assert_close, relative_error};

/// The shapes of VGG's 3x3 convolutions: name, side of the map, input channels, filters. A layer that is not
/// listed has the shape of the one before it.
pub const VGG_CONVOLUTIONS: [(&str, usize, usize, usize); 9] = [
    ("conv1_1", 224, 3, 64),
    ("conv1_2", 224, 64, 64),
    ("conv2_1", 112, 64, 128),
    ("conv2_2", 112, 128, 128),
    ("conv3_1", 56, 128, 256),
    ("conv3_2", 56, 256, 256),
    ("conv4_1", 28, 256, 512),
    ("conv4_2", 28, 512, 512),
    ("conv5_1", 14, 512, 512),
];
