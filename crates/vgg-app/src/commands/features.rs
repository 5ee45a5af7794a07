//! `vgg features`: image descriptors from a layer, for classifiers of other data sets (appendix B).

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use vgg_data::Interpolation;
use vgg_error::printable;
use vgg_eval::{
    Aggregate, EvalModel, EvaluateOptions, FeatureConfig, Features as ExtractedFeatures, Partition, features,
    rank_partition,
};
use vgg_files::TensorFile;

use super::options::{DeviceOptions, GeometryOption, test_scale, test_scales};
use super::overwrite::Overwrite;
use super::pass::{DatasetPass, EvalArgs, PassResult, check_free_space};
use super::ranks::Ranks;
use crate::console::{out, warning};

#[derive(Args)]
pub(crate) struct Features {
    #[command(flatten)]
    eval: EvalArgs,
    /// Layer, averaged over positions after its ReLU: fc7, fc6, pool5 or another that `vgg summary` lists.
    #[arg(long, default_value = "fc7")]
    layer: String,
    /// Test scales, such as 256,384,512. Default: the training scale, or the middle of its jitter.
    #[arg(long, value_delimiter = ',', value_parser = test_scale)]
    test_scales: Vec<usize>,
    /// Average the descriptors of the image and its horizontal flip.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    flip: bool,
    /// Interpolation: bilinear, bicubic, lanczos or nearest.
    #[arg(long, default_value = "bilinear")]
    interpolation: Interpolation,
    #[command(flatten)]
    geometry: GeometryOption,
    /// How to combine scales: mean (average) or stack (concatenate).
    #[arg(long, default_value = "mean")]
    aggregate: Aggregate,
    /// Scale descriptors to unit L2 norm.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    l2_normalise: bool,
    /// Output file for features, labels and paths (safetensors).
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    overwrite: Overwrite,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Features {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let ranks = Ranks::join()?;
        ranks.work(|| self.extract(&ranks))
    }

    fn extract(&self, ranks: &Ranks) -> Result<ExitCode> {
        let device = self.device.open_among(ranks)?;
        let pretrained = self.eval.network_up_to(&self.layer, &device)?;
        let config = FeatureConfig {
            layer: self.layer.clone(),
            test_scales: test_scales(&self.test_scales, &pretrained)?,
            flip: self.flip,
            interpolation: self.interpolation,
            geometry: self.geometry.geometry(&pretrained),
            aggregate: self.aggregate,
            l2_normalise: self.l2_normalise,
        };
        let weights = pretrained.hash()?;
        let preprocessing = pretrained.preprocessing();
        let network = pretrained.network.into_fully_convolutional()?;
        config.check(&network)?;
        let image_set = Arc::new(self.eval.images()?);
        if ranks.is_first() {
            self.may_write(&config, weights.as_str(), image_set.hash().as_str())?;
            check_free_space(&self.out, 4 * image_set.len() * config.columns(&network)?)?;
        }
        let (workers, on_bad_image) = (self.device.workers_among(ranks), self.eval.on_bad_image());
        let options = EvaluateOptions { workers, on_bad_image, part: Partition::WHOLE };
        let group = &**ranks.group();
        let model = EvalModel::dense(network, preprocessing, weights.as_str());
        let pass = DatasetPass::new("features", rank_partition(group).range(image_set.len()).len(), ranks)?;
        let found =
            pass.go(&image_set, |seen| features(group, &model, &image_set, &config, options, seen))?;
        let (found, seconds) = match found {
            PassResult::NoResult(code) => return Ok(code),
            PassResult::Result { what, seconds } => (what, seconds),
        };
        found.skipped.iter().for_each(|bad| warning(&format!("skipped: {bad}")));
        found.save(&self.out)?;
        self.say(&found, found.labels.len() as f64 / seconds)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Refuses to overwrite anything but the same features without `--force`.
    fn may_write(&self, config: &FeatureConfig, weights: &str, dataset: &str) -> Result<()> {
        let expected = [("config", json!(config)), ("weights", json!(weights)), ("dataset", json!(dataset))];
        self.overwrite.check_unless(&self.out, &[self.eval.weights()], || {
            TensorFile::open(&self.out).is_ok_and(|there| {
                let there = there.metadata();
                let value = |key: &str| serde_json::from_str::<serde_json::Value>(there.get(key)?).ok();
                expected.iter().all(|(key, expected)| value(key).as_ref() == Some(expected))
            })
        })
    }

    fn say(&self, found: &ExtractedFeatures, images_per_s: f64) -> Result<()> {
        let (n, d) = found.values.dim();
        if self.json {
            let what = json!({
                "n": n,
                "length": d,
                "config": found.config,
                "skipped": found.skipped.len(),
                "images_per_s": images_per_s,
                "weights": found.weights,
                "dataset": found.dataset,
                "out": self.out,
            });
            writeln!(out(), "{}", serde_json::to_string_pretty(&what)?)?;
        } else {
            let (layer, path) = (&found.config.layer, printable(&self.out));
            writeln!(out(), "{path}: {layer} of {n} images, {d} values each, {images_per_s:.1} images/s")?;
        }
        Ok(())
    }
}
