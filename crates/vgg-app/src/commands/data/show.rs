//! `vgg data show-batch`: what a network is shown in training.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vgg_data::{
    AugmentConfig, ColourShift, Filter, Image, ImageSet, PixelStatistics, Split, captioned_sheet, imagenet,
    write_png,
};

use crate::console::out;
use crate::exit::UsageError;

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
    /// Standard deviation of the colour shift along the axes of the pixels' colours; 0 for none.
    #[arg(long, default_value_t = 0.1)]
    colour_shift_std: f64,
    /// Seed of crops, flips and colours.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// PNG file to write.
    #[arg(long)]
    out: PathBuf,
}

impl ShowBatch {
    pub(crate) fn run(self) -> Result<()> {
        let set = ImageSet::open(&self.dataset, self.split)?;
        let [low, high] = match self.train_side.as_slice() {
            [low, high] => [*low, *high],
            [side] => [*side; 2],
            _ => return Err(UsageError("--train-side takes one side, or two".into()).into()),
        };
        if let Some(side) = set.smallest_side().filter(|side| *side < high) {
            eprintln!(
                "note: the images were reduced to {side}; S up to {high} enlarges them, which training refuses"
            );
        }
        // Evenly over the split, and so over the classes.
        let shown = self.images.min(set.len());
        let samples: Vec<usize> = (0..shown).map(|i| i * set.len() / shown).collect();
        samples.iter().for_each(|&sample| set.will_need(sample));
        let augment = AugmentConfig {
            train_side: [low, high],
            crop: self.crop,
            filter: Filter::Bilinear,
            flip: true,
            colour_shift: self.colour_shift(&set, &samples)?,
        };
        augment.check()?;
        let mut tiles = Vec::new();
        for sample in samples {
            let image = set.pixels(sample)?;
            let (h, w, _) = image.view().dim();
            let drawn = augment.draw(self.seed, 0, sample as u64, h, w);
            let name = &set.classes()[set.target(sample) as usize];
            let flip = if drawn.flip { ", flipped" } else { "" };
            let caption = vec![
                imagenet::words(name).unwrap_or(name).to_owned(),
                format!("of {h}x{w}, S {}", drawn.train_side),
                format!("{} at {},{}{flip}", self.crop, drawn.top, drawn.left),
            ];
            tiles.push((shifted(augment.apply(image.view(), &drawn)?, drawn.colour_shift), caption));
        }
        write_png(&self.out, &captioned_sheet(&tiles, self.columns, self.crop)?)?;
        writeln!(out(), "{}", self.out.display())?;
        Ok(())
    }

    /// By the statistics of the set, if they are known, or of the images that are shown.
    fn colour_shift(&self, set: &ImageSet, samples: &[usize]) -> Result<Option<ColourShift>> {
        if self.colour_shift_std == 0.0 {
            return Ok(None);
        }
        let mut statistics = set.statistics();
        if statistics.is_none() {
            let mut of_shown = PixelStatistics::default();
            for &sample in samples {
                of_shown.add(&*set.image(sample)?);
            }
            statistics = Some(of_shown);
        }
        Ok(statistics.map(|statistics| ColourShift::new(&statistics, self.colour_shift_std)))
    }
}

/// As the network sees it, but for the mean.
fn shifted(mut image: Image, shift: [f32; 3]) -> Image {
    for mut pixel in image.rows_mut() {
        for c in 0..3 {
            pixel[c] = (f32::from(pixel[c]) + shift[c]).round().clamp(0.0, 255.0) as u8;
        }
    }
    image
}
