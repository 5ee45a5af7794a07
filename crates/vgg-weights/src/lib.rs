//! Weights of VGG networks in files.
//!
//! The native format is safetensors with the paper's names (`conv1_1.weight` .. `fc8.bias`), filters as
//! `[K, C, R, S]`, fc6 in torch's flatten order, and metadata that say everything else that is needed to classify
//! an image: classes, crop, channel order, pixel scale, mean.

mod error;
mod metadata;
mod native;

pub use error::{Error, Result};
pub use metadata::{ChannelOrder, WeightsMetadata};
pub use native::{Loaded, load, read_metadata, save, write};
