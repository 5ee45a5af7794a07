//! Posteriors of a data set, and their file.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::Array2;
use serde::{Deserialize, Serialize};
use vgg_files::{TensorData, TensorFile, TensorValues, write_tensors};

use crate::metrics::{ErrorRate, top_k_error};
use crate::{Error, Evaluation, Partition, Result};

/// What a network said of every image of a data set.
#[derive(Debug, Clone, Default)]
pub struct Posteriors {
    /// `[N, classes]`.
    pub values: Array2<f32>,
    /// True classes.
    pub labels: Vec<u32>,
    /// Paths of the images below the data set.
    pub paths: Vec<String>,
    /// Images that were left out, since they could not be decoded: path and reason.
    pub skipped: Vec<String>,
    /// Who said it of what.
    pub origin: Origin,
}

/// Where posteriors come from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Origin {
    /// The networks, of which these are the mean.
    pub networks: Vec<ModelProvenance>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Hash of the split.
    pub dataset: String,
    /// Which part of the split.
    pub shard: Partition,
}

/// A network and its protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelProvenance {
    /// What it was shown.
    pub protocol: Evaluation,
    /// Hash of its weights file.
    pub weights: String,
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
        // Of no images it is 0, and not -0.
        sum / self.labels.len().max(1) as f64 + 0.0
    }

    /// Reads a posterior file.
    ///
    /// # Errors
    /// [`Error::File`] if it is missing or damaged, [`Error::Posteriors`] if it holds something else.
    pub fn load(path: &Path) -> Result<Posteriors> {
        let bad = |reason: &str| Error::Posteriors { path: path.to_owned(), reason: reason.to_owned() };
        let mut file = TensorFile::open(path)?;
        let paths = file.metadata().get("paths").and_then(|text| serde_json::from_str(text).ok());
        let paths: Vec<String> = paths.ok_or_else(|| bad("its metadata have no list of paths"))?;
        let Some(&[n, classes]) = file.shape("posteriors") else {
            return Err(bad("it has no posteriors [N, classes]"));
        };
        let values = Array2::from_shape_vec((n, classes), file.read_f32("posteriors")?);
        let values = values.map_err(|e| bad(&e.to_string()))?;
        let label = |l: i64| u32::try_from(l).ok().filter(|l| (*l as usize) < classes);
        let labels: Option<Vec<u32>> = file.read_i64("labels")?.into_iter().map(label).collect();
        let labels = labels.ok_or_else(|| bad("a label is none of the classes"))?;
        if labels.len() != n || paths.len() != n {
            return Err(bad("posteriors, labels and paths differ in number"));
        }
        let metadata = file.metadata();
        let origin = Origin {
            networks: entry(&metadata, "networks").map_err(|e| bad(&e))?,
            classes: entry(&metadata, "classes").map_err(|e| bad(&e))?,
            dataset: entry(&metadata, "dataset").map_err(|e| bad(&e))?,
            shard: entry(&metadata, "shard").map_err(|e| bad(&e))?,
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

    /// Writes a posterior file: safetensors with `posteriors`, `labels`, and what they are in the metadata. Those of one
    /// network have its `protocol` and the hash of its `weights` there, too.
    ///
    /// # Errors
    /// [`crate::Error::File`] if it cannot be written.
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
                ("shard".to_owned(), serde_json::to_string(&origin.shard)?),
            ]);
            if let [ModelProvenance { protocol, weights }] = origin.networks.as_slice() {
                metadata.insert("protocol".to_owned(), serde_json::to_string(protocol)?);
                metadata.insert("weights".to_owned(), serde_json::to_string(weights)?);
            }
            write_tensors(out, &tensors, &metadata)
        })?)
    }
}

/// An entry of the metadata; the default if it is absent.
fn entry<T: serde::de::DeserializeOwned + Default>(
    metadata: &BTreeMap<String, String>,
    key: &str,
) -> std::result::Result<T, String> {
    let Some(text) = metadata.get(key) else { return Ok(T::default()) };
    serde_json::from_str(text).map_err(|e| format!("metadata {key}: {e}"))
}
