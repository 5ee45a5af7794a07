//! `vgg evaluate`: errors under one protocol.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use vgg_data::ImageSet;
use vgg_eval::{
    EvaluateOptions, Evaluation, Network as NetworkOrigin, Origin, Posteriors, Preprocessing, Protocol,
    Shard, dump_views, evaluate, evaluate_on_ranks,
};

use super::options::{DeviceOptions, ViewOptions, check_classes};
use super::pass::{Found, Pass, Subject, expect_room};
use super::posteriors::{errors, errors_in_words, may_write, protocol};
use super::ranks::Ranks;
use crate::console::out;
use crate::exit::UsageError;

#[derive(Args)]
pub(crate) struct Evaluate {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    views: ViewOptions,
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
        let ranks = Ranks::join()?;
        ranks.work(|| self.evaluate(&ranks))
    }

    fn evaluate(&self, ranks: &Ranks) -> Result<ExitCode> {
        let whole = self.shard == Shard::default();
        if ranks.group().size() > 1 && !whole {
            let what = "leave --shard out: the ranks share the whole split out among them";
            return Err(UsageError(what.into()).into());
        }
        let device = self.device.open_among(ranks)?;
        let loaded = self.subject.network(&device)?;
        let metadata = loaded.metadata.clone();
        let evaluation = self.views.evaluation(Protocol::Dense, &metadata)?;
        let folder = self.subject.images()?;
        check_classes(&metadata, &folder)?;
        let prepared = evaluation.prepare(loaded.network)?;
        let weights = self.subject.weights_hash()?;
        if ranks.is_first() {
            self.may_write(&evaluation, weights.as_str(), &folder)?;
        }
        if let Some(dir) = self.dump_views.as_ref().filter(|_| ranks.is_first()) {
            dump_views(&folder, &evaluation, (metadata.spec.crop, self.shard), dir)?;
        }
        let preprocessing = Preprocessing::from(metadata.offset_and_scale());
        let (workers, on_bad_image) = (self.device.workers_among(ranks), self.subject.on_bad_image());
        let options = EvaluateOptions { workers, on_bad_image, shard: self.shard };
        let group = &**ranks.group();
        let part = if whole { Shard::of_rank(group) } else { self.shard };
        let model = (&prepared.model(), weights.as_str());
        let pass = Pass::new("evaluates", part.range(folder.len()).len(), ranks)?;
        let found = pass.go(&folder, |seen| match whole {
            true => evaluate_on_ranks(group, model, &folder, &evaluation, preprocessing, options, seen),
            false => evaluate(model, &folder, &evaluation, preprocessing, options, seen).map(Some),
        })?;
        let (posteriors, seconds) = match found {
            Found::Nothing(code) => return Ok(code),
            Found::All { what, seconds } => (what, seconds),
        };
        posteriors.skipped.iter().for_each(|bad| eprintln!("left out: {bad}"));
        if let Some(path) = &self.posteriors {
            posteriors.save(path)?;
        }
        let mut result = document(&evaluation, &posteriors);
        result["config"] = json!(metadata.spec.config);
        result["split"] = json!(self.subject.split.name());
        result["images_per_s"] = json!(posteriors.labels.len() as f64 / seconds);
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

    /// Whether the posteriors will find room, and nothing of another kind.
    fn may_write(&self, evaluation: &Evaluation, weights: &str, folder: &ImageSet) -> Result<()> {
        let Some(path) = &self.posteriors else { return Ok(()) };
        let network = NetworkOrigin { protocol: evaluation.clone(), weights: weights.to_owned() };
        let (classes, dataset) = (folder.classes().to_vec(), folder.hash().as_str().to_owned());
        let bytes = 4 * folder.len() * classes.len();
        may_write(path, &Origin { networks: vec![network], classes, dataset, shard: self.shard })?;
        expect_room(path, bytes)
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
