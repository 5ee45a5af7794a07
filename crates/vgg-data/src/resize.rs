//! Resizing with an antialiasing filter, of the whole image or of the part that a crop needs.

use fast_image_resize as fir;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use serde::{Deserialize, Serialize};

use crate::{Error, Image, Result};

/// Interpolation. All but `Nearest` widen with the reduction, as Pillow's filters of the same names do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Cubic with a = -0.5.
    Bicubic,
    /// Lanczos of three lobes.
    Lanczos,
    /// The nearest pixel: aliases, for comparison only.
    Nearest,
}

impl std::str::FromStr for Filter {
    type Err = String;
    fn from_str(name: &str) -> std::result::Result<Filter, String> {
        match name {
            "bilinear" => Ok(Filter::Bilinear),
            "bicubic" => Ok(Filter::Bicubic),
            "lanczos" => Ok(Filter::Lanczos),
            "nearest" => Ok(Filter::Nearest),
            _ => Err(format!("there is no filter {name}; it is one of bilinear, bicubic, lanczos, nearest")),
        }
    }
}

/// `image` resized to `h` x `w`.
///
/// # Errors
/// [`Error::Config`] if a size is zero.
pub fn resize(image: &Image, h: usize, w: usize, filter: Filter) -> Result<Image> {
    resize_region(image, (h, w), (0, 0), (h, w), filter)
}

/// The part `size` at `offset` (rows, columns) of `image` resized to `whole`, without making the rest of it.
///
/// # Errors
/// [`Error::Config`] if a size is zero or the part lies outside.
pub fn resize_region(
    image: &Image,
    whole: (usize, usize),
    offset: (usize, usize),
    size: (usize, usize),
    filter: Filter,
) -> Result<Image> {
    let (h, w, _) = image.dim();
    if h * w * size.0 * size.1 == 0 || offset.0 + size.0 > whole.0 || offset.1 + size.1 > whole.1 {
        return Err(Error::Config(format!(
            "cannot take {size:?} at {offset:?} of a {h}x{w} image resized to {whole:?}"
        )));
    }
    if (h, w) == whole && filter != Filter::Nearest {
        let part = ndarray::s![offset.0..offset.0 + size.0, offset.1..offset.1 + size.1, ..];
        return Ok(image.slice(part).as_standard_layout().into_owned());
    }
    let fail = |e: &dyn std::fmt::Display| Error::Config(format!("cannot resize {h}x{w} to {whole:?}: {e}"));
    let image = image.as_standard_layout();
    let pixels = image.as_slice().ok_or_else(|| fail(&"the pixels are not contiguous"))?;
    // Of one pixel type: the general interface would compile every kernel for a dozen of them.
    let source =
        TypedImageRef::<fir::pixels::U8x3>::from_buffer(w as u32, h as u32, pixels).map_err(|e| fail(&e))?;
    let mut out = vec![0; size.0 * size.1 * 3];
    let mut target = TypedImage::<fir::pixels::U8x3>::from_buffer(size.1 as u32, size.0 as u32, &mut out)
        .map_err(|e| fail(&e))?;
    let (sy, sx) = (h as f64 / whole.0 as f64, w as f64 / whole.1 as f64);
    let algorithm = match filter {
        Filter::Bilinear => fir::ResizeAlg::Convolution(fir::FilterType::Bilinear),
        Filter::Bicubic => fir::ResizeAlg::Convolution(fir::FilterType::CatmullRom),
        Filter::Lanczos => fir::ResizeAlg::Convolution(fir::FilterType::Lanczos3),
        Filter::Nearest => fir::ResizeAlg::Nearest,
    };
    // The region in source pixels; rounding must not push it past the edge.
    let (left, top) = (offset.1 as f64 * sx, offset.0 as f64 * sy);
    let (width, height) =
        ((size.1 as f64 * sx).min(w as f64 - left), (size.0 as f64 * sy).min(h as f64 - top));
    let options = fir::ResizeOptions::new().resize_alg(algorithm).crop(left, top, width, height);
    fir::Resizer::new().resize_typed(&source, &mut target, &options).map_err(|e| fail(&e))?;
    Image::from_shape_vec((size.0, size.1, 3), out).map_err(|e| fail(&e))
}
