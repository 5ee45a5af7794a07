//! `vgg data show-batch`: a sheet of augmented training images.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vgg_data::{BatchSheet, Split, write_png};
use vgg_error::printable;

use crate::commands::data_options::{BadImageOption, ImageOptions, open_split};
use crate::commands::overwrite::Overwrite;
use crate::console::{note, out, warning};
use crate::exit::UsageError;

#[derive(Args)]
pub(crate) struct ShowBatch {
    /// Data set: a prepared one, or a folder with train/<class>/* and val/<class>/*.
    #[arg(long)]
    dataset: PathBuf,
    /// Split: train or val.
    #[arg(long, default_value = "train")]
    split: Split,
    /// Smallest side after rescaling: one value, or the two ends of scale jitter.
    #[arg(long, value_delimiter = ',', num_args = 1..=2, default_value = "256")]
    train_scale: Vec<usize>,
    /// Crop side in pixels.
    #[arg(long, default_value_t = 224)]
    crop: usize,
    /// Number of images.
    #[arg(long, default_value_t = 40)]
    images: usize,
    /// Images per row.
    #[arg(long, default_value_t = 10)]
    columns: usize,
    /// Standard deviation of the PCA colour jitter; 0 for none.
    #[arg(long, default_value_t = 0.1)]
    pca_jitter_std: f64,
    /// Seed of crops, flips and colour jitter.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    image: ImageOptions,
    #[command(flatten)]
    bad_image: BadImageOption,
    /// PNG file to write.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    overwrite: Overwrite,
}

impl ShowBatch {
    pub(crate) fn run(self) -> Result<()> {
        self.overwrite.check(&self.out, &[])?;
        let set = open_split(&self.dataset, self.split, &self.image)?;
        let [low, high] = match self.train_scale.as_slice() {
            [low, high] => [*low, *high],
            [side] => [*side; 2],
            _ => return Err(UsageError("--train-scale takes one or two sides".into()).into()),
        };
        if let Some(side) = set.smallest_side().filter(|side| *side < high) {
            note(&format!("note: the images were downscaled to {side}; training rejects S up to {high}"));
        }
        let sheet = BatchSheet {
            train_scale: [low, high],
            crop: self.crop,
            pca_jitter_std: self.pca_jitter_std,
            seed: self.seed,
            images: self.images,
            columns: self.columns,
            on_bad_image: self.bad_image.on_bad_image,
        };
        let (drawn, skipped) = sheet.draw(&set)?;
        skipped.iter().for_each(|bad| warning(&format!("skipped: {bad}")));
        write_png(&self.out, &drawn)?;
        writeln!(out(), "{}", printable(&self.out))?;
        Ok(())
    }
}
