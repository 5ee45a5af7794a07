//! Training images as a network is shown them, on a sheet for people.

use crate::{
    AugmentConfig, Image, ImageSet, Interpolation, PcaJitter, PixelStatistics, Result, captioned_sheet,
    imagenet,
};

/// A sheet of augmented images, evenly over a split and so over its classes.
#[derive(Debug, Clone, Copy)]
pub struct BatchSheet {
    /// Smallest side after rescaling: the two ends of scale jitter.
    pub train_scale: [usize; 2],
    /// Side of the crop.
    pub crop: usize,
    /// Standard deviation of the colour shift's factors; 0 for none.
    pub pca_jitter_std: f64,
    /// Seed of crops, flips and colours.
    pub seed: u64,
    /// Images at most.
    pub images: usize,
    /// Images in a row.
    pub columns: usize,
}

impl BatchSheet {
    /// The sheet, each image with its class, its size and what was drawn for it.
    ///
    /// # Errors
    /// [`crate::Error::Config`] if the settings do not fit each other; those of images.
    pub fn draw(&self, set: &ImageSet) -> Result<Image> {
        let shown = self.images.min(set.len());
        let samples: Vec<usize> = (0..shown).map(|i| i * set.len() / shown).collect();
        samples.iter().for_each(|&sample| set.prefetch(sample));
        let augment = AugmentConfig {
            train_scale: self.train_scale,
            crop: self.crop,
            interpolation: Interpolation::Bilinear,
            flip: true,
            pca_jitter: self.pca_jitter(set, &samples)?,
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
                format!("of {h}x{w}, S {}", drawn.train_scale),
                format!("{} at {},{}{flip}", self.crop, drawn.top, drawn.left),
            ];
            tiles.push((shifted(augment.apply(image.view(), &drawn)?, drawn.pca_jitter), caption));
        }
        captioned_sheet(&tiles, self.columns, self.crop)
    }

    /// By the statistics of the set, if they are known, or of the images that are shown.
    fn pca_jitter(&self, set: &ImageSet, samples: &[usize]) -> Result<Option<PcaJitter>> {
        if self.pca_jitter_std == 0.0 {
            return Ok(None);
        }
        let statistics = match set.statistics() {
            Some(known) => known,
            None => {
                let mut of_shown = PixelStatistics::default();
                for &sample in samples {
                    of_shown.add(&*set.image(sample)?);
                }
                of_shown
            }
        };
        Ok(Some(PcaJitter::new(&statistics, self.pca_jitter_std)))
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
