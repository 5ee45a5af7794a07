//! Commands on posteriors files: `vgg fuse`, `vgg merge`, `vgg compare`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use vgg_error::printable;
use vgg_eval::{Comparison, ErrorReport, Evaluation, ModelProvenance, Origin, Posteriors, fuse, merge};

use super::overwrite::Overwrite;
use crate::console::out;

#[derive(Args)]
pub(crate) struct Fuse {
    /// Posteriors files of the same images, as written by `vgg evaluate --posteriors`.
    #[arg(required = true)]
    posteriors: Vec<PathBuf>,
    /// Output file for the mean posteriors.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    overwrite: Overwrite,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct Merge {
    /// Posteriors files of all parts of one evaluation.
    #[arg(required = true)]
    posteriors: Vec<PathBuf>,
    /// Output file.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    overwrite: Overwrite,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct Compare {
    /// Posteriors file of the first network.
    first: PathBuf,
    /// Posteriors file of the second network, on the same images.
    second: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Fuse {
    pub(crate) fn run(self) -> Result<()> {
        let to = self.out.as_deref().map(|out| (out, &self.overwrite));
        put_together(&self.posteriors, to, self.json, fuse)
    }
}

impl Merge {
    pub(crate) fn run(self) -> Result<()> {
        put_together(&self.posteriors, Some((&self.out, &self.overwrite)), self.json, merge)
    }
}

impl Compare {
    pub(crate) fn run(self) -> Result<()> {
        let (first, second) = (Posteriors::load(&self.first)?, Posteriors::load(&self.second)?);
        let [top1, top5] = [first.compare(&second, 1)?, first.compare(&second, 5)?];
        if self.json {
            let document =
                json!({ "first": first.errors(), "second": second.errors(), "top1": top1, "top5": top5 });
            writeln!(out(), "{}", serde_json::to_string_pretty(&document)?)?;
            return Ok(());
        }
        for (path, posteriors) in [(&self.first, &first), (&self.second, &second)] {
            say_networks(posteriors)?;
            writeln!(out(), "{}: {}", printable(path), errors_in_words(&posteriors.errors()))?;
        }
        for (name, comparison) in [("top-1", top1), ("top-5", top5)] {
            say(name, &comparison)?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Together<'a> {
    #[serde(flatten)]
    errors: ErrorReport,
    networks: &'a [ModelProvenance],
}

fn put_together(
    paths: &[PathBuf],
    to: Option<(&Path, &Overwrite)>,
    json: bool,
    how: fn(&[(&Path, &Posteriors)]) -> vgg_eval::Result<Posteriors>,
) -> Result<()> {
    let loaded = paths.iter().map(|path| Posteriors::load(path)).collect::<vgg_eval::Result<Vec<_>>>()?;
    let named: Vec<(&Path, &Posteriors)> = paths.iter().map(PathBuf::as_path).zip(&loaded).collect();
    let together = how(&named)?;
    if let Some((to, overwrite)) = to {
        let inputs: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        may_write(to, &inputs, &together.origin, overwrite)?;
        together.save(to)?;
    }
    if json {
        let document = Together { errors: together.errors(), networks: &together.origin.networks };
        writeln!(out(), "{}", serde_json::to_string_pretty(&document)?)?;
        return Ok(());
    }
    say_networks(&together)?;
    let words = errors_in_words(&together.errors());
    writeln!(out(), "{} images: {words}", together.labels.len())?;
    Ok(())
}

/// Refuses to overwrite anything but posteriors of the same networks, protocols, images and part without `--force`.
pub(super) fn may_write(path: &Path, inputs: &[&Path], origin: &Origin, overwrite: &Overwrite) -> Result<()> {
    overwrite.check_unless(path, inputs, || Posteriors::load(path).is_ok_and(|there| there.origin == *origin))
}

fn say_networks(posteriors: &Posteriors) -> std::io::Result<()> {
    for network in &posteriors.origin.networks {
        let weights: String = network.weights.chars().take(12).collect();
        writeln!(out(), "weights {weights}, {}", protocol(&network.evaluation))?;
    }
    Ok(())
}

fn say(name: &str, c: &Comparison) -> std::io::Result<()> {
    let percent = |share: f64| format!("{:+.2}", 100.0 * share);
    let [low, high] = c.interval;
    writeln!(
        out(),
        "{name} error: first minus second {} points (95 % interval {} to {}); {} images wrong only in the first, {} only \
         in the second; McNemar's exact test p = {}{}",
        percent(c.difference),
        percent(low),
        percent(high),
        c.only_first_wrong,
        c.only_second_wrong,
        if c.p_value < 0.001 { format!("{:.0e}", c.p_value) } else { format!("{:.3}", c.p_value) },
        if c.p_value < 0.05 { "" } else { ": not significant at the 5 % level" }
    )
}

pub(super) fn protocol(evaluation: &Evaluation) -> String {
    let sides = vgg_experiment::test_scales_text(&evaluation.test_scales);
    let flip = if evaluation.flip { ", with flips" } else { "" };
    let rounding =
        evaluation.pool_rounding.map_or(String::new(), |r| format!(", pooling rounds {r:?}").to_lowercase());
    format!("{}, Q = {sides}{flip}{rounding}", evaluation.protocol.name())
}

pub(super) fn errors_in_words(errors: &ErrorReport) -> String {
    let percent = |share: f64| format!("{:.2}", 100.0 * share);
    let [low, high] = errors.top1_ci.map(percent);
    let (top1, top5) = (percent(errors.top1_error), percent(errors.top5_error));
    format!("top-1 error {top1} % (95 % interval {low} to {high}), top-5 error {top5} %")
}
