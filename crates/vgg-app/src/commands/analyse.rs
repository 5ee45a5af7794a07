//! `vgg analyse`: per-class errors, confusions and mistakes.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vgg_error::printable;
use vgg_eval::{Analysis, Posteriors};

use super::overwrite::Overwrite;
use super::posteriors::errors_in_words;
use crate::console::{out, print_table};

const WORST: usize = 10;

#[derive(Args)]
pub(crate) struct Analyse {
    /// Posteriors file, as written by `vgg evaluate --posteriors`.
    posteriors: PathBuf,
    /// Output folder for classes.csv, confusion.csv, confusion.png and mistakes.csv.
    #[arg(long)]
    out: PathBuf,
    /// Data set of the posteriors, to draw the most confident mistakes to mistakes.png.
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// Maximum number of images in mistakes.png.
    #[arg(long, default_value_t = 36)]
    mistakes: usize,
    #[command(flatten)]
    overwrite: Overwrite,
}

impl Analyse {
    pub(crate) fn run(self) -> Result<()> {
        for name in Analysis::FILES {
            self.overwrite.check(&self.out.join(name), &[&self.posteriors])?;
        }
        let posteriors = Posteriors::load(&self.posteriors)?;
        let analysis = Analysis::new(&posteriors)?;
        // Draw the sheet first: if that fails, nothing is written.
        let sheet = match &self.dataset {
            Some(dataset) => analysis.mistakes_sheet(dataset, self.mistakes)?,
            None => None,
        };
        let written = analysis.write(&self.out, sheet.as_ref())?;
        writeln!(out(), "{} images: {}", posteriors.labels.len(), errors_in_words(&posteriors.errors()))?;
        print_worst(&analysis)?;
        writeln!(out(), "{}: wrote {}", printable(&self.out), written.join(", "))?;
        Ok(())
    }
}

fn print_worst(analysis: &Analysis) -> Result<()> {
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let rows = analysis.worst_classes(WORST).into_iter().map(|i| {
        let (name, top1, top5) =
            (&analysis.class_names[i], analysis.classes[i].top1, analysis.classes[i].top5);
        let [low, high] = top1.interval();
        let interval = format!("{} to {}", percent(low), percent(high));
        vec![name.clone(), top1.n.to_string(), percent(top1.rate()), interval, percent(top5.rate())]
    });
    let head = ["worst classes", "images", "top-1 error, %", "95 % interval", "top-5, %"].map(str::to_owned);
    Ok(print_table(&head, &rows.collect::<Vec<_>>())?)
}
