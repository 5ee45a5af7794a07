//! Weights of VGG networks in files.
//!
//! The native format is safetensors with the paper's names (`conv1_1.weight` .. `fc8.bias`), filters as
//! `[K, C, R, S]`, fc6 in torch's flatten order, and metadata that say everything else that is needed to classify
//! an image: classes, crop, channel order, pixel scale, mean.
//!
//! Files of torchvision, timm, Caffe and Keras are read as well, found out from their content, and written: [`load`],
//! [`convert`].

#![warn(clippy::unwrap_used)]

mod axes;
mod convert;
mod error;
mod load;
mod loader;
mod metadata;
mod naming;
mod native;
mod pixels;
mod source;

pub use convert::{Target, convert};
pub use error::{Error, Result};
pub use load::{Loaded, TransferReport, describe, load, load_layers, load_with, read_metadata};
pub use metadata::{ChannelOrder, WeightsMetadata};
pub use naming::Library;
pub use native::{save, write, write_named_tensors};
pub use pixels::Pixels;
