//! Conversion of one image: decoding, checks, reduction if required, and encoding.

use std::collections::BTreeMap;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::PrepareOptions;
use super::boxes::mend;
use super::entry::Entry;
use crate::format::extension_of;
use crate::jpeg::{Exif, Outline};
use crate::{
    Encoding, Error, Image, Interpolation, PixelStatistics, Result, decode, misnamed, resize, scaled_size,
};

/// An encoded image and its properties.
pub(super) struct Stored {
    /// File extension: `jpg`, `png` or `ppm`.
    pub(super) extension: &'static str,
    pub(super) bytes: Vec<u8>,
    /// Height and width of the source image.
    pub(super) came: (usize, usize),
    /// Height and width of the stored image.
    pub(super) size: (usize, usize),
    pub(super) statistics: PixelStatistics,
    /// Unusual properties of the source image, for the manifest.
    pub(super) anomalies: Vec<&'static str>,
}

/// Converts an image. Removes or clips invalid bounding boxes of `entry`.
///
/// # Errors
/// [`Error::Decode`] if the image is bad, or cannot be decoded or encoded.
pub(super) fn store(entry: &mut Entry, options: &PrepareOptions) -> Result<Stored> {
    if let Some(reason) = entry.bad.take() {
        return Err(Error::Decode { path: entry.path.clone(), reason });
    }
    let image = decode(&entry.bytes, &entry.path)?;
    let (h, w, _) = image.dim();
    let outline = entry.bytes.starts_with(&[0xFF, 0xD8]).then(|| Outline::of(&entry.bytes));
    let components = outline.and_then(|outline| outline.components);
    let mut anomalies = Vec::new();
    match misnamed(&entry.bytes, &entry.path) {
        Some("PNG") => anomalies.push("PNG with another file extension"),
        Some("JPEG") => anomalies.push("JPEG with another file extension"),
        Some(_) => anomalies.push("other format with another file extension"),
        None => {}
    }
    match components {
        Some(1) => anomalies.push("grey"),
        Some(4) => anomalies.push("CMYK"),
        _ => {}
    }
    match outline.and_then(|outline| outline.exif) {
        Some(Exif::Damaged) => anomalies.push("damaged EXIF data"),
        Some(Exif::Turned(_)) => anomalies.push("EXIF orientation, which is ignored"),
        _ => {}
    }
    if let Some(what) = entry.boxes.as_mut().and_then(|boxes| mend(boxes, h, w)) {
        anomalies.push(what);
    }
    let reduced = options.smallest_side.filter(|&side| h.min(w) > side);
    let image = match reduced {
        Some(side) => {
            let (h, w) = scaled_size(h, w, side);
            resize(&image, h, w, Interpolation::Bilinear)?
        }
        None => image,
    };
    let mut statistics = PixelStatistics::default();
    statistics.add(&image);
    let size = (image.dim().0, image.dim().1);
    // Without `smallest_side`, every file is copied. With it, a file that needs no reduction is copied if it
    // is a PPM, or a JPEG with fewer than four components.
    let may_stay = components.is_some_and(|n| n < 4) || entry.bytes.starts_with(b"P6");
    let as_it_came = reduced.is_none() && (options.smallest_side.is_none() || may_stay);
    let (extension, bytes) = match options.encoding {
        Encoding::Raw => ("ppm", ppm(&image)),
        Encoding::Jpeg { .. } if as_it_came => {
            let extension = if entry.bytes.starts_with(b"P6\n") { "ppm" } else { extension_of(&entry.bytes) };
            (extension, std::mem::take(&mut entry.bytes))
        }
        Encoding::Jpeg { quality } => (
            "jpg",
            jpeg(&image, quality).map_err(|reason| Error::Decode { path: entry.path.clone(), reason })?,
        ),
    };
    Ok(Stored { extension, bytes, came: (h, w), size, statistics, anomalies })
}

fn ppm(image: &Image) -> Vec<u8> {
    let (h, w, _) = image.dim();
    let mut bytes = format!("P6\n{w} {h}\n255\n").into_bytes();
    bytes.extend(image.iter());
    bytes
}

/// Encodes with 4:2:0 chroma subsampling at any quality, as is common.
fn jpeg(image: &Image, quality: u8) -> std::result::Result<Vec<u8>, String> {
    let (h, w, _) = image.dim();
    let side =
        |side: usize| u16::try_from(side).map_err(|_| format!("{h} x {w} pixels are too large for a JPEG"));
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    let image = image.as_standard_layout();
    let pixels = image.as_slice().unwrap_or(&[]);
    encoder.encode(pixels, side(w)?, side(h)?, ColorType::Rgb).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// Increments the bin of a smallest side. Bins are 32 pixels wide; the key is the lower end.
pub(super) fn count_side(bins: &mut BTreeMap<u32, u64>, side: usize) {
    *bins.entry((side / 32 * 32) as u32).or_default() += 1;
}
