//! `vgg predict`: the most likely classes of image files.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use vgg::{Classifier, Prediction};
use vgg_data::{OnBadImage, decode_with, misnamed, read_image, write_png};
use vgg_error::printable;

use super::data_options::ImageOptions;
use super::options::{DeviceOptions, ViewOptions, choice, open_weights};
use super::overwrite::Overwrite;
use crate::console::{note, out, warning};
use crate::exit::{self, UsageError};

#[derive(Args)]
pub(crate) struct Predict {
    /// Weights file.
    #[arg(long)]
    weights: PathBuf,
    /// Images: JPEG, PNG, WebP, TIFF, BMP, GIF or PNM; the extension does not matter.
    #[arg(required = true)]
    images: Vec<PathBuf>,
    #[command(flatten)]
    views: ViewOptions,
    /// Output PNG with the dense score map of the top class, yellow where likely, of one image at the first
    /// test scale.
    #[arg(long)]
    score_map: Option<PathBuf>,
    /// Number of classes to print per image.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    image: ImageOptions,
    /// Exit code if an image cannot be read: stop exits 65 or 66 after the other images are classified, skip 0.
    #[arg(long, default_value = "stop", value_parser = choice(&OnBadImage::ALL))]
    on_bad_image: OnBadImage,
    #[command(flatten)]
    overwrite: Overwrite,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Predict {
    /// Classifies all images; one that cannot be read is reported, and sets the exit code.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let device = self.device.open()?;
        let network = open_weights(&self.weights, None, &device)?;
        let evaluation = self.views.evaluation(&network)?;
        let classifier =
            Classifier::new(network, evaluation)?.with_decode_options(self.image.decode_options());
        self.check_score_map(&classifier)?;
        let mut documents = Vec::new();
        let mut code = ExitCode::SUCCESS;
        for path in &self.images {
            let result = self.classify(&classifier, path);
            if let Err(error) = &result {
                let skip = self.on_bad_image == OnBadImage::Skip;
                let word = if skip { "skipped" } else { "error" };
                warning(&format!("{word}: {}", exit::message(error)));
                if code == ExitCode::SUCCESS && !skip {
                    code = exit::code(error).into();
                }
            }
            if self.json {
                documents.push(Document::new(path, result));
            } else if let Ok(predictions) = result {
                print(path, &predictions)?;
            }
        }
        if self.json {
            writeln!(out(), "{}", serde_json::to_string_pretty(&documents)?)?;
        }
        Ok(code)
    }

    fn classify(&self, classifier: &Classifier, path: &Path) -> Result<Vec<Prediction>> {
        let bytes = read_image(path)?;
        if let Some(format) = misnamed(&bytes, path) {
            note(&format!("note: {} is a {format} file despite its extension", printable(path)));
        }
        let mut predictions = classifier.classify_bytes(&bytes, path)?;
        if let Some(to) = &self.score_map {
            let image = decode_with(&bytes, path, &self.image.decode_options())?;
            write_png(to, &classifier.score_map(&image, predictions[0].class)?)?;
        }
        predictions.truncate(usize::from(self.top));
        Ok(predictions)
    }

    fn check_score_map(&self, classifier: &Classifier) -> Result<()> {
        let Some(path) = &self.score_map else { return Ok(()) };
        if self.images.len() != 1 || !classifier.has_score_map() {
            let what = "--score-map needs exactly one image and --protocol dense or combined";
            return Err(UsageError(what.into()).into());
        }
        if path.extension().is_none_or(|extension| extension != "png") {
            let what = format!("--score-map writes PNG; {} does not end in .png", printable(path));
            return Err(UsageError(what).into());
        }
        let mut inputs: Vec<&Path> = self.images.iter().map(PathBuf::as_path).collect();
        inputs.push(&self.weights);
        self.overwrite.check(path, &inputs)
    }
}

#[derive(Serialize)]
struct Document {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    predictions: Option<Vec<Prediction>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Document {
    fn new(path: &Path, result: Result<Vec<Prediction>>) -> Document {
        let error = result.as_ref().err().map(exit::message);
        Document { path: printable(path).to_string(), predictions: result.ok(), error }
    }
}

fn print(path: &Path, predictions: &[Prediction]) -> Result<()> {
    writeln!(out(), "{}", printable(path))?;
    for prediction in predictions {
        writeln!(out(), "  {:6.2} %  {}", 100.0 * prediction.posterior, prediction.name)?;
    }
    Ok(())
}
