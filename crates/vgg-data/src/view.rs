//! Views of a test image: the whole rescaled image, a centre crop or a crop of a grid, flipped or not.

use serde::{Deserialize, Serialize};

use crate::geometry::{Geometry, grid_offset};
use crate::hflip::hflip;
use crate::resize::cut;
use crate::{Error, Image, Interpolation, Result, resize_region};

/// Largest number of pixels of a rescaled whole image, which limits the memory of networks and workers.
const MAX_PIXELS: usize = 50_000_000;
/// Largest number of pixels of a rescaled region that several views share.
const SHARED_PIXELS: usize = 1024 * 1024;

/// A region of a rescaled image, flipped or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// Test scale Q: smallest side after rescaling.
    pub test_scale: usize,
    /// How the image is rescaled, and where a centre crop lies.
    #[serde(default, skip_serializing_if = "Geometry::is_paper")]
    pub geometry: Geometry,
    /// The region of the rescaled image.
    pub region: Region,
    /// Whether the region is flipped horizontally.
    pub flip: bool,
}

/// A region of a rescaled image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Region {
    /// The whole image.
    Whole,
    /// A centre crop of this side.
    Centre(usize),
    /// A crop of a regular 5 x 5 grid that reaches from corner to corner.
    Grid {
        /// Side of the crop.
        crop: usize,
        /// Row of the grid, 0 to 4.
        row: usize,
        /// Column of the grid, 0 to 4.
        column: usize,
    },
}

/// Number of rows and of columns of the grid of crops.
pub const GRID: usize = 5;

impl View {
    /// The pixels of the view of `image`.
    ///
    /// # Errors
    /// [`Error::Config`] if the crop is larger than the test scale; [`Error::TooLarge`] if the region is the
    /// whole image and has more than 50 million pixels.
    pub fn apply(&self, image: &Image, interpolation: Interpolation) -> Result<Image> {
        let (h, w, _) = image.dim();
        let whole = self.geometry.scaled_size(h, w, self.test_scale);
        let (offset, size) = self.place(whole)?;
        let mut pixels = resize_region(image.view(), whole, offset, size, interpolation)?;
        if self.flip {
            let (_, width, _) = pixels.dim();
            hflip(pixels.as_slice_mut().unwrap_or_default(), width);
        }
        Ok(pixels)
    }

    /// Offset (rows, columns) and size of the region in an image rescaled to `whole`.
    fn place(&self, whole: (usize, usize)) -> Result<((usize, usize), (usize, usize))> {
        let (crop, offset): (usize, [usize; 2]) = match self.region {
            Region::Whole if whole.0.saturating_mul(whole.1) > MAX_PIXELS => {
                let path = std::path::PathBuf::new();
                return Err(Error::TooLarge { path, side: self.test_scale, h: whole.0, w: whole.1 });
            }
            Region::Whole => return Ok(((0, 0), whole)),
            Region::Centre(crop) => {
                (crop, [whole.0, whole.1].map(|side| self.geometry.centre_offset(side, crop)))
            }
            Region::Grid { crop, row, column } => {
                (crop, [grid_offset(whole.0, crop, row), grid_offset(whole.1, crop, column)])
            }
        };
        if crop > self.test_scale {
            let what = format!("test_scale {} is smaller than the crop {crop}", self.test_scale);
            return Err(Error::Config(what));
        }
        Ok((offset.into(), (crop, crop)))
    }
}

/// The pixels of each view. Consecutive views of the same test scale share one rescaling.
///
/// # Errors
/// As [`View::apply`].
pub fn apply_views(image: &Image, views: &[View], interpolation: Interpolation) -> Result<Vec<Image>> {
    let (h, w, _) = image.dim();
    let mut shown = Vec::with_capacity(views.len());
    for of_side in views.chunk_by(|a, b| (a.test_scale, a.geometry) == (b.test_scale, b.geometry)) {
        let whole = of_side[0].geometry.scaled_size(h, w, of_side[0].test_scale);
        let places = of_side.iter().map(|view| view.place(whole)).collect::<Result<Vec<_>>>()?;
        let (offset, size) = around(&places);
        if of_side.len() > 1 && size.0.saturating_mul(size.1) > SHARED_PIXELS {
            // The regions of a panorama can be far apart.
            for view in of_side {
                shown.push(view.apply(image, interpolation)?);
            }
            continue;
        }
        let rescaled = resize_region(image.view(), whole, offset, size, interpolation)?;
        for (view, ((top, left), (h, w))) in of_side.iter().zip(places) {
            shown.push(cut(rescaled.view(), (top - offset.0, left - offset.1), (h, w), view.flip));
        }
    }
    Ok(shown)
}

type Place = ((usize, usize), (usize, usize));

/// The smallest rectangle, as offset and size, that contains all of `places`.
fn around(places: &[Place]) -> Place {
    let least = |of: fn(&Place) -> usize| places.iter().map(of).min().unwrap_or(0);
    let most = |of: fn(&Place) -> usize| places.iter().map(of).max().unwrap_or(0);
    let (top, left) = (least(|p| p.0.0), least(|p| p.0.1));
    ((top, left), (most(|p| p.0.0 + p.1.0) - top, most(|p| p.0.1 + p.1.1) - left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_with_shared_rescaling_equal_separate_views() {
        let image = Image::from_shape_fn((57, 83, 3), |(y, x, c)| (y * 7 + x * 13 + c * 50) as u8);
        let mut views = Vec::new();
        for test_scale in [32, 40] {
            let regions =
                (0..GRID * GRID).map(|i| Region::Grid { crop: 32, row: i / GRID, column: i % GRID });
            for region in regions.chain([Region::Whole, Region::Centre(32)]) {
                views.extend([false, true].map(|flip| View {
                    test_scale,
                    geometry: Geometry::Paper,
                    region,
                    flip,
                }));
            }
        }
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Nearest] {
            for (view, shared) in views.iter().zip(apply_views(&image, &views, interpolation).unwrap()) {
                assert_eq!(view.apply(&image, interpolation).unwrap(), shared, "{view:?}, {interpolation:?}");
            }
        }
    }

    #[test]
    fn whole_images_have_at_most_50_million_pixels() {
        let view = View { test_scale: 1000, geometry: Geometry::Paper, region: Region::Whole, flip: false };
        let long = Image::zeros((1, 50, 3));
        assert_eq!(view.apply(&long, Interpolation::Nearest).unwrap().dim(), (1000, 50_000, 3));
        match view.apply(&Image::zeros((1, 51, 3)), Interpolation::Nearest) {
            Err(Error::TooLarge { side: 1000, h: 1000, w: 51_000, .. }) => (),
            other => panic!("{other:?}"),
        }
        // The limit does not apply to a crop of a large image.
        let crop = View { region: Region::Centre(8), ..view };
        assert_eq!(crop.apply(&Image::zeros((8, 16, 3)), Interpolation::Nearest).unwrap().dim(), (8, 8, 3));
    }

    #[test]
    fn the_grid_reaches_every_corner() {
        let whole = (256, 341);
        let place = |row, column| {
            let region = Region::Grid { crop: 224, row, column };
            View { test_scale: 256, geometry: Geometry::Paper, region, flip: false }.place(whole).unwrap().0
        };
        assert_eq!([place(0, 0), place(2, 2), place(4, 4)], [(0, 0), (16, 59), (32, 117)]);
        assert_eq!([place(1, 1), place(3, 3)], [(8, 29), (24, 88)]);
    }
}
