//! Views: what a network is shown of a test image.

use serde::{Deserialize, Serialize};

use crate::augment::mirrored;
use crate::geometry::{centre_offset, scaled_size};
use crate::{Error, Filter, Image, Result, resize_region};

/// Pixels of a view: what a network takes, and what a worker has memory for.
const MAX_PIXELS: usize = 1024 * 1024;

/// A part of a rescaled image, mirrored or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// Smallest side after rescaling.
    pub test_side: usize,
    /// Which part.
    pub region: Region,
    /// Whether left and right are exchanged.
    pub flip: bool,
}

/// Which part of a rescaled image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Region {
    /// All of it.
    Whole,
    /// A square of this side in the centre.
    Centre(usize),
}

impl View {
    /// The pixels of the view.
    ///
    /// # Errors
    /// [`Error::Config`] if the region is larger than the rescaled image, [`Error::TooLarge`] if the whole image is.
    pub fn apply(&self, image: &Image, filter: Filter) -> Result<Image> {
        let (h, w, _) = image.dim();
        let whole = scaled_size(h, w, self.test_side);
        let (offset, size) = match self.region {
            Region::Whole if whole.0.saturating_mul(whole.1) > MAX_PIXELS => {
                let path = std::path::PathBuf::new();
                return Err(Error::TooLarge { path, side: self.test_side, h: whole.0, w: whole.1 });
            }
            Region::Whole => ((0, 0), whole),
            Region::Centre(crop) if crop > self.test_side => {
                let what = format!("test_side {} is smaller than the crop, {crop}", self.test_side);
                return Err(Error::Config(what));
            }
            Region::Centre(crop) => {
                ((centre_offset(whole.0, crop), centre_offset(whole.1, crop)), (crop, crop))
            }
        };
        let pixels = resize_region(image, whole, offset, size, filter)?;
        Ok(if self.flip { mirrored(&pixels) } else { pixels })
    }
}
