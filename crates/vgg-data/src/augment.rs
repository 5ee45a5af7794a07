//! Training-time augmentation of section 3.1: scale, crop, flip, colour. Drawn first, applied after.

use ndarray::ArrayView3;
use serde::{Deserialize, Serialize};

use crate::geometry::scaled_size;
use crate::resize::resize_into;
use crate::{Error, Image, Interpolation, KeyedRng, PcaJitter, Purpose, Result};

/// Largest smallest side that images are rescaled to.
pub const MAX_SIDE: usize = 16_384;

/// What may happen to a training image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AugmentConfig {
    /// Smallest side after rescaling, drawn uniformly from these two ends and all between; equal ends fix it.
    pub train_scale: [usize; 2],
    /// Side of the square crop.
    pub crop: usize,
    /// Interpolation.
    pub interpolation: Interpolation,
    /// Whether half of the images are mirrored.
    pub flip: bool,
    /// Shift of the colours, if any.
    pub pca_jitter: Option<PcaJitter>,
}

/// What happens to one image, before it does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// Smallest side after rescaling.
    pub train_scale: usize,
    /// First row of the crop in the rescaled image.
    pub top: usize,
    /// First column of the crop.
    pub left: usize,
    /// Whether to mirror left and right.
    pub flip: bool,
    /// Added to R, G and B of every pixel, in 0..255.
    pub pca_jitter: [f32; 3],
}

impl AugmentConfig {
    /// Checks that crops fit.
    ///
    /// # Errors
    /// [`Error::Config`] if the smallest side is below the crop, or the ends are the wrong way round.
    pub fn check(&self) -> Result<()> {
        let [low, high] = self.train_scale;
        if low > high || low < self.crop || self.crop == 0 || high > MAX_SIDE {
            let crop = self.crop;
            let what = format!(
                "train_scale [{low}, {high}] must be ascending, at least the crop, {crop}, and at most {MAX_SIDE}"
            );
            return Err(Error::Config(what));
        }
        Ok(())
    }

    /// Draws what happens to sample `sample`, an `h` x `w` image, in an epoch.
    pub fn draw(&self, seed: u64, epoch: u64, sample: u64, h: usize, w: usize) -> Augmentation {
        let mut stream = KeyedRng::new(seed, epoch, sample, Purpose::Augment);
        let train_scale = stream.random_range(self.train_scale[0]..=self.train_scale[1]);
        let (rows, columns) = scaled_size(h, w, train_scale);
        Augmentation {
            train_scale,
            top: stream.random_range(0..=rows - self.crop),
            left: stream.random_range(0..=columns - self.crop),
            flip: self.flip && stream.random_bool(),
            pca_jitter: self.pca_jitter.map_or([0.0; 3], |shift| shift.draw(&mut stream)),
        }
    }

    /// The crop that an augmentation makes of an image; its colour shift is left for the upload.
    ///
    /// # Errors
    /// [`Error::Config`] if the crop does not fit.
    pub fn apply(&self, image: ArrayView3<'_, u8>, a: &Augmentation) -> Result<Image> {
        let mut crop = Image::zeros((self.crop, self.crop, 3));
        self.apply_into(image, a, crop.as_slice_mut().unwrap_or_default())?;
        Ok(crop)
    }

    /// As [`AugmentConfig::apply`], into `crop * crop * 3` values.
    ///
    /// # Errors
    /// As [`AugmentConfig::apply`].
    pub fn apply_into(&self, image: ArrayView3<'_, u8>, a: &Augmentation, out: &mut [u8]) -> Result<()> {
        let (h, w, _) = image.dim();
        let whole = scaled_size(h, w, a.train_scale);
        let size = (self.crop, self.crop);
        resize_into(image, whole, (a.top, a.left), size, self.interpolation, a.flip, out)
    }
}
