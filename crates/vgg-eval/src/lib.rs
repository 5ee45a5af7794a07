//! Evaluation of VGG networks by the paper's protocols (Section 3.2): centre crop, dense, multi-crop and both
//! combined, with horizontal flips and any number of test scales. Posteriors can be fused (Section 4.4) and
//! analysed: errors with confidence intervals, errors per class, confusion matrices and a paired test.
//!
//! A protocol is a list of views. One function computes a posterior from a network, an image and views.

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod analysis;
mod analysis_files;
mod class_names;
mod error;
mod evaluate;
mod features;
mod fusion;
mod metrics;
mod model;
mod picture;
mod posteriors;
mod protocol;
mod records;
mod report;

pub use analysis::{ClassErrors, Comparison, Mistake};
pub use analysis_files::Analysis;
pub use class_names::readable_names;
pub use error::{Error, Result};
pub use evaluate::{classify, dump_views, evaluate, evaluate_on_ranks, match_classes, rank_partition};
pub use features::{Aggregate, FeatureConfig, Features, features, image_features};
pub use fusion::{fuse, merge};
pub use metrics::{ErrorRate, top_k_error};
pub use model::EvalModel;
pub use picture::{confusion_picture, score_map, score_map_picture};
pub use posteriors::{ModelProvenance, Origin, Posteriors};
pub use protocol::{DensePool, Evaluation, Preprocessing, Protocol, WeightedView};
pub use records::EvaluateOptions;
pub use report::{ErrorReport, EvalReport};
// Part of this crate's interface.
pub use vgg_data::Partition;
