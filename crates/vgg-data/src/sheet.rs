//! Images side by side, for people.

use std::path::Path;

use image::ImageEncoder;
use image::codecs::png::PngEncoder;
use ndarray::s;

use crate::{Error, Image, Result};

/// Pixels between images.
const GAP: usize = 2;

/// Images in rows of `columns`, on white. They may differ in size: each cell is as large as the largest.
///
/// # Errors
/// [`Error::Config`] if there are no images or no columns.
pub fn contact_sheet(images: &[Image], columns: usize) -> Result<Image> {
    let side = |of: fn(&Image) -> usize| images.iter().map(of).max().unwrap_or(0);
    let (h, w) = (side(|i| i.dim().0), side(|i| i.dim().1));
    if columns == 0 || h * w == 0 {
        return Err(Error::Config("a contact sheet needs images and columns".into()));
    }
    let (rows, columns) = (images.len().div_ceil(columns), columns.min(images.len()));
    let mut sheet = Image::from_elem((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, 3), 255);
    for (i, image) in images.iter().enumerate() {
        let (top, left) = (i / columns * (h + GAP), i % columns * (w + GAP));
        let (own_h, own_w, _) = image.dim();
        sheet.slice_mut(s![top..top + own_h, left..left + own_w, ..]).assign(image);
    }
    Ok(sheet)
}

/// Writes an image as PNG, whole or not at all.
///
/// # Errors
/// [`Error::Io`] if it cannot be written.
pub fn write_png(path: &Path, image: &Image) -> Result<()> {
    let (h, w, _) = image.dim();
    let failed = |reason: String| Error::Io { action: "write", path: path.to_owned(), reason };
    let pixels = image.as_standard_layout();
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(
            pixels.as_slice().unwrap_or_default(),
            w as u32,
            h as u32,
            image::ExtendedColorType::Rgb8,
        )
        .map_err(|e| failed(e.to_string()))?;
    vgg_files::write_bytes(path, &bytes).map_err(|e| failed(e.to_string()))
}
