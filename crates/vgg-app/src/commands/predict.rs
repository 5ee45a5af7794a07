//! `vgg predict`: classes of image files.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use vgg_data::{decode, imagenet, misnamed, write_png};
use vgg_eval::{Prepared, Preprocessing, Protocol, classify, score_map};

use super::options::{DeviceOptions, ViewOptions, load_weights};

use crate::console::out;
use crate::exit::UsageError;

#[derive(Args)]
pub(crate) struct Predict {
    /// Weights file.
    #[arg(long)]
    weights: PathBuf,
    /// Images: JPEG or PNG, whatever their names.
    #[arg(required = true)]
    images: Vec<PathBuf>,
    #[command(flatten)]
    views: ViewOptions,
    /// Picture to draw where in the image the network sees its first answer: yellow where the class is likely, blue where
    /// not. Of one image, by the dense network at the first test side.
    #[arg(long)]
    score_map: Option<PathBuf>,
    /// How many classes to name for each image.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Predict {
    pub(crate) fn run(self) -> Result<()> {
        let device = self.device.open()?;
        let loaded = load_weights(&self.weights, None, &device)?;
        let metadata = loaded.metadata.clone();
        let evaluation = self.views.evaluation(Protocol::Dense, &metadata)?;
        let prepared = evaluation.prepare(loaded.network)?;
        if self.score_map.is_some() && (self.images.len() != 1 || matches!(prepared, Prepared::Classic(_))) {
            let what = "--score-map takes one image and a protocol with whole images: dense or combined";
            return Err(UsageError(what.into()).into());
        }
        if let Some(path) = self.score_map.as_deref().filter(|p| p.extension().is_none_or(|e| e != "png")) {
            return Err(
                UsageError(format!("--score-map writes PNG; {} ends otherwise", path.display())).into()
            );
        }
        let preprocessing = Preprocessing::from(metadata.offset_and_scale());
        let mut documents = Vec::new();
        for path in &self.images {
            let bytes = vgg_files::read_bytes(path)?;
            let image = decode(&bytes, path)?;
            if let Some(format) = misnamed(&bytes, path) {
                eprintln!("note: {} is {format}, whatever its name says", path.display());
            }
            let posterior =
                classify(&prepared.model(), &image, &evaluation, preprocessing).map_err(|e| match e {
                    vgg_eval::Error::Data(e) => vgg_eval::Error::Data(e.of_image(path)),
                    other => other,
                })?;
            let mut order: Vec<usize> = (0..posterior.len()).collect();
            order.sort_by(|a, b| posterior[*b].total_cmp(&posterior[*a]));
            if let Some(to) = &self.score_map {
                let picture = score_map(&prepared.model(), &image, &evaluation, preprocessing, order[0])?;
                write_png(to, &picture)?;
            }
            order.truncate(usize::from(self.top));
            let classes = order.into_iter().map(|class| {
                let id = &metadata.classes[class];
                json!({ "class": class, "id": id, "name": imagenet::words(id).unwrap_or(id), "posterior": posterior[class] })
            });
            documents.push(json!({ "path": path, "predictions": classes.collect::<Vec<_>>() }));
            if let Some(document) = documents.last().filter(|_| !self.json) {
                print(document)?;
            }
        }
        if self.json {
            writeln!(out(), "{}", serde_json::to_string_pretty(&documents)?)?;
        }
        Ok(())
    }
}

fn print(document: &serde_json::Value) -> Result<()> {
    writeln!(out(), "{}", document["path"].as_str().unwrap_or_default())?;
    for p in document["predictions"].as_array().into_iter().flatten() {
        let percent = 100.0 * p["posterior"].as_f64().unwrap_or_default();
        writeln!(out(), "  {percent:6.2} %  {}", p["name"].as_str().unwrap_or_default())?;
    }
    Ok(())
}
