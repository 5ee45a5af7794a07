//! What an evaluation found, as one record.

use serde::{Deserialize, Serialize};
use vgg_layers::Config;

use crate::{Evaluation, Posteriors};

/// The errors of posteriors; shares, not percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// Images.
    pub n: usize,
    /// Images that were left out, since they could not be decoded.
    pub skipped: usize,
    /// Share of images whose class is not the most likely one.
    pub top1_error: f64,
    /// Share of images whose class is not among the five most likely ones.
    pub top5_error: f64,
    /// 95 % confidence interval of the first.
    pub top1_ci: [f64; 2],
    /// 95 % confidence interval of the second.
    pub top5_ci: [f64; 2],
    /// Mean negative logarithm of the posterior of the true class.
    pub loss: f64,
}

/// An evaluation of a network on a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// The protocol.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// What it found.
    #[serde(flatten)]
    pub errors: ErrorReport,
    /// Configuration of the network.
    pub config: Config,
    /// `train` or `val`.
    pub split: String,
    /// Images a second, decoding among it.
    pub images_per_s: f64,
    /// Hash of the weights file.
    pub weights: String,
    /// Hash of the split.
    pub dataset: String,
    /// Where it was computed.
    pub device: String,
    /// Number of processes.
    pub ranks: usize,
}

impl Posteriors {
    /// All errors.
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
