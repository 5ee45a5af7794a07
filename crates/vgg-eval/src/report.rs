//! The results of an evaluation as one record.

use serde::{Deserialize, Serialize};
use vgg_layers::Config;

use crate::{Evaluation, Posteriors};

/// The errors of posteriors, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// Number of images.
    pub n: usize,
    /// Number of images that were skipped because they could not be decoded.
    pub skipped: usize,
    /// Top-1 error.
    pub top1_error: f64,
    /// Top-5 error.
    pub top5_error: f64,
    /// 95% confidence interval of the top-1 error.
    pub top1_ci: [f64; 2],
    /// 95% confidence interval of the top-5 error.
    pub top5_ci: [f64; 2],
    /// Mean cross-entropy, `-ln posterior` of the true class.
    pub loss: f64,
}

/// An evaluation of a network on a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// Protocol and its settings.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// Errors.
    #[serde(flatten)]
    pub errors: ErrorReport,
    /// Configuration of the network.
    pub config: Config,
    /// `train` or `val`.
    pub split: String,
    /// Images per second, including decoding.
    pub images_per_s: f64,
    /// Hash of the weights file.
    pub weights: String,
    /// Hash of the split.
    pub dataset: String,
    /// Device of the computation.
    pub device: String,
    /// World size.
    pub ranks: usize,
}

impl Posteriors {
    /// Errors with their confidence intervals, and the loss.
    pub fn errors(&self) -> ErrorReport {
        let top1 = self.top1_error();
        let top5 = self.top5_error();
        ErrorReport {
            n: top1.n,
            skipped: self.skipped.len(),
            top1_error: top1.rate(),
            top5_error: top5.rate(),
            top1_ci: top1.interval(),
            top5_ci: top5.interval(),
            loss: self.loss(),
        }
    }
}
