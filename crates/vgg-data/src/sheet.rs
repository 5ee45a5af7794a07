//! Contact sheets of images with captions, and PNG output. `batch_sheet` draws augmented training images.

use std::path::Path;

use image::ImageEncoder;
use image::codecs::png::PngEncoder;
use ndarray::s;
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster};

use crate::{Error, Image, Result};

/// Gap between images, in pixels.
const GAP: usize = 2;

/// Places images in rows of `columns` on a white background. Images may differ in size: every cell has the
/// largest height and width.
///
/// # Errors
/// [`Error::Config`] if there are no images or no columns.
pub fn contact_sheet(images: &[Image], columns: usize) -> Result<Image> {
    let side = |of: fn(&Image) -> usize| images.iter().map(of).max().unwrap_or(0);
    let (h, w) = (side(|i| i.dim().0), side(|i| i.dim().1));
    if columns == 0 || h * w == 0 {
        return Err(Error::Config("a contact sheet needs at least one image and one column".into()));
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

/// As [`contact_sheet`], with lines of text below each image. Images are cropped to `tile` x `tile`; text is
/// cut at that width.
///
/// # Errors
/// As [`contact_sheet`].
pub fn captioned_sheet(tiles: &[(Image, Vec<String>)], columns: usize, tile: usize) -> Result<Image> {
    let lines = tiles.iter().map(|(_, lines)| lines.len()).max().unwrap_or(0);
    let captioned = tiles.iter().map(|(image, caption)| {
        let (h, w, _) = image.dim();
        let mut whole = Image::from_elem((tile + lines * LINE, tile, 3), 255);
        let (h, w) = (h.min(tile), w.min(tile));
        let left = (tile - w) / 2;
        whole.slice_mut(s![tile - h..tile, left..left + w, ..]).assign(&image.slice(s![..h, ..w, ..]));
        for (number, line) in caption.iter().enumerate() {
            draw_text(&mut whole, line, tile + number * LINE, 1);
        }
        whole
    });
    contact_sheet(&captioned.collect::<Vec<_>>(), columns)
}

/// Line height of text, in pixels.
pub const LINE: usize = 16;

/// Draws black text with its upper left corner at row `top` and column `left`. Text that does not fit is cut.
pub fn draw_text(image: &mut Image, text: &str, top: usize, left: usize) {
    let (h, w, _) = image.dim();
    let mut left = left;
    for c in text.chars() {
        let raster = get_raster(c, FontWeight::Regular, RasterHeight::Size16);
        let Some(glyph) = raster.or_else(|| get_raster('?', FontWeight::Regular, RasterHeight::Size16))
        else {
            continue;
        };
        if left + glyph.width() > w {
            return;
        }
        for (y, row) in glyph.rows().enumerate().filter(|(y, _)| top + y < h) {
            for (x, ink) in row.iter().enumerate() {
                image.slice_mut(s![top + y, left + x, ..]).fill(255 - ink);
            }
        }
        left += glyph.width();
    }
}

/// Writes an image to a PNG file atomically.
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
