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

use crate::console::Progress;

#[derive(Subcommand)]
pub(crate) enum Data {
    /// Make the synthetic data set.
    Synthetic(Synthetic),
    /// Make shards of the official ImageNet archives.
    PrepareImagenet(prepare::PrepareImagenet),
    /// Make shards of class folders, or of another data set as it was unpacked.
    PrepareFolder(prepare::PrepareFolder),
    /// Join the parts of a preparation.
    Merge(prepare::Merge),
    /// Read all of a prepared data set: hashes, counts, classes.
    Verify(inspect::Verify),
    /// Say what a data set is.
    Inspect(inspect::Inspect),
    /// Show images as training sees them, on one sheet.
    ShowBatch(show::ShowBatch),
}

#[derive(Args)]
pub(crate) struct Synthetic {
    /// Folder to write to.
    #[arg(long)]
    out: PathBuf,
    /// Training images of each of the ten classes; a quarter as many validation images, but at least 50.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    images_per_class: u32,
    /// Seed of everything.
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

/// Makes the set in `out`, unless it is there.
pub(super) fn make_synthetic(out: &std::path::Path, config: &SyntheticConfig) -> Result<()> {
    if is_made(out, config) {
        eprintln!("{} holds this set already", out.display());
        return Ok(());
    }
    let of = 10 * (config.train_per_class + config.val_per_class) as u64;
    eprintln!("makes {of} images in {}", out.display());
    let progress = Mutex::new(Progress::new("images", of));
    generate(out, config, vgg::system::cores(), &|done, _| {
        if let Ok(mut progress) = progress.lock() {
            progress.at(done as u64, || format!("{done} of {of}"));
        }
    })?;
    Ok(())
}
