//! [`BatchSheet`]: a contact sheet of augmented training images, for visual inspection.

use std::sync::Arc;

use crate::{
    AugmentConfig, Error, Geometry, Image, ImageSet, Interpolation, OnBadImage, PcaJitter, PixelStatistics,
    Result, captioned_sheet, imagenet,
};

/// Settings of a contact sheet of augmented images. The images are evenly spaced in the split.
#[derive(Debug, Clone, Copy)]
pub struct BatchSheet {
    /// Training scale S: lower and upper end of the scale jitter.
    pub train_scale: [usize; 2],
    /// Side of the crop.
    pub crop: usize,
    /// Standard deviation of the PCA colour jitter's factors; 0 disables it.
    pub pca_jitter_std: f64,
    /// Seed of the augmentation.
    pub seed: u64,
    /// Largest number of images.
    pub images: usize,
    /// Number of images per row.
    pub columns: usize,
    /// What to do with an image that cannot be decoded.
    pub on_bad_image: OnBadImage,
}

impl BatchSheet {
    /// Draws the sheet, and returns the errors of the images that are skipped. Each caption gives the class, the size of
    /// the image and the drawn augmentation.
    ///
    /// # Errors
    /// [`crate::Error::Config`] if the settings are invalid; errors of [`ImageSet::image`].
    pub fn draw(&self, set: &ImageSet) -> Result<(Image, Vec<Error>)> {
        let shown = self.images.min(set.len());
        let samples: Vec<usize> = (0..shown).map(|i| i * set.len() / shown).collect();
        samples.iter().for_each(|&sample| set.prefetch(sample));
        let (mut images, mut skipped) = (Vec::new(), Vec::new());
        for sample in samples {
            match set.image(sample) {
                Ok(image) => images.push((sample, image)),
                Err(e) if e.is_bad_image() && self.on_bad_image == OnBadImage::Skip => skipped.push(e),
                Err(e) => return Err(e),
            }
        }
        if let (true, Some(first)) = (images.is_empty(), skipped.first()) {
            let reason = format!("none of the images can be decoded: {first}");
            return Err(Error::Layout { path: set.root().to_owned(), reason });
        }
        let augment = AugmentConfig {
            train_scale: self.train_scale,
            crop: self.crop,
            interpolation: Interpolation::Bilinear,
            geometry: Geometry::Paper,
            flip: true,
            pca_jitter: self.pca_jitter(set, &images),
        };
        augment.check()?;
        let mut tiles = Vec::new();
        for (sample, image) in images {
            let (h, w, _) = image.view().dim();
            let drawn = augment.draw(self.seed, 0, sample as u64, h, w);
            let name = &set.classes()[set.target(sample) as usize];
            let flip = if drawn.flip { ", flipped" } else { "" };
            let caption = vec![
                imagenet::words(name).unwrap_or(name).to_owned(),
                format!("{h}x{w}, S = {}", drawn.train_scale),
                format!("{} at {},{}{flip}", self.crop, drawn.top, drawn.left),
            ];
            tiles.push((shifted(augment.apply(image.view(), &drawn)?, drawn.pca_jitter), caption));
        }
        Ok((captioned_sheet(&tiles, self.columns, self.crop)?, skipped))
    }

    /// PCA colour jitter from the statistics of the set, or of the images on the sheet if the set has none.
    fn pca_jitter(&self, set: &ImageSet, images: &[(usize, Arc<Image>)]) -> Option<PcaJitter> {
        if self.pca_jitter_std == 0.0 {
            return None;
        }
        let statistics = match set.statistics() {
            Some(known) => known,
            None => {
                let mut of_shown = PixelStatistics::default();
                images.iter().for_each(|(_, image)| of_shown.add(image));
                of_shown
            }
        };
        Some(PcaJitter::new(&statistics, self.pca_jitter_std))
    }
}

/// Adds the colour shift to the pixels: the network's input without subtraction of the mean.
fn shifted(mut image: Image, shift: [f32; 3]) -> Image {
    for mut pixel in image.rows_mut() {
        for c in 0..3 {
            pixel[c] = (f32::from(pixel[c]) + shift[c]).round().clamp(0.0, 255.0) as u8;
        }
    }
    image
}
