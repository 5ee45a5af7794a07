//! Training augmentation (section 3.1 of the paper): scale jitter, crop, horizontal flip, PCA colour jitter.

use ndarray::ArrayView3;
use serde::{Deserialize, Serialize};

use crate::geometry::Geometry;
use crate::resize::resize_into;
use crate::{Error, Image, Interpolation, KeyedRng, PcaJitter, Purpose, Result};

/// Largest training scale.
pub const MAX_SIDE: usize = 16_384;

/// Settings of the augmentation of training images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AugmentConfig {
    /// Training scale S (smallest side after rescaling): drawn uniformly from `[low, high]`, ends included.
    /// Equal ends fix it.
    pub train_scale: [usize; 2],
    /// Side of the square crop.
    pub crop: usize,
    /// Interpolation of the rescaling.
    pub interpolation: Interpolation,
    /// How images are rescaled.
    pub geometry: Geometry,
    /// Whether to flip images horizontally with probability 0.5.
    pub flip: bool,
    /// PCA colour jitter, if any.
    pub pca_jitter: Option<PcaJitter>,
}

/// The augmentation that is drawn for one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// Training scale S: smallest side after rescaling.
    pub train_scale: usize,
    /// First row of the crop in the rescaled image.
    pub top: usize,
    /// First column of the crop in the rescaled image.
    pub left: usize,
    /// Whether to flip the crop horizontally.
    pub flip: bool,
    /// Added to R, G and B of every pixel, in units of 0..255.
    pub pca_jitter: [f32; 3],
}

impl AugmentConfig {
    /// Checks the training scale and the crop.
    ///
    /// # Errors
    /// [`Error::Config`] if `train_scale` is descending, below `crop` or above [`MAX_SIDE`], or `crop` is 0.
    pub fn check(&self) -> Result<()> {
        if self.crop == 0 {
            return Err(Error::Config("the crop must be at least 1".into()));
        }
        check_train_scale(self.train_scale, self.crop)
    }

    /// Draws the augmentation of sample `sample`, an `h` x `w` image, in an epoch.
    pub fn draw(&self, seed: u64, epoch: u64, sample: u64, h: usize, w: usize) -> Augmentation {
        let mut stream = KeyedRng::new(seed, epoch, sample, Purpose::Augment);
        let train_scale = stream.random_range(self.train_scale[0]..=self.train_scale[1]);
        let (rows, columns) = self.geometry.scaled_size(h, w, train_scale);
        Augmentation {
            train_scale,
            top: stream.random_range(0..=rows - self.crop),
            left: stream.random_range(0..=columns - self.crop),
            flip: self.flip && stream.random_bool(),
            pca_jitter: self.pca_jitter.map_or([0.0; 3], |shift| shift.draw(&mut stream)),
        }
    }

    /// Rescales, crops and flips an image. The PCA colour jitter is not applied: it is part of
    /// [`crate::Batch::offset`].
    ///
    /// # Errors
    /// [`Error::Config`] if the crop is outside the rescaled image.
    pub fn apply(&self, image: ArrayView3<'_, u8>, a: &Augmentation) -> Result<Image> {
        let mut crop = Image::zeros((self.crop, self.crop, 3));
        self.apply_into(image, a, crop.as_slice_mut().unwrap_or_default())?;
        Ok(crop)
    }

    /// As [`AugmentConfig::apply`], writing to `out`, which must have `crop * crop * 3` values.
    ///
    /// # Errors
    /// As [`AugmentConfig::apply`], and [`Error::Config`] if `out` has another length.
    pub fn apply_into(&self, image: ArrayView3<'_, u8>, a: &Augmentation, out: &mut [u8]) -> Result<()> {
        let (h, w, _) = image.dim();
        let whole = self.geometry.scaled_size(h, w, a.train_scale);
        let size = (self.crop, self.crop);
        resize_into(image, whole, (a.top, a.left), size, self.interpolation, a.flip, out)
    }
}

/// Checks a training scale, from its smallest to its largest side.
///
/// # Errors
/// [`Error::Config`] if it is descending, below `crop` or above [`MAX_SIDE`].
pub fn check_train_scale(train_scale: [usize; 2], crop: usize) -> Result<()> {
    let [low, high] = train_scale;
    let scale = if low == high { format!("{low}") } else { format!("[{low}, {high}]") };
    let problem = match () {
        () if low > high => "must be ascending".to_owned(),
        () if low < crop => format!("is smaller than the crop, {crop}"),
        () if high > MAX_SIDE => format!("is larger than {MAX_SIDE}"),
        () => return Ok(()),
    };
    Err(Error::Config(format!("train_scale {scale} {problem}")))
}
