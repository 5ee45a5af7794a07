//! `vgg evaluate`: top-1 and top-5 error under one test protocol.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use vgg_data::ImageSet;
use vgg_eval::{
    EvalReport, EvaluateOptions, Evaluation, ModelProvenance, Origin, Partition, dump_views, evaluate,
    evaluate_on_ranks, match_classes, rank_partition,
};

use super::options::{DeviceOptions, ViewOptions};
use super::overwrite::Overwrite;
use super::pass::{DatasetPass, EvalArgs, PassResult, check_free_space};
use super::posteriors::{errors_in_words, may_write, protocol};
use super::ranks::Ranks;
use crate::console::{out, warning};
use crate::exit::UsageError;

#[derive(Args)]
pub(crate) struct Evaluate {
    #[command(flatten)]
    eval: EvalArgs,
    #[command(flatten)]
    views: ViewOptions,
    /// Evaluate only part i of n, such as 2/8; join the parts with `vgg merge`.
    #[arg(long, default_value = "1/1")]
    part: Partition,
    /// Output folder for the network's inputs: a PNG of every view, and views.json.
    #[arg(long)]
    dump_views: Option<PathBuf>,
    /// Output file for posteriors, labels and paths (safetensors).
    #[arg(long)]
    posteriors: Option<PathBuf>,
    #[command(flatten)]
    overwrite: Overwrite,
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
        let whole = self.part.is_whole();
        if ranks.group().size() > 1 && !whole {
            let what = "--part cannot be used on several ranks, which divide the split among themselves";
            return Err(UsageError(what.into()).into());
        }
        let device = self.device.open_among(ranks)?;
        let pretrained = self.eval.network(&device)?;
        let config = pretrained.metadata.spec.config.clone();
        let crop = pretrained.metadata.spec.crop;
        let evaluation = self.views.evaluation(&pretrained)?;
        let image_set = Arc::new(match_classes(&pretrained.metadata.classes, self.eval.images()?)?);
        let weights = pretrained.hash()?;
        let preprocessing = pretrained.preprocessing();
        let model = evaluation.prepare(pretrained.network, preprocessing, weights.as_str())?;
        if ranks.is_first() {
            self.may_write(&evaluation, weights.as_str(), &image_set)?;
        }
        let (workers, on_bad_image) = (self.device.workers_among(ranks), self.eval.on_bad_image());
        let options = EvaluateOptions { workers, on_bad_image, part: self.part };
        if let Some(dir) = self.dump_views.as_ref().filter(|_| ranks.is_first()) {
            dump_views(&image_set, &evaluation, crop, options, dir)?;
        }
        if self.part.range(image_set.len()).is_empty() {
            let what = format!("--part {} has no images: the split has {}", self.part, image_set.len());
            return Err(UsageError(what).into());
        }
        let group = &**ranks.group();
        let part = if whole { rank_partition(group) } else { self.part };
        let pass = DatasetPass::new("evaluating", part.range(image_set.len()).len(), ranks)?;
        let found = pass.go(&image_set, |seen| match whole {
            true => evaluate_on_ranks(group, &model, &image_set, &evaluation, options, seen),
            false => evaluate(&model, &image_set, &evaluation, options, seen).map(Some),
        })?;
        let (posteriors, seconds) = match found {
            PassResult::NoResult(code) => return Ok(code),
            PassResult::Result { what, seconds } => (what, seconds),
        };
        posteriors.skipped.iter().for_each(|bad| warning(&format!("skipped: {bad}")));
        if let Some(path) = &self.posteriors {
            posteriors.save(path)?;
        }
        let report = EvalReport {
            evaluation,
            errors: posteriors.errors(),
            config,
            split: self.eval.split.name().to_owned(),
            images_per_s: posteriors.labels.len() as f64 / seconds,
            weights: weights.as_str().to_owned(),
            dataset: image_set.hash().as_str().to_owned(),
            device: device.to_string(),
            ranks: ranks.group().size(),
        };
        if self.json {
            writeln!(out(), "{}", serde_json::to_string_pretty(&report)?)?;
        } else {
            print(&report)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn may_write(&self, evaluation: &Evaluation, weights: &str, image_set: &ImageSet) -> Result<()> {
        if let Some(dir) = &self.dump_views {
            self.overwrite.check(&dir.join("views.json"), &[])?;
        }
        let Some(path) = &self.posteriors else { return Ok(()) };
        let network = ModelProvenance { evaluation: evaluation.clone(), weights: weights.to_owned() };
        let (classes, dataset) = (image_set.classes().to_vec(), image_set.hash().as_str().to_owned());
        let bytes = 4 * image_set.len() * classes.len();
        may_write(
            path,
            &[self.eval.weights()],
            &Origin { networks: vec![network], classes, dataset, part: self.part },
            &self.overwrite,
        )?;
        check_free_space(path, bytes)
    }
}

fn print(report: &EvalReport) -> std::io::Result<()> {
    let n = report.errors.n;
    writeln!(out(), "config {}, {}: {n} images", report.config, protocol(&report.evaluation))?;
    writeln!(out(), "{}, {:.1} images/s", errors_in_words(&report.errors), report.images_per_s)
}
