//! Reading and writing the weights of VGG networks.
//!
//! The native format is safetensors with the paper's layer names (`conv1_1.weight` .. `fc8.bias`), filters as
//! `[K, C, R, S]`, fc6's inputs in PyTorch's flatten order (C, H, W), and the metadata that classifying an
//! image needs: configuration, classes, crop, channel order, pixel scale, mean.
//!
//! [`load`] also reads files of torchvision, timm, Caffe and Keras and detects the format from the content.
//! [`convert`] writes files for torchvision, timm, Caffe and ONNX.

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

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
pub use load::{Loaded, TransferReport, describe, load, load_layers, load_up_to, load_with, read_metadata};
pub use metadata::{ChannelOrder, WeightsMetadata};
pub use naming::Library;
pub use native::{save, write, write_named_tensors};
pub use pixels::Pixels;
