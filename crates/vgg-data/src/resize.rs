//! Resizing with an antialiasing filter, of the whole image or of the part that a crop needs: Pillow's values, all of them.

use ndarray::ArrayView3;
use serde::{Deserialize, Serialize};

use crate::mirror::{mirror, mirror_row};
use crate::resample::{Taps, resample};
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
    resize_region(image.view(), (h, w), (0, 0), (h, w), filter)
}

/// The part `size` at `offset` (rows, columns) of `image` resized to `whole`, without making the rest of it. It is the same
/// as if it were cut out later.
///
/// # Errors
/// [`Error::Config`] if a size is zero or the part lies outside.
pub fn resize_region(
    image: ArrayView3<'_, u8>,
    whole: (usize, usize),
    offset: (usize, usize),
    size: (usize, usize),
    filter: Filter,
) -> Result<Image> {
    let mut out = Image::zeros((size.0, size.1, 3));
    resize_into(image, whole, offset, size, filter, false, out.as_slice_mut().unwrap_or_default())?;
    Ok(out)
}

/// As [`resize_region`], into the values of `size`, with left and right exchanged if `flip`.
///
/// # Errors
/// As [`resize_region`], or if `out` has another length.
pub(crate) fn resize_into(
    image: ArrayView3<'_, u8>,
    whole: (usize, usize),
    offset: (usize, usize),
    size: (usize, usize),
    filter: Filter,
    flip: bool,
    out: &mut [u8],
) -> Result<()> {
    let (h, w, _) = image.dim();
    let outside = offset.0 + size.0 > whole.0 || offset.1 + size.1 > whole.1;
    if h * w * size.0 * size.1 == 0 || outside || out.len() != size.0 * size.1 * 3 {
        return Err(Error::Config(format!(
            "cannot take {size:?} at {offset:?} of a {h}x{w} image resized to {whole:?}"
        )));
    }
    if (h, w) == whole && filter != Filter::Nearest {
        cut_into(image, offset, size, flip, out);
        return Ok(());
    }
    let image = image.as_standard_layout();
    let down = Taps::new(h, whole.0, offset.0, size.0, filter);
    let across = Taps::new(w, whole.1, offset.1, size.1, filter);
    resample(image.as_slice().unwrap_or(&[]), w, &down, &across, out);
    if flip {
        mirror(out, size.1);
    }
    Ok(())
}

/// The part `size` at `offset` (rows, columns), which must lie inside.
pub(crate) fn cut(
    image: ArrayView3<'_, u8>,
    offset: (usize, usize),
    size: (usize, usize),
    flip: bool,
) -> Image {
    let mut out = Image::zeros((size.0, size.1, 3));
    cut_into(image, offset, size, flip, out.as_slice_mut().unwrap_or_default());
    out
}

fn cut_into(
    image: ArrayView3<'_, u8>,
    offset: (usize, usize),
    size: (usize, usize),
    flip: bool,
    out: &mut [u8],
) {
    let part = image.slice(ndarray::s![offset.0..offset.0 + size.0, offset.1..offset.1 + size.1, ..]);
    for (to, from) in out.chunks_exact_mut(size.1 * 3).zip(part.outer_iter()) {
        match from.as_slice() {
            Some(from) if flip => mirror_row(from, to),
            Some(from) => to.copy_from_slice(from),
            None => {
                to.iter_mut().zip(&from).for_each(|(to, &from)| *to = from);
                if flip {
                    mirror(to, size.1);
                }
            }
        }
    }
}
