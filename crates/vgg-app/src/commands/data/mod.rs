//! `vgg data`: data sets.

mod inspect;
mod prepare;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Result;
use clap::{Args, Subcommand};
use vgg_data::synthetic::{SyntheticConfig, generate, is_made};
use vgg_error::printable;

use crate::console::{Progress, note};

#[derive(Subcommand)]
pub(crate) enum Data {
    /// Generate the synthetic data set.
    ///
    /// Example: vgg data synthetic --out data/synthetic
    Synthetic(Synthetic),
    /// Convert the official ImageNet archives to shards.
    ///
    /// Example: vgg data prepare-imagenet --archives downloads --out data/imagenet
    PrepareImagenet(prepare::PrepareImagenet),
    /// Convert class folders, or another unpacked data set, to shards.
    ///
    /// Example: vgg data prepare-folder --dataset caltech101 --layout caltech --out data/caltech
    PrepareFolder(prepare::PrepareFolder),
    /// Join the parts of a preparation.
    ///
    /// Example: vgg data merge part1 part2 --out data/imagenet
    Merge(prepare::Merge),
    /// Verify hashes, counts and classes of a prepared data set.
    ///
    /// Example: vgg data verify data/imagenet
    Verify(inspect::Verify),
    /// Describe a data set.
    ///
    /// Example: vgg data inspect data/imagenet
    Inspect(inspect::Inspect),
    /// Draw augmented training images on one sheet.
    ///
    /// Example: vgg data show-batch --dataset data/imagenet --train-scale 256,512 --out batch.png
    ShowBatch(show::ShowBatch),
}

#[derive(Args)]
pub(crate) struct Synthetic {
    /// Output folder.
    #[arg(long)]
    out: PathBuf,
    /// Training images per class, of ten classes; a quarter as many for validation, at least 50.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    images_per_class: u32,
    /// Random seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Data {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let done = match self {
            Data::PrepareImagenet(c) => return c.run(),
            Data::PrepareFolder(c) => return c.run(),
            Data::Verify(c) => return c.run(),
            Data::Merge(c) => c.run(),
            Data::Inspect(c) => c.run(),
            Data::Synthetic(s) => {
                let train_per_class = s.images_per_class as usize;
                let config = SyntheticConfig {
                    seed: s.seed,
                    train_per_class,
                    val_per_class: (train_per_class / 4).max(50),
                };
                make_synthetic(&s.out, &config)
            }
            Data::ShowBatch(s) => s.run(),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

pub(super) fn make_synthetic(out: &std::path::Path, config: &SyntheticConfig) -> Result<()> {
    if is_made(out, config) {
        note(&format!("{} already holds this data set", printable(out)));
        return Ok(());
    }
    let of = 10 * (config.train_per_class + config.val_per_class) as u64;
    note(&format!("generating {of} images in {}", printable(out)));
    let progress = Mutex::new(Progress::new("images", of));
    generate(out, config, vgg::system::cores(), &|done, _| {
        if let Ok(mut progress) = progress.lock() {
            progress.at(done as u64, || format!("{done} of {of}"));
        }
    })?;
    Ok(())
}
