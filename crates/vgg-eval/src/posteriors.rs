//! Posteriors of a data set, and the posteriors file.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::Array2;
use serde::{Deserialize, Serialize};
use vgg_files::{TensorData, TensorFile, TensorValues, write_tensors};

use crate::metrics::{ErrorRate, top_k_error};
use crate::{Error, Evaluation, Partition, Result};

/// Posteriors of the images of a data set, with labels and provenance.
#[derive(Debug, Clone, Default)]
pub struct Posteriors {
    /// `[N, classes]`.
    pub values: Array2<f32>,
    /// True classes.
    pub labels: Vec<u32>,
    /// Paths of the images, relative to the data set.
    pub paths: Vec<String>,
    /// Path and reason of each image that was skipped because it could not be decoded.
    pub skipped: Vec<String>,
    /// Provenance of the posteriors.
    pub origin: Origin,
}

/// Provenance of posteriors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Origin {
    /// The networks; the posteriors are their mean.
    pub networks: Vec<ModelProvenance>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Hash of the split.
    pub dataset: String,
    /// The part of the split that was evaluated.
    pub part: Partition,
}

/// A network and the settings of its evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelProvenance {
    /// Protocol and test scales, among other settings.
    pub evaluation: Evaluation,
    /// Hash of the weights file.
    pub weights: String,
}

impl Posteriors {
    /// Top-1 error.
    pub fn top1_error(&self) -> ErrorRate {
        top_k_error(self.values.view(), &self.labels, 1)
    }

    /// Top-5 error.
    pub fn top5_error(&self) -> ErrorRate {
        top_k_error(self.values.view(), &self.labels, 5)
    }

    /// Mean cross-entropy, `-ln posterior` of the true class; posteriors below 1e-38 count as 1e-38.
    pub fn loss(&self) -> f64 {
        let of =
            |(row, label): (ndarray::ArrayView1<f32>, &u32)| -f64::from(row[*label as usize]).max(1e-38).ln();
        let sum: f64 = self.values.rows().into_iter().zip(&self.labels).map(of).sum();
        // Adding 0.0 turns the -0 of an empty sum into 0.
        sum / self.labels.len().max(1) as f64 + 0.0
    }

    /// Reads a posteriors file.
    ///
    /// # Errors
    /// [`Error::File`] if the file is missing or damaged, [`Error::Posteriors`] if its contents are invalid.
    pub fn load(path: &Path) -> Result<Posteriors> {
        let bad = |reason: &str| Error::Posteriors { path: path.to_owned(), reason: reason.to_owned() };
        let mut file = TensorFile::open(path)?;
        let paths = file.metadata().get("paths").and_then(|text| serde_json::from_str(text).ok());
        let paths: Vec<String> = paths.ok_or_else(|| bad("the metadata have no list of paths"))?;
        let Some(&[n, classes]) = file.shape("posteriors") else {
            return Err(bad("it has no tensor posteriors of shape [N, classes]"));
        };
        let values = Array2::from_shape_vec((n, classes), file.read_f32("posteriors")?);
        let values = values.map_err(|e| bad(&e.to_string()))?;
        let label = |l: i64| u32::try_from(l).ok().filter(|l| (*l as usize) < classes);
        let labels: Option<Vec<u32>> = file.read_i64("labels")?.into_iter().map(label).collect();
        let labels = labels.ok_or_else(|| bad("a label is not a class"))?;
        if labels.len() != n || paths.len() != n {
            return Err(bad("posteriors, labels and paths differ in number"));
        }
        let metadata = file.metadata();
        let origin = Origin {
            networks: entry(&metadata, "networks").map_err(|e| bad(&e))?,
            classes: entry(&metadata, "classes").map_err(|e| bad(&e))?,
            dataset: entry(&metadata, "dataset").map_err(|e| bad(&e))?,
            part: entry(&metadata, "part").map_err(|e| bad(&e))?,
        };
        if !(origin.classes.is_empty() || origin.classes.len() == classes) {
            return Err(bad("posteriors and names of classes differ in number"));
        }
        if !values.iter().all(|p| (0.0..=1.001).contains(p)) {
            return Err(bad("a posterior is not between 0 and 1"));
        }
        Ok(Posteriors {
            values,
            labels,
            paths,
            skipped: entry(&metadata, "skipped").unwrap_or_default(),
            origin,
        })
    }

    /// Writes a posteriors file: safetensors with `posteriors` and `labels`, and with paths and provenance in
    /// the metadata. For a single network, the metadata also have its `evaluation` and the hash `weights`.
    ///
    /// # Errors
    /// [`crate::Error::File`] if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let labels: Vec<i64> = self.labels.iter().map(|l| i64::from(*l)).collect();
        let values = self.values.as_standard_layout();
        let (n, k) = values.dim();
        let origin = &self.origin;
        Ok(vgg_files::write_with(path, |out| {
            let tensors = [
                TensorData {
                    name: "posteriors".into(),
                    shape: vec![n, k],
                    values: TensorValues::F32(values.as_slice().unwrap_or_default()),
                },
                TensorData { name: "labels".into(), shape: vec![n], values: TensorValues::I64(&labels) },
            ];
            let mut metadata = BTreeMap::from([
                ("paths".to_owned(), serde_json::to_string(&self.paths)?),
                ("skipped".to_owned(), serde_json::to_string(&self.skipped)?),
                ("networks".to_owned(), serde_json::to_string(&origin.networks)?),
                ("classes".to_owned(), serde_json::to_string(&origin.classes)?),
                ("dataset".to_owned(), serde_json::to_string(&origin.dataset)?),
                ("part".to_owned(), serde_json::to_string(&origin.part)?),
            ]);
            if let [ModelProvenance { evaluation, weights }] = origin.networks.as_slice() {
                metadata.insert("evaluation".to_owned(), serde_json::to_string(evaluation)?);
                metadata.insert("weights".to_owned(), serde_json::to_string(weights)?);
            }
            write_tensors(out, &tensors, &metadata)
        })?)
    }
}

/// Parses an entry of the metadata; returns the default if it is absent.
fn entry<T: serde::de::DeserializeOwned + Default>(
    metadata: &BTreeMap<String, String>,
    key: &str,
) -> std::result::Result<T, String> {
    let Some(text) = metadata.get(key) else { return Ok(T::default()) };
    serde_json::from_str(text).map_err(|e| format!("metadata {key}: {e}"))
}
