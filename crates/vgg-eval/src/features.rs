//! Descriptors of images from a layer of a network, for classifiers of other data sets (appendix B).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use ndarray::{Array1, Array2, Axis};
use serde::{Deserialize, Serialize};
use vgg_data::{Image, ImageSet, Interpolation};
use vgg_files::{TensorData, TensorValues, write_tensors};
use vgg_layers::DenseNetwork;
use vgg_tensor::{ProcessGroup, ops};

use crate::model::run_length;
use crate::protocol::WeightedView;
use crate::records::{EvalRecords, same_on_all_ranks, show};
use crate::{DensePool, EvalModel, EvaluateOptions, Evaluation, Protocol, Result, rank_partition};

/// What a descriptor is: whole images at several sides, mirrored too or not, the layer's map averaged over places and mirrorings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureConfig {
    /// Such as `fc7` or `pool5`; what it gives after its ReLU.
    pub layer: String,
    /// Smallest sides.
    pub test_scales: Vec<usize>,
    /// Whether the mirrored image is shown too.
    pub flip: bool,
    /// Interpolation.
    pub interpolation: Interpolation,
    /// What becomes of several sides.
    pub aggregate: Aggregate,
    /// Whether descriptors are scaled to length 1.
    pub l2_normalise: bool,
}

/// How descriptors at several sides become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregate {
    /// Their mean: as many values as channels.
    Mean,
    /// One after another.
    Stack,
}

impl std::str::FromStr for Aggregate {
    type Err = String;
    fn from_str(name: &str) -> std::result::Result<Aggregate, String> {
        match name {
            "mean" => Ok(Aggregate::Mean),
            "stack" => Ok(Aggregate::Stack),
            _ => Err(format!("there is no aggregation {name}; it is mean or stack")),
        }
    }
}

/// Descriptors of the images of a split.
#[derive(Debug, Clone)]
pub struct Features {
    /// `[N, D]`.
    pub values: Array2<f32>,
    /// Classes in the data set.
    pub labels: Vec<u32>,
    /// Paths of the images below the data set.
    pub paths: Vec<String>,
    /// Images that were left out, since they could not be decoded: path and reason.
    pub skipped: Vec<String>,
    /// What they are.
    pub config: FeatureConfig,
    /// Hash of the network's weights file.
    pub weights: String,
    /// Names of the data set's classes.
    pub classes: Vec<String>,
    /// Hash of the split.
    pub dataset: String,
}

