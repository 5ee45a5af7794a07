//! The very deep ConvNets of Simonyan & Zisserman (2014): classification, features, evaluation and training.
//!
//! ```no_run
//! // Weights in the format of vgg, torchvision, timm, Caffe, Keras or TensorFlow, and an image.
//! let classifier = vgg::Classifier::open("vgg16.safetensors")?;
//! for answer in classifier.classify("cat.jpg")?.iter().take(5) {
//!     println!("{:5.1} %  {}", 100.0 * answer.posterior, answer.name);
//! }
//! # Ok::<(), vgg::Error>(())
//! ```
//!
//! [`FeatureExtractor`] extracts descriptors from any layer, [`evaluate`] measures errors on a data set,
//! [`Finetune`] fine-tunes a network on a folder of images, and [`train`] runs any training settings. All use
//! a GPU if there is one.
//!
//! The crates below are re-exported under short names, such as [`tensor`] and [`layers`], as is [`ndarray`],
//! whose arrays are part of the interface.

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod classifier;
mod error;
mod evaluation;
mod features;
mod finetune;
mod pretrained;
pub mod system;
mod training;

pub use classifier::{Classifier, Prediction};
pub use error::{Error, Result, error_kind};
pub use evaluation::{evaluate, evaluate_split};
pub use features::FeatureExtractor;
pub use finetune::Finetune;
pub use pretrained::{Pretrained, name_classes};
pub use training::train;
pub use vgg_error::ErrorKind;

pub use ndarray;
pub use vgg_data as data;
pub use vgg_eval as eval;
pub use vgg_experiment as experiment;
pub use vgg_files as files;
pub use vgg_layers as layers;
pub use vgg_optim as optim;
pub use vgg_tensor as tensor;
pub use vgg_weights as weights;

pub use vgg_data::Image;
pub use vgg_eval::EvalReport;
pub use vgg_experiment::{FinishedRun, RunPlan};
pub use vgg_tensor::Device;
