//! Posteriors of a data set, and their file.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::Array2;
use vgg_files::{TensorData, TensorValues, write_tensors};

use crate::metrics::{ErrorRate, top_k_error};
use crate::{Evaluation, Result};

/// What a network said of every image of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Posteriors {
    /// `[N, classes]`.
    pub values: Array2<f32>,
    /// True classes.
    pub labels: Vec<u32>,
    /// Paths of the images below the data set.
    pub paths: Vec<String>,
}

impl Posteriors {
    /// Share of images whose class is not the most likely one.
    pub fn top1_error(&self) -> ErrorRate {
        top_k_error(self.values.view(), &self.labels, 1)
    }

    /// Share of images whose class is not among the five most likely ones.
    pub fn top5_error(&self) -> ErrorRate {
        top_k_error(self.values.view(), &self.labels, 5)
    }

    /// Mean of `-ln posterior` of the true classes.
    pub fn loss(&self) -> f64 {
        let of =
            |(row, label): (ndarray::ArrayView1<f32>, &u32)| -f64::from(row[*label as usize]).max(1e-38).ln();
        let sum: f64 = self.values.rows().into_iter().zip(&self.labels).map(of).sum();
        sum / self.labels.len().max(1) as f64
    }

    /// Writes a posterior file: safetensors with `posteriors`, `labels`, and what they are in the metadata.
    ///
    /// # Errors
    /// [`crate::Error::File`] if it cannot be written.
    pub fn save(
        &self,
        path: &Path,
        evaluation: &Evaluation,
        weights_hash: &str,
        dataset_hash: &str,
    ) -> Result<()> {
        let labels: Vec<i64> = self.labels.iter().map(|l| i64::from(*l)).collect();
        let values = self.values.as_standard_layout();
        let (n, k) = values.dim();
        Ok(vgg_files::write_with(path, |out| {
            let tensors = [
                TensorData {
                    name: "posteriors".into(),
                    shape: vec![n, k],
                    values: TensorValues::F32(values.as_slice().unwrap_or_default()),
                },
                TensorData { name: "labels".into(), shape: vec![n], values: TensorValues::I64(&labels) },
            ];
            let metadata = BTreeMap::from([
                ("paths".to_owned(), serde_json::to_string(&self.paths)?),
                ("protocol".to_owned(), serde_json::to_string(evaluation)?),
                ("weights".to_owned(), serde_json::to_string(weights_hash)?),
                ("dataset".to_owned(), serde_json::to_string(dataset_hash)?),
            ]);
            write_tensors(out, &tensors, &metadata)
        })?)
    }
}
