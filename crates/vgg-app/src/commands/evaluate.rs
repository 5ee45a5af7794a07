//! `vgg evaluate`: errors under one protocol.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use vgg_data::{ImageSet, OnBadImage, Split};
use vgg_eval::{
    EvaluateOptions, Evaluation, Network as NetworkOrigin, Origin, Posteriors, Preprocessing, Protocol,
    Shard, dump_views, evaluate, evaluate_on_ranks,
};
use vgg_layers::Config;

use super::options::{DeviceOptions, ViewOptions, check_classes, load_weights, say_misnamed};
use super::posteriors::{errors, errors_in_words, may_write, protocol};
use super::ranks::Ranks;
use crate::console::{Interrupt, Progress, out};

#[derive(Args)]
pub(crate) struct Evaluate {
    /// Weights file.
    #[arg(long)]
    weights: PathBuf,
    /// The configuration that it must hold.
    #[arg(long)]
    config: Option<Config>,
    /// Data set: a folder with train/<class>/* and val/<class>/*.
    #[arg(long)]
    dataset: PathBuf,
    /// train or val.
    #[arg(long, default_value = "val")]
    split: Split,
    #[command(flatten)]
    views: ViewOptions,
    /// Leave images that cannot be decoded out, and list them, instead of stopping.
    #[arg(long)]
    skip_bad_images: bool,
    /// Part i/n of the data set, such as 2/8; `vgg merge` puts the parts together.
    #[arg(long, default_value = "1/1")]
    shard: Shard,
    /// Folder to write what the network is shown to: a PNG for every view, and views.json.
    #[arg(long)]
    dump_views: Option<PathBuf>,
    /// File to write posteriors, labels and paths to (safetensors).
    #[arg(long)]
    posteriors: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Evaluate {
    pub(crate) fn run(self) -> Result<ExitCode> {
        if let Some(path) = self.posteriors.as_deref().filter(|path| path.exists()) {
            Posteriors::load(path)?;
        }
        // Whoever names a shard shares the split out without us.
        let ranks = if self.shard == Shard::default() { Ranks::join()? } else { Ranks::alone() };
        ranks.work(|| self.evaluate(&ranks))
    }

    fn evaluate(&self, ranks: &Ranks) -> Result<ExitCode> {
        let interrupt = Interrupt::listen()?;
        let device = self.device.open_among(ranks)?;
        let loaded = load_weights(&self.weights, self.config, &device)?;
        let metadata = loaded.metadata.clone();
        let evaluation = self.views.evaluation(Protocol::Dense, &metadata)?;
        let folder = Arc::new(ImageSet::open(&self.dataset, self.split)?);
        check_classes(&metadata, &folder)?;
        let prepared = evaluation.prepare(loaded.network)?;
        let preprocessing = Preprocessing::from(metadata.offset_and_scale());
        let on_bad_image = if self.skip_bad_images { OnBadImage::Skip } else { OnBadImage::Stop };
        let workers = self.device.workers_among(ranks);
        let options = EvaluateOptions { workers, on_bad_image, shard: self.shard };
        let weights = vgg_files::hash_file(&self.weights)?;
        if let Some(path) = &self.posteriors {
            let network = NetworkOrigin { protocol: evaluation.clone(), weights: weights.to_string() };
            let (classes, dataset) = (folder.classes().to_vec(), folder.hash().as_str().to_owned());
            may_write(path, &Origin { networks: vec![network], classes, dataset, shard: self.shard })?;
        }
        if let Some(dir) = self.dump_views.as_ref().filter(|_| ranks.is_first()) {
            dump_views(&folder, &evaluation, (metadata.spec.crop, self.shard), dir)?;
        }
        let all = self.shard.range(folder.len()).len();
        let images = Shard::of_rank(&**ranks.group()).range(all).len();
        let mut progress = Progress::new("evaluates", images as u64);
        let start = Instant::now();
        let mut seen = |done: usize| {
            let speed = done as f64 / start.elapsed().as_secs_f64();
            progress.at(done as u64, || format!("{done} images, {speed:.1} images/s"));
            if interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let model = (&prepared.model(), weights.as_str());
        let result = match ranks.group() {
            group if group.size() > 1 => {
                evaluate_on_ranks(&**group, model, &folder, &evaluation, preprocessing, options, &mut seen)
            }
            _ => evaluate(model, &folder, &evaluation, preprocessing, options, &mut seen),
        };
        let posteriors = match result {
            Err(vgg_eval::Error::Interrupted) => {
                return ranks.interrupted(&interrupt, "interrupted; nothing was written");
            }
            other => other?,
        };
        let images_per_s = posteriors.labels.len() as f64 / start.elapsed().as_secs_f64();
        drop(progress);
        say_misnamed(&folder);
        if !ranks.is_first() {
            return Ok(ExitCode::SUCCESS);
        }
        posteriors.skipped.iter().for_each(|bad| eprintln!("left out: {bad}"));
        if let Some(path) = &self.posteriors {
            posteriors.save(path)?;
        }
        let mut result = document(&evaluation, &posteriors);
        result["config"] = json!(metadata.spec.config);
        result["split"] = json!(self.split.name());
        result["images_per_s"] = json!(images_per_s);
        result["weights"] = json!(weights);
        result["dataset"] = json!(folder.hash());
        result["device"] = json!(device.describe());
        result["ranks"] = json!(ranks.group().size());
        if self.json {
            writeln!(out(), "{}", serde_json::to_string_pretty(&result)?)?;
        } else {
            say(&result, &evaluation)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The protocol and what it came to; errors are fractions.
fn document(evaluation: &Evaluation, posteriors: &Posteriors) -> Value {
    let mut document = errors(posteriors);
    document["protocol"] = json!(evaluation.protocol.name());
    document["test_sides"] = json!(evaluation.test_sides);
    document["flip"] = json!(evaluation.flip);
    document["filter"] = json!(evaluation.filter);
    document["dense_pool"] = json!(evaluation.dense_pool);
    document["pool_rounding"] = json!(evaluation.pool_rounding);
    document
}

/// The same for people.
fn say(result: &Value, evaluation: &Evaluation) -> std::io::Result<()> {
    let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
    let (config, what, n) = (text("config"), protocol(evaluation), &result["n"]);
    writeln!(out(), "config {config}, {what}: {n} images")?;
    let images_per_s = result["images_per_s"].as_f64().unwrap_or(f64::NAN);
    writeln!(out(), "{}, {images_per_s:.1} images/s", errors_in_words(result))
}
