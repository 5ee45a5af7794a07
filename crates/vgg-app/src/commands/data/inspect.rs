//! `vgg data inspect` and `verify`: what a data set is, and whether a prepared one is still what it was.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use vgg_data::{INDEX_FILE, ImageSet, Manifest, Split, verify};

use crate::console::{Progress, out};

#[derive(Args)]
pub(crate) struct Inspect {
    /// Data set: a prepared one, or a folder with train/<class>/* and val/<class>/*.
    dataset: PathBuf,
    /// Print one JSON document.
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
        let prepared = self.dataset.join(INDEX_FILE);
        let manifest: Option<Manifest> =
            if prepared.is_file() { Some(vgg_files::read_json(&prepared)?) } else { None };
        let mut splits = Vec::new();
        for split in [Split::Train, Split::Val] {
            let there = match &manifest {
                Some(manifest) => manifest.splits.contains_key(&split),
                None => split == Split::Train || self.dataset.join(split.name()).is_dir(),
            };
            if there {
                splits.push(ImageSet::open(&self.dataset, split)?);
            }
        }
        let of_class = |set: &ImageSet| {
            let mut counts = vec![0_u64; set.classes().len()];
            (0..set.len()).for_each(|i| counts[set.target(i) as usize] += 1);
            counts
        };
        if self.json {
            let tell = |set: &ImageSet| {
                let counts = of_class(set);
                let statistics = set.statistics();
                json!({
                    "split": set.split(), "images": set.len(), "of_class": counts, "ignored": set.ignored(), "hash": set.hash(),
                    "mean_rgb": statistics.map(|s| s.mean()), "covariance": statistics.map(|s| s.covariance()),
                })
            };
            let splits: Vec<_> = splits.iter().map(tell).collect();
            let classes = manifest.as_ref().map(|m| m.classes.clone());
            let document = json!({ "dataset": self.dataset, "prepared": manifest.is_some(), "classes": classes, "splits": splits });
            writeln!(out(), "{document:#}")?;
            return Ok(());
        }
        let mut to = out();
        match &manifest {
            Some(manifest) => {
                let side =
                    manifest.smallest_side.map_or("of their own".into(), |side| format!("at most {side}"));
                writeln!(to, "prepared from {}; smallest sides {side}", manifest.source)?;
            }
            None => writeln!(to, "class folders")?,
        }
        for set in &splits {
            let counts = of_class(set);
            let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
            let (name, images, classes) = (set.split().name(), set.len(), counts.len());
            writeln!(to, "{name}: {images} images of {classes} classes, {least} to {most} of a class")?;
            if let Some(statistics) = set.statistics() {
                let mean = statistics.mean().map(|m| format!("{m:.3}")).join(", ");
                writeln!(to, "  mean RGB of 0..255: {mean}")?;
            }
            if set.ignored() > 0 {
                writeln!(to, "  {} files are no JPEG or PNG images", set.ignored())?;
            }
            writeln!(to, "  hash {}", set.hash())?;
        }
        Ok(())
    }
}

impl Verify {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut progress = Progress::new("verifies", 0);
        let found = verify(&self.dataset, &mut |bytes| {
            progress.at(bytes, || format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)));
        })?;
        drop(progress);
        writeln!(out(), "{} images in {} shards", found.images, found.shards)?;
        if found.problems.is_empty() {
            writeln!(out(), "all hashes and counts hold")?;
            return Ok(ExitCode::SUCCESS);
        }
        for problem in &found.problems {
            eprintln!("error: {problem}");
        }
        Ok(ExitCode::from(crate::exit::BAD_DATA))
    }
}
