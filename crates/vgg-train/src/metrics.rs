//! What a run writes down of every epoch.

use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vgg_files::FileWriter;

use crate::Result;

/// Result of a validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Share of wrong first answers.
    pub top1_error: f64,
    /// Share of images whose class is not among the first five answers.
    pub top5_error: f64,
    /// Mean of `-ln posterior`.
    pub loss: f64,
}

/// One epoch. Depends on configuration and data alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// From 1.
    pub epoch: usize,
    /// Steps of the run so far.
    pub step: u64,
    /// Learning rate of the epoch.
    pub lr: f64,
    /// Mean training loss, with dropout and augmentation.
    pub train_loss: f64,
    /// Share of wrong first answers in training.
    pub train_top1_error: f64,
    /// Validation error, if there was a validation.
    pub val_top1_error: Option<f64>,
    /// Validation error among the first five.
    pub val_top5_error: Option<f64>,
    /// Validation loss.
    pub val_loss: Option<f64>,
    /// Images that could not be decoded.
    pub skipped: usize,
}

/// Time that one epoch took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochTiming {
    /// From 1.
    pub epoch: usize,
    /// Seconds of training, without validation.
    pub seconds: f64,
    /// Training images a second.
    pub images_per_s: f64,
    /// Share of the time in which training waited for data.
    pub waiting: f64,
}

/// A line of [`EpochMetrics`] for each epoch, in the directory of a run.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// Writes `metrics.jsonl`, `metrics.csv` and `timing.jsonl`, whole: a run has few epochs. The directory must be there.
pub(crate) fn write(dir: &Path, metrics: &[EpochMetrics], timings: &[EpochTiming]) -> Result<()> {
    write_file(&dir.join(METRICS_FILE), &lines(metrics)?)?;
    write_file(&dir.join("timing.jsonl"), &lines(timings)?)?;
    let config = |e: &dyn std::fmt::Display| crate::Error::Config(format!("cannot write metrics.csv: {e}"));
    let mut csv = csv::Writer::from_writer(Vec::new());
    metrics.iter().try_for_each(|m| csv.serialize(m)).map_err(|e| config(&e))?;
    let bytes = csv.into_inner().map_err(|e| config(&e))?;
    write_file(&dir.join("metrics.csv"), &bytes)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = FileWriter::create_in_folder(path)?;
    let written = file.write_all(bytes);
    written.map_err(|source| vgg_files::Error::Io { action: "write", path: path.to_owned(), source })?;
    Ok(file.commit()?)
}

fn lines<T: Serialize>(rows: &[T]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut out, row).map_err(|e| crate::Error::Config(e.to_string()))?;
        out.push(b'\n');
    }
    Ok(out)
}
