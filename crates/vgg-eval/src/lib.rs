//! Evaluation of VGG networks by the paper's protocols (section 3.2): centre crop and dense, with horizontal flips
//! and any number of test sides, to posteriors, and from there to errors with confidence intervals.
//!
//! A protocol is data: a list of views. One function turns a network, an image and views into a posterior.

mod error;
mod evaluate;
mod metrics;
mod posteriors;
mod protocol;

pub use error::{Error, Result};
pub use evaluate::{EvaluateOptions, Model, Prepared, classify, evaluate};
pub use metrics::{ErrorRate, top_k_error};
pub use posteriors::Posteriors;
pub use protocol::{DensePool, Evaluation, Preprocessing, Protocol};
