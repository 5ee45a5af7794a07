//! `vgg data`: data sets.

mod inspect;
mod prepare;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Result;
use clap::{Args, Subcommand};
use vgg_data::synthetic::{SyntheticConfig, generate, is_made};
use vgg_data::{AugmentConfig, Filter, ImageSet, Split, captioned_sheet, imagenet, write_png};

use super::options::workers;
use crate::console::{Progress, out};
use crate::settings::SettingsError;

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
    ShowBatch(ShowBatch),
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

#[derive(Args)]
pub(crate) struct ShowBatch {
    /// Data set: a prepared one, or a folder with train/<class>/* and val/<class>/*.
    #[arg(long)]
    dataset: PathBuf,
    /// train or val.
    #[arg(long, default_value = "train")]
    split: Split,
    /// Smallest side after rescaling: one value, or the two ends of scale jitter.
    #[arg(long, value_delimiter = ',', num_args = 1..=2, default_value = "256")]
    train_side: Vec<usize>,
    /// Side of the crop.
    #[arg(long, default_value_t = 224)]
    crop: usize,
    /// Images on the sheet.
    #[arg(long, default_value_t = 40)]
    images: usize,
    /// Images in a row.
    #[arg(long, default_value_t = 10)]
    columns: usize,
    /// Seed of crops and flips.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// PNG file to write.
    #[arg(long)]
    out: PathBuf,
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
    generate(out, config, workers(), &|done, _| {
        if let Ok(mut progress) = progress.lock() {
            progress.at(done as u64, || format!("{done} of {of}"));
        }
    })?;
    Ok(())
}

impl ShowBatch {
    fn run(self) -> Result<()> {
        let folder = ImageSet::open(&self.dataset, self.split)?;
        let [low, high] = match self.train_side.as_slice() {
            [low, high] => [*low, *high],
            [side] => [*side; 2],
            _ => return Err(SettingsError("--train-side takes one side, or two".into()).into()),
        };
        let augment = AugmentConfig {
            train_side: [low, high],
            crop: self.crop,
            filter: Filter::Bilinear,
            flip: true,
            colour_shift: None,
        };
        augment.check()?;
        let mut tiles = Vec::new();
        // Evenly over the split, and so over the classes.
        for i in 0..self.images.min(folder.len()) {
            let sample = i * folder.len() / self.images.min(folder.len());
            let image = folder.pixels(sample)?;
            let (h, w, _) = image.view().dim();
            let drawn = augment.draw(self.seed, 0, sample as u64, h, w);
            let name = &folder.classes()[folder.target(sample) as usize];
            let flip = if drawn.flip { ", flipped" } else { "" };
            let caption = vec![
                imagenet::words(name).unwrap_or(name).to_owned(),
                format!("{h}x{w}, S {}", drawn.train_side),
                format!("at {},{}{flip}", drawn.top, drawn.left),
            ];
            tiles.push((augment.apply(image.view(), &drawn)?, caption));
        }
        write_png(&self.out, &captioned_sheet(&tiles, self.columns, self.crop)?)?;
        writeln!(out(), "{}", self.out.display())?;
        Ok(())
    }
}
