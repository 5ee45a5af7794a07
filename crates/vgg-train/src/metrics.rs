//! Metrics and timing of each epoch, and the files that contain them.

use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vgg_files::FileWriter;

use crate::Result;

/// Result of a validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Top-1 error, 0..1.
    pub top1_error: f64,
    /// Top-5 error, 0..1.
    pub top5_error: f64,
    /// Mean cross-entropy, `-ln posterior` of the true class.
    pub loss: f64,
}

/// Metrics of one epoch, which depend only on configuration and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Steps of the run so far.
    pub step: u64,
    /// Learning rate of the epoch.
    pub lr: f64,
    /// Mean training loss, with dropout and augmentation.
    pub train_loss: f64,
    /// Training top-1 error, with dropout and augmentation.
    pub train_top1_error: f64,
    /// Validation top-1 error, if the epoch was validated.
    pub val_top1_error: Option<f64>,
    /// Validation top-5 error, if the epoch was validated.
    pub val_top5_error: Option<f64>,
    /// Validation loss, if the epoch was validated.
    pub val_loss: Option<f64>,
    /// Images that were skipped because they could not be decoded.
    pub skipped: usize,
}

/// Timing of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochTiming {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Seconds of training, without validation.
    pub seconds: f64,
    /// Training images per second.
    pub images_per_s: f64,
    /// Fraction of the time that training waited for data.
    pub waiting: f64,
}

/// Name of the file in a run directory with a line of [`EpochMetrics`] for each epoch.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// Rewrites `metrics.jsonl`, `metrics.csv` and `timing.jsonl` completely. The directory must exist.
pub(crate) fn write(dir: &Path, metrics: &[EpochMetrics], timings: &[EpochTiming]) -> Result<()> {
    write_file(&dir.join(METRICS_FILE), &lines(metrics)?)?;
    write_file(&dir.join("timing.jsonl"), &lines(timings)?)?;
    let internal = |e: &dyn std::fmt::Display| crate::Error::Internal(format!("metrics.csv: {e}"));
    let mut csv = csv::Writer::from_writer(Vec::new());
    metrics.iter().try_for_each(|m| csv.serialize(m)).map_err(|e| internal(&e))?;
    let bytes = csv.into_inner().map_err(|e| internal(&e))?;
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
        serde_json::to_writer(&mut out, row).map_err(|e| crate::Error::Internal(format!("metrics: {e}")))?;
        out.push(b'\n');
    }
    Ok(out)
}