/// Descriptors of a split, which the ranks of `group` share out; the first gets all, the others nothing. The shard of `options` is not
/// heeded.
///
/// # Errors
/// [`crate::Error::Config`] if the model is not dense or sides are below its crop; [`crate::Error::Network`] if there is no such layer; else as
/// [`crate::evaluate_on_ranks`].
pub fn features(
    group: &dyn ProcessGroup,
    model: &EvalModel,
    folder: &Arc<ImageSet>,
    config: &FeatureConfig,
    options: EvaluateOptions,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Features>> {
    let columns = config.columns(model.dense_network()?)?;
    let views = config.views(model.spec().crop)?;
    same_on_all_ranks(group, &serde_json::json!([model.weights_hash, folder.hash(), config]))?;
    let options = EvaluateOptions { shard: rank_partition(group), ..options };
    let of_group = |images: &[Vec<Image>]| config.of(model, images, &views);
    let own = EvalRecords::of(folder, &views, config.interpolation, options, progress, of_group);
    let Some(mut rows) = EvalRecords::of_all(own, group, folder)? else { return Ok(None) };
    Ok(Some(Features {
        values: rows.take_values(columns)?,
        labels: rows.labels,
        paths: rows.paths,
        skipped: rows.skipped,
        config: config.clone(),
        weights: model.weights_hash.clone(),
        classes: folder.classes().to_vec(),
        dataset: folder.hash().as_str().to_owned(),
    }))
}

/// The descriptor of one image.
///
/// # Errors
/// As [`features`].
pub fn image_features(model: &EvalModel, image: &Image, config: &FeatureConfig) -> Result<Array1<f32>> {
    let views = config.views(model.spec().crop)?;
    let shown = show(image, &views, config.interpolation)?;
    Ok(config.of(model, &[shown], &views)?.index_axis_move(Axis(0), 0))
}

impl FeatureConfig {
    fn views(&self, crop: usize) -> Result<Vec<WeightedView>> {
        let whole = Evaluation {
            protocol: Protocol::Dense,
            test_scales: self.test_scales.clone(),
            flip: self.flip,
            interpolation: self.interpolation,
            dense_pool: DensePool::ScoreMean,
            pool_rounding: None,
        };
        whole.views(crop)
    }

    /// Whether it fits a network.
    ///
    /// # Errors
    /// [`crate::Error::Config`] if sides are below the network's crop; [`crate::Error::Network`] if there is no such layer.
    pub fn check(&self, network: &DenseNetwork) -> Result<()> {
        self.columns(network)?;
        self.views(network.spec().crop).map(drop)
    }

    /// Length of a descriptor.
    ///
    /// # Errors
    /// [`crate::Error::Network`] if the network has no such layer.
    pub fn columns(&self, network: &DenseNetwork) -> Result<usize> {
        let sides = if self.aggregate == Aggregate::Stack { self.test_scales.len() } else { 1 };
        Ok(sides * network.channels(&self.layer)?)
    }

    fn of(&self, model: &EvalModel, images: &[Vec<Image>], views: &[WeightedView]) -> Result<Array2<f32>> {
        let network = model.dense_network()?;
        let channels = network.channels(&self.layer)?;
        let stacked = self.aggregate == Aggregate::Stack;
        let mut sum = Array2::<f64>::zeros((images.len(), self.columns(network)?));
        let mut first = 0;
        while first < views.len() && !images.is_empty() {
            let same = run_length(&images[0], views, first);
            let x = model.upload(images, first..first + same)?;
            let means = ops::global_avg_pool2d(&network.activations(&x, &self.layer)?)?.to_vec();
            for (i, row) in means.chunks_exact(channels).enumerate() {
                let side = self.side_of(&views[first + i % same]);
                let at = if stacked { side * channels } else { 0 };
                let mut to = sum.row_mut(i / same);
                to.iter_mut().skip(at).zip(row).for_each(|(s, v)| *s += f64::from(*v));
            }
            first += same;
        }
        let views_each = if stacked { views.len() / self.test_scales.len() } else { views.len() };
        sum.mapv_inplace(|s| s / views_each as f64);
        if self.l2_normalise {
            for mut row in sum.axis_iter_mut(Axis(0)) {
                let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
                // One that is all zero has no direction.
                if length > 0.0 {
                    row.mapv_inplace(|v| v / length);
                }
            }
        }
        Ok(sum.mapv(|v| v as f32))
    }

    fn side_of(&self, view: &WeightedView) -> usize {
        self.test_scales.iter().position(|side| *side == view.view.test_scale).unwrap_or(0)
    }
}

impl Features {
    /// Writes a file: safetensors with `features` and `labels`, and in the metadata, each a JSON value, `paths`, `skipped`, `config`,
    /// `weights`, `classes` and `dataset`.
    ///
    /// # Errors
    /// [`crate::Error::File`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let labels: Vec<i64> = self.labels.iter().map(|l| i64::from(*l)).collect();
        let values = self.values.as_standard_layout();
        let (n, d) = values.dim();
        Ok(vgg_files::write_with(path, |out| {
            let tensors = [
                TensorData {
                    name: "features".into(),
                    shape: vec![n, d],
                    values: TensorValues::F32(values.as_slice().unwrap_or_default()),
                },
                TensorData { name: "labels".into(), shape: vec![n], values: TensorValues::I64(&labels) },
            ];
            let metadata = BTreeMap::from([
                ("paths".to_owned(), serde_json::to_string(&self.paths)?),
                ("skipped".to_owned(), serde_json::to_string(&self.skipped)?),
                ("config".to_owned(), serde_json::to_string(&self.config)?),
                ("weights".to_owned(), serde_json::to_string(&self.weights)?),
                ("classes".to_owned(), serde_json::to_string(&self.classes)?),
                ("dataset".to_owned(), serde_json::to_string(&self.dataset)?),
            ]);
            write_tensors(out, &tensors, &metadata)
        })?)
    }
}
