//! The rows of a table as data.

use serde::{Deserialize, Serialize};

use crate::paper::PaperRow;

/// A row of a table, with our result and the paper's. Errors are fractions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// ConvNet configuration, or the row's label.
    pub config: String,
    /// Training scale: one value, or the two ends of scale jitter; empty if the networks differ.
    pub train_scale: Vec<usize>,
    /// Test scales; empty if the networks differ.
    pub test_scales: Vec<usize>,
    /// Test protocol, such as `dense`.
    pub protocol: String,
    /// Top-1 error; `None` if training diverged or the row is quoted.
    pub top1_error: Option<f64>,
    /// Top-5 error.
    pub top5_error: Option<f64>,
    /// Sample standard deviation of the top-1 error over the seeds; `None` with one seed.
    pub top1_std: Option<f64>,
    /// 95 % confidence interval of the top-1 error: with one seed it covers the choice of test images, with several also
    /// that of the seed.
    pub top1_ci: Option<[f64; 2]>,
    /// 95 % confidence interval of the top-5 error.
    pub top5_ci: Option<[f64; 2]>,
    /// Name of the paper's row, such as `C/256`.
    pub paper_row: String,
    /// The paper's top-1 error.
    pub paper_top1_error: Option<f64>,
    /// The paper's top-5 error.
    pub paper_top5_error: Option<f64>,
    /// The paper's top-5 error on the test set, whose labels only the challenge's server has.
    pub paper_test_top5_error: Option<f64>,
    /// The paper's training scale.
    pub paper_train_scale: Vec<usize>,
    /// The paper's test scales.
    pub paper_test_scales: Vec<usize>,
    /// Number of epochs of the network trained longest.
    pub epochs: usize,
    /// Seed of the first run.
    pub seed: u64,
    /// Errors by seed; empty if the row is quoted.
    pub by_seed: Vec<SeedResult>,
    /// Number of test images.
    pub n: usize,
    /// Number of test images that were skipped because they could not be decoded.
    pub skipped: usize,
    /// Directory of the first run, relative to the table's.
    pub run: String,
    /// The networks of the row.
    pub members: Vec<Member>,
    /// A remark, such as that training diverged.
    pub note: Option<String>,
}

/// A network of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Name of the run, such as `D/256`.
    pub name: String,
    /// ConvNet configuration.
    pub config: String,
    /// Training scale.
    pub train_scale: Vec<usize>,
    /// Test scales.
    pub test_scales: Vec<usize>,
    /// Test protocol, such as `dense`.
    pub protocol: String,
    /// Directory of the run, relative to the table's.
    pub run: String,
    /// Posteriors file, relative to the table's directory.
    pub posteriors: String,
}

/// Result of a row with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedResult {
    /// Seed of the first run of the row.
    pub seed: u64,
    /// Top-1 error; `None` if training diverged.
    pub top1_error: Option<f64>,
    /// Top-5 error.
    pub top5_error: Option<f64>,
}

impl Row {
    /// A row with other authors' results, quoted from the paper.
    pub(crate) fn quoted(theirs: &PaperRow) -> Row {
        Row {
            config: theirs.name.to_owned(),
            train_scale: Vec::new(),
            test_scales: Vec::new(),
            protocol: String::new(),
            top1_error: None,
            top5_error: None,
            top1_std: None,
            top1_ci: None,
            top5_ci: None,
            paper_row: theirs.name.to_owned(),
            paper_top1_error: theirs.top1_error,
            paper_top5_error: theirs.top5_error,
            paper_test_top5_error: theirs.test_top5_error,
            paper_train_scale: Vec::new(),
            paper_test_scales: Vec::new(),
            epochs: 0,
            seed: 0,
            by_seed: Vec::new(),
            n: 0,
            skipped: 0,
            run: String::new(),
            members: Vec::new(),
            note: Some("quoted from the paper".into()),
        }
    }
}
