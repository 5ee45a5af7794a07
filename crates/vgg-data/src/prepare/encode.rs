//! One image: looked at, made smaller if need be, and stored.

use std::collections::BTreeMap;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::PrepareOptions;
use super::boxes::mend;
use super::entry::Entry;
use crate::jpeg::{Exif, Outline};
use crate::{
    Encoding, Error, Image, Interpolation, PixelStatistics, Result, decode, misnamed, resize, scaled_size,
};

/// An image as it is stored.
pub(super) struct Stored {
    /// What tells its format: `jpg`, `png` or `ppm`.
    pub(super) extension: &'static str,
    pub(super) bytes: Vec<u8>,
    /// Height and width that it came with.
    pub(super) came: (usize, usize),
    /// Height and width that are stored.
    pub(super) size: (usize, usize),
    pub(super) statistics: PixelStatistics,
    /// In which ways it is unusual.
    pub(super) anomalies: Vec<&'static str>,
}

/// What an image becomes.
///
/// # Errors
/// [`Error::Decode`] if it is none.
pub(super) fn store(entry: &mut Entry, options: &PrepareOptions) -> Result<Stored> {
    let image = decode(&entry.bytes, &entry.path)?;
    let (h, w, _) = image.dim();
    let outline = entry.bytes.starts_with(&[0xFF, 0xD8]).then(|| Outline::of(&entry.bytes));
    let components = outline.and_then(|outline| outline.components);
    let mut anomalies = Vec::new();
    match misnamed(&entry.bytes, &entry.path) {
        Some("PNG") => anomalies.push("PNG, whatever its name says"),
        Some(_) => anomalies.push("JPEG, whatever its name says"),
        None => {}
    }
    match components {
        Some(1) => anomalies.push("grey"),
        Some(4) => anomalies.push("CMYK"),
        _ => {}
    }
    match outline.and_then(|outline| outline.exif) {
        Some(Exif::Damaged) => anomalies.push("bad EXIF"),
        Some(Exif::Turned) => anomalies.push("EXIF says that it is turned, which is ignored"),
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
    // Small files that lose nothing stay, too.
    let may_stay = components.is_some_and(|n| n < 4) || entry.bytes.starts_with(b"P6");
    let as_it_came = reduced.is_none() && (options.smallest_side.is_none() || may_stay);
    let (extension, bytes) = match options.encoding {
        Encoding::Raw => ("ppm", ppm(&image)),
        Encoding::Jpeg { .. } if as_it_came => {
            let extension = match entry.bytes.as_slice() {
                [b'P', b'6', ..] => "ppm",
                [0xFF, 0xD8, ..] => "jpg",
                _ => "png",
            };
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

/// With colours at half the resolution each way, as others do at any quality.
fn jpeg(image: &Image, quality: u8) -> std::result::Result<Vec<u8>, String> {
    let (h, w, _) = image.dim();
    let side =
        |side: usize| u16::try_from(side).map_err(|_| format!("{h} x {w} pixels are too many for a JPEG"));
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    let image = image.as_standard_layout();
    let pixels = image.as_slice().unwrap_or(&[]);
    encoder.encode(pixels, side(w)?, side(h)?, ColorType::Rgb).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// Adds one to the bin of a smallest side: bins are 32 pixels wide and known by their lower end.
pub(super) fn count_side(bins: &mut BTreeMap<u32, u64>, side: usize) {
    *bins.entry((side / 32 * 32) as u32).or_default() += 1;
}
