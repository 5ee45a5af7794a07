//! Image descriptors from a layer of a network, for classifiers on other data sets (Appendix B).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use ndarray::{Array1, Array2, Axis};
use serde::{Deserialize, Serialize};
use vgg_data::{Geometry, Image, ImageSet, Interpolation};
use vgg_files::{TensorData, TensorValues, write_tensors};
use vgg_layers::DenseNetwork;
use vgg_tensor::{ProcessGroup, ops};

use crate::model::run_length;
use crate::protocol::WeightedView;
use crate::records::{EvalRecords, apply_weighted_views, same_on_all_ranks};
use crate::{DensePool, Error, EvalModel, EvaluateOptions, Evaluation, Protocol, Result, rank_partition};

/// Settings of descriptors: a layer's activations for the whole image at several test scales, averaged over
/// positions and flips.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureConfig {
    /// Layer whose output after ReLU is used, such as `fc7` or `pool5`.
    pub layer: String,
    /// Test scales.
    pub test_scales: Vec<usize>,
    /// Whether the horizontally flipped image is used too.
    pub flip: bool,
    /// Interpolation for rescaling.
    pub interpolation: Interpolation,
    /// How images are rescaled, and where a centre crop lies.
    #[serde(default, skip_serializing_if = "Geometry::is_paper")]
    pub geometry: Geometry,
    /// How to combine scales: average or concatenate.
    pub aggregate: Aggregate,
    /// Whether descriptors are normalised to Euclidean length 1.
    pub l2_normalise: bool,
}

/// How to combine the descriptors of several scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregate {
    /// Average: one value per channel.
    Mean,
    /// Concatenate, in the order of the scales.
    Stack,
}

impl std::str::FromStr for Aggregate {
    type Err = String;
    fn from_str(name: &str) -> std::result::Result<Aggregate, String> {
        match name {
            "mean" => Ok(Aggregate::Mean),
            "stack" => Ok(Aggregate::Stack),
            _ => Err(format!("unknown aggregation {name}; expected mean or stack")),
        }
    }
}

/// Descriptors of the images of a split.
#[derive(Debug, Clone)]
pub struct Features {
    /// `[N, D]`.
    pub values: Array2<f32>,
    /// True classes.
    pub labels: Vec<u32>,
    /// Paths of the images, relative to the data set.
    pub paths: Vec<String>,
    /// Path and reason of each image that was skipped because it could not be decoded.
    pub skipped: Vec<String>,
    /// Settings of the descriptors.
    pub config: FeatureConfig,
    /// Hash of the network's weights file.
    pub weights: String,
    /// Names of the data set's classes.
    pub classes: Vec<String>,
    /// Hash of the split.
    pub dataset: String,
}

/// Computes the descriptors of a split, distributed over the ranks of `group`. Rank 0 gets all of them, the
/// others `None`. The part in `options` is ignored.
///
/// # Errors
/// [`crate::Error::Config`] if the model is not dense or a test scale is below its crop;
/// [`crate::Error::Network`] if there is no such layer; otherwise as [`crate::evaluate_on_ranks`].
pub fn features(
    group: &dyn ProcessGroup,
    model: &EvalModel,
    image_set: &Arc<ImageSet>,
    config: &FeatureConfig,
    options: EvaluateOptions,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Features>> {
    let columns = config.columns(model.dense_network()?)?;
    let views = config.views(model.spec().crop)?;
    same_on_all_ranks(group, &serde_json::json!([model.weights_hash, image_set.hash(), config]))?;
    let options = EvaluateOptions { part: rank_partition(group), ..options };
    let descriptors_of_batch = |images: &[Vec<Image>]| config.descriptors(model, images, &views);
    let own = EvalRecords::evaluate_part(
        image_set,
        &views,
        config.interpolation,
        options,
        progress,
        descriptors_of_batch,
    );
    let Some(mut rows) = EvalRecords::gather(own, group, image_set)? else { return Ok(None) };
    Ok(Some(Features {
        values: rows.take_values(columns)?,
        labels: rows.labels,
        paths: rows.paths,
        skipped: rows.skipped,
        config: config.clone(),
        weights: model.weights_hash.clone(),
        classes: image_set.classes().to_vec(),
        dataset: image_set.hash().as_str().to_owned(),
    }))
}

/// Computes the descriptor of one image.
///
/// # Errors
/// As [`features`].
pub fn image_features(model: &EvalModel, image: &Image, config: &FeatureConfig) -> Result<Array1<f32>> {
    let views = config.views(model.spec().crop)?;
    let view_pixels = apply_weighted_views(image, &views, config.interpolation)?;
    Ok(config.descriptors(model, &[view_pixels], &views)?.index_axis_move(Axis(0), 0))
}

impl FeatureConfig {
    fn views(&self, crop: usize) -> Result<Vec<WeightedView>> {
        let whole = Evaluation {
            protocol: Protocol::Dense,
            test_scales: self.test_scales.clone(),
            flip: self.flip,
            interpolation: self.interpolation,
            geometry: self.geometry,
            dense_pool: DensePool::ScoreMean,
            pool_rounding: None,
        };
        whole.views(crop)
    }

    /// Checks the settings against a network.
    ///
    /// # Errors
    /// [`crate::Error::Config`] if there are no test scales or one is below the network's crop;
    /// [`crate::Error::Network`] if there is no such layer.
    pub fn check(&self, network: &DenseNetwork) -> Result<()> {
        self.columns(network)?;
        self.views(network.spec().crop).map(drop)
    }

    /// Length of a descriptor.
    ///
    /// # Errors
    /// [`crate::Error::Network`] if the network has no such layer.
    pub fn columns(&self, network: &DenseNetwork) -> Result<usize> {
        let scales = if self.aggregate == Aggregate::Stack { self.test_scales.len() } else { 1 };
        Ok(scales * network.channels(&self.layer)?)
    }

    fn descriptors(
        &self,
        model: &EvalModel,
        images: &[Vec<Image>],
        views: &[WeightedView],
    ) -> Result<Array2<f32>> {
        let network = model.dense_network()?;
        let channels = network.channels(&self.layer)?;
        let stacked = self.aggregate == Aggregate::Stack;
        let mut sum = Array2::<f64>::zeros((images.len(), self.columns(network)?));
        let mut first = 0;
        while first < views.len() && !images.is_empty() {
            let same = run_length(&images[0], views, first);
            let x = model.upload(images, first..first + same)?;
            let means = ops::global_avg_pool2d(&network.activations(&x, &self.layer)?)?.to_vec();
            if !means.iter().all(|value| value.is_finite()) {
                return Err(Error::NotFinite("the activations of the layer"));
            }
            for (i, row) in means.chunks_exact(channels).enumerate() {
                let scale = self.scale_index(&views[first + i % same]);
                let at = if stacked { scale * channels } else { 0 };
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
                // A zero vector cannot be normalised.
                if length > 0.0 {
                    row.mapv_inplace(|v| v / length);
                }
            }
        }
        Ok(sum.mapv(|v| v as f32))
    }

    fn scale_index(&self, view: &WeightedView) -> usize {
        self.test_scales.iter().position(|side| *side == view.view.test_scale).unwrap_or(0)
    }
}

impl Features {
    /// Writes safetensors with `features` and `labels`, and with metadata `paths`, `skipped`, `config`,
    /// `weights`, `classes` and `dataset`, each a JSON value.
    ///
    /// # Errors
    /// [`crate::Error::File`] if the file cannot be written.
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
