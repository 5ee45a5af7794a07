//! `vgg data inspect` and `verify`: contents and integrity of a data set.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use vgg_data::{Encoding, ImageSet, SplitManifest, verify};
use vgg_error::printable;

use crate::commands::data_options::{ImageOptions, open_split};
use crate::console::{Progress, out, warning};

#[derive(Args)]
pub(crate) struct Inspect {
    /// Data set: a prepared one, or a folder with train/<class>/* and val/<class>/*.
    dataset: PathBuf,
    #[command(flatten)]
    image: ImageOptions,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// Prepared data set.
    dataset: PathBuf,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<()> {
        let splits = ImageSet::splits_in(&self.dataset)?;
        let splits = splits
            .into_iter()
            .map(|split| open_split(&self.dataset, split, &self.image))
            .collect::<Result<Vec<_>>>()?;
        if self.json { print_json(&self.dataset, &splits) } else { print(&splits) }
    }
}

fn print_json(dataset: &Path, splits: &[ImageSet]) -> Result<()> {
    let tell = |set: &ImageSet| {
        let (statistics, own) = (set.statistics(), set.split_manifest());
        json!({
            "split": set.split(), "images": set.len(), "of_class": set.class_counts(), "ignored": set.ignored(),
            "hash": set.hash(), "mean_rgb": statistics.map(|s| s.mean()),
            "covariance": statistics.map(|s| s.covariance()),
            "eigenvalues": own.map(|own| own.eigenvalues), "eigenvectors": own.map(|own| own.eigenvectors),
            "shards": own.map(|own| &own.shards), "smallest_sides": own.map(|own| &own.smallest_sides), "anomalies": own.map(|own| &own.anomalies),
            "skipped": own.map(|own| &own.skipped), "missing": own.map(|own| &own.missing),
        })
    };
    let of_splits: Vec<_> = splits.iter().map(tell).collect();
    let prepared = splits[0].manifest().is_some();
    let classes = splits[0].classes();
    let encoding = splits[0].manifest().map(|manifest| manifest.encoding);
    let document = json!({
        "dataset": printable(dataset).to_string(), "prepared": prepared, "encoding": encoding, "classes": classes, "splits": of_splits,
    });
    Ok(writeln!(out(), "{document:#}")?)
}

fn print(splits: &[ImageSet]) -> Result<()> {
    let mut to = out();
    match splits[0].manifest() {
        Some(manifest) => {
            let side = manifest.smallest_side.map_or("unchanged".into(), |side| format!("at most {side}"));
            let encoding = match manifest.encoding {
                Encoding::Jpeg { quality } => format!("JPEG of quality {quality}, or copied unchanged"),
                Encoding::Raw => "raw pixels".into(),
            };
            writeln!(to, "prepared from {}; smallest sides {side}; {encoding}", manifest.source)?;
        }
        None => writeln!(to, "class folders")?,
    }
    for set in splits {
        let counts = set.class_counts();
        let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
        let (name, images, classes) = (set.split().name(), set.len(), counts.len());
        writeln!(to, "{name}: {images} images in {classes} classes, {least} to {most} per class")?;
        if let Some(statistics) = set.statistics() {
            let mean = statistics.mean().map(|m| format!("{m:.3}")).join(", ");
            writeln!(to, "  mean RGB (0..255): {mean}")?;
        }
        if let Some(own) = set.split_manifest() {
            let axes = own.eigenvalues.map(|value| format!("{:.2}", value.max(0.0).sqrt())).join(", ");
            writeln!(to, "  standard deviations along the PCA colour axes: {axes}")?;
            let bytes: u64 = own.shards.iter().map(|shard| shard.bytes).sum();
            writeln!(to, "  {} shards, {:.1} MiB", own.shards.len(), bytes as f64 / f64::from(1 << 20))?;
            print_sizes(&mut to, own)?;
            print_odd(&mut to, own)?;
        }
        if set.ignored() > 0 {
            writeln!(to, "  {} files ignored: not images", set.ignored())?;
        }
        writeln!(to, "  hash {}", set.hash())?;
    }
    Ok(())
}

fn print_sizes(to: &mut impl Write, split: &SplitManifest) -> Result<()> {
    const WIDEST: u64 = 40;
    let rows = split.size_histogram();
    let most = rows.iter().map(|row| row.images).max().unwrap_or(0).max(1);
    writeln!(to, "  smallest sides of the source images:")?;
    for row in rows {
        let range = match row.end {
            Some(end) => format!("{} to {}", row.start, end - 1),
            None => format!("{} or more", row.start),
        };
        let bar = "#".repeat((row.images * WIDEST).div_ceil(most) as usize);
        writeln!(to, "{}", format!("    {range:>12} {:>9}  {bar}", row.images).trim_end())?;
    }
    Ok(())
}

fn print_odd(to: &mut impl Write, split: &SplitManifest) -> Result<()> {
    let mut kinds = BTreeMap::<&str, usize>::new();
    split.anomalies.iter().for_each(|odd| *kinds.entry(&odd.what).or_default() += 1);
    for (what, count) in kinds {
        writeln!(to, "  {count} unusual: {what}")?;
    }
    for (what, count) in [("skipped", split.skipped.len()), ("incomplete classes", split.missing.len())] {
        if count > 0 {
            writeln!(to, "  {count} {what}; listed with --json")?;
        }
    }
    Ok(())
}

impl Verify {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut progress = Progress::new("verifying", 0);
        let found = verify(&self.dataset, &mut |bytes| {
            progress.at(bytes, || format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)));
        })?;
        drop(progress);
        writeln!(out(), "{} images in {} shards", found.images, found.shards)?;
        if found.problems.is_empty() {
            writeln!(out(), "all hashes and counts match")?;
            return Ok(ExitCode::SUCCESS);
        }
        for problem in &found.problems {
            warning(&format!("error: {problem}"));
        }
        Ok(ExitCode::from(crate::exit::BAD_DATA))
    }
}
