//! `vgg evaluate`: errors under one protocol.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use vgg_data::{Folder, OnBadImage, Split};
use vgg_eval::{EvaluateOptions, Preprocessing, Protocol, evaluate};
use vgg_layers::Config;

use super::options::{DeviceOptions, ViewOptions, check_classes, load_weights, say_misnamed, workers};
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
        let interrupt = Interrupt::listen()?;
        let device = self.device.open()?;
        let loaded = load_weights(&self.weights, self.config, &device)?;
        let metadata = loaded.metadata.clone();
        let evaluation = self.views.evaluation(Protocol::Dense, &metadata)?;
        let folder = Arc::new(Folder::open(&self.dataset, self.split)?);
        check_classes(&metadata, &folder)?;
        let prepared = self.views.prepare(&evaluation, loaded)?;
        let (offset, scale) = metadata.offset_and_scale();
        let on_bad_image = if self.skip_bad_images { OnBadImage::Skip } else { OnBadImage::Stop };
        let options = EvaluateOptions { workers: workers(), on_bad_image };
        let mut progress = Progress::new("evaluates", folder.len() as u64);
        let start = Instant::now();
        let mut seen = |done: usize| {
            let speed = done as f64 / start.elapsed().as_secs_f64();
            progress.at(done as u64, || format!("{done} images, {speed:.1} images/s"));
            if interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let preprocessing = Preprocessing { offset, scale };
        let result = evaluate(&prepared.model(), &folder, &evaluation, preprocessing, options, &mut seen);
        let posteriors = match result {
            Err(vgg_eval::Error::Interrupted) => {
                eprintln!("interrupted; nothing was written");
                return Ok(interrupt.exit_code().into());
            }
            other => other?,
        };
        let images_per_s = posteriors.labels.len() as f64 / start.elapsed().as_secs_f64();
        drop(progress);
        posteriors.skipped.iter().for_each(|bad| eprintln!("left out: {bad}"));
        say_misnamed(&folder);
        let weights = vgg_files::hash_file(&self.weights)?;
        if let Some(path) = &self.posteriors {
            posteriors.save(path, &evaluation, weights.as_str(), folder.hash().as_str())?;
        }
        let (top1, top5) = (posteriors.top1_error(), posteriors.top5_error());
        let [low, high] = top1.interval();
        let result = json!({
            "protocol": evaluation.protocol.name(),
            "test_sides": evaluation.test_sides,
            "flip": evaluation.flip,
            "filter": evaluation.filter,
            "dense_pool": evaluation.dense_pool,
            "config": metadata.spec.config,
            "split": self.split.name(),
            "n": top1.n,
            "skipped": posteriors.skipped.len(),
            "top1_error": top1.rate(),
            "top5_error": top5.rate(),
            "top1_ci": [low, high],
            "top5_ci": top5.interval(),
            "loss": posteriors.loss(),
            "images_per_s": images_per_s,
            "weights": weights,
            "dataset": folder.hash(),
            "device": device.describe(),
        });
        if self.json {
            writeln!(out(), "{}", serde_json::to_string_pretty(&result)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let sides = evaluation.test_sides.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let flip = if evaluation.flip { ", with flips" } else { "" };
        writeln!(
            out(),
            "config {}, {}, Q = {sides}{flip}: {} images",
            metadata.spec.config,
            evaluation.protocol.name(),
            top1.n
        )?;
        writeln!(
            out(),
            "top-1 error {:.2} % (95 % interval {:.2} to {:.2}), top-5 error {:.2} %, {images_per_s:.1} images/s",
            100.0 * top1.rate(),
            100.0 * low,
            100.0 * high,
            100.0 * top5.rate()
        )?;
        Ok(ExitCode::SUCCESS)
    }
}
