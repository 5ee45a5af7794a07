//! Decoding of JPEG and PNG files, and of the binary PPM of prepared data sets, to RGB pixels.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, ImageReader, Limits};
use ndarray::ArrayView3;

use crate::jpeg::Outline;
#[cfg(feature = "turbojpeg")]
use crate::jpeg::turbo;
use crate::{Error, Image, Result};

/// Largest side that is decoded, in pixels.
const MAX_SIDE: u32 = 20_000;
/// Memory limit for decoding one image, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// The JPEG decoder of this build. Pixels of different decoders differ by a few levels.
pub const JPEG_DECODER: &str = if cfg!(feature = "turbojpeg") { "libjpeg-turbo" } else { "zune-jpeg" };

/// Decodes a JPEG, PNG or 8-bit binary PPM image. The format is detected from the content; `path` is for
/// messages.
///
/// Grey and CMYK are converted to RGB, alpha is dropped, and 16 bits are reduced to 8. EXIF orientation is
/// ignored. With the feature `turbojpeg`, libjpeg-turbo decodes JPEGs: its values may differ by a few levels,
/// and it also reads arithmetic coding.
///
/// # Errors
/// [`Error::Decode`] if the file is empty, of another format, truncated, damaged or too large.
pub fn decode(bytes: &[u8], path: &Path) -> Result<Image> {
    let fail = |reason: String| Error::Decode { path: path.to_owned(), reason };
    if bytes.is_empty() {
        return Err(fail("the file is empty (0 bytes)".into()));
    }
    if bytes.starts_with(b"P6\n") {
        let pixels = ppm(bytes).map(|pixels| pixels.to_owned());
        return pixels.ok_or_else(|| fail("it is not a complete 8-bit PPM".into()));
    }
    let Some(format) = format(bytes) else {
        return Err(fail(format!("it is neither a JPEG nor a PNG{}", what_else(bytes))));
    };
    let size = if format == ImageFormat::Jpeg {
        let outline = Outline::of(bytes);
        if !outline.whole {
            return Err(fail("the JPEG is truncated: its end marker is missing".into()));
        }
        outline.size
    } else {
        let side = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        side(20).zip(side(16))
    };
    if let Some((h, w)) = size.filter(|&(h, w)| too_large(h, w)) {
        return Err(fail(format!(
            "its header gives {h} x {w} pixels; the limits are {MAX_SIDE} per side and 1 GiB in total"
        )));
    }
    #[cfg(feature = "turbojpeg")]
    if format == ImageFormat::Jpeg {
        return turbo::decode(bytes, size, MAX_SIDE).map_err(fail);
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let pixels = reader.decode().map_err(|e| fail(e.to_string()))?.into_rgb8();
    let (w, h) = pixels.dimensions();
    Image::from_shape_vec((h as usize, w as usize, 3), pixels.into_raw()).map_err(|e| fail(e.to_string()))
}

/// The pixels of an 8-bit binary PPM as in prepared data sets: a line with width and height, a line `255`,
/// then the pixels.
pub(crate) fn ppm(bytes: &[u8]) -> Option<ArrayView3<'_, u8>> {
    let mut lines = bytes.strip_prefix(b"P6\n")?.splitn(3, |&byte| byte == b'\n');
    let size = std::str::from_utf8(lines.next()?).ok()?;
    let (w, h) = size.split_once(' ')?;
    let (w, h): (usize, usize) = (w.parse().ok()?, h.parse().ok()?);
    if w == 0 || h == 0 || w.max(h) > MAX_SIDE as usize {
        return None;
    }
    let pixels = lines.next().filter(|&most| most == b"255").and(lines.next())?;
    // A longer file has rows of another width.
    let pixels = (pixels.len() == 3 * h * w).then_some(pixels)?;
    ArrayView3::from_shape((h, w, 3), pixels).ok()
}

fn too_large(h: u32, w: u32) -> bool {
    h.max(w) > MAX_SIDE || 3 * u64::from(h) * u64::from(w) > MAX_BYTES
}

/// Whether a file that starts with `bytes` is a JPEG or PNG image.
pub fn sniff(bytes: &[u8]) -> bool {
    format(bytes).is_some()
}

/// The format of `bytes`, `JPEG` or `PNG`, if the file extension of `path` is that of another format.
pub fn misnamed(bytes: &[u8], path: &Path) -> Option<&'static str> {
    let extension = path.extension()?;
    let is = |names: &[&str]| names.iter().any(|name| extension.eq_ignore_ascii_case(name));
    match format(bytes)? {
        ImageFormat::Jpeg if !is(&["jpg", "jpeg", "jpe"]) => Some("JPEG"),
        ImageFormat::Png if !is(&["png"]) => Some("PNG"),
        _ => None,
    }
}

fn format(bytes: &[u8]) -> Option<ImageFormat> {
    if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        Some(ImageFormat::Jpeg)
    } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some(ImageFormat::Png)
    } else {
        None
    }
}

/// A hint for error messages: the format that the first bytes suggest.
fn what_else(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'G', b'I', b'F', ..] => " (a GIF)",
        [b'B', b'M', ..] => " (a BMP)",
        [b'R', b'I', b'F', b'F', ..] => " (possibly a WebP)",
        [b'<', ..] => " (possibly a web page)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn ppm_size_must_match_its_header() {
        let ppm = |text: &str| decode(text.as_bytes(), std::path::Path::new("x.ppm"));
        assert_eq!(ppm("P6\n1 2\n255\nabcdef").unwrap().as_slice(), Some(b"abcdef".as_slice()));
        for bad in [
            "P6\n0 0\n255\n",
            "P6\n1 2\n255\nabcde",
            "P6\n1 2\n255\nabcdefg",
            "P6\n1 2\n65535\nabcdef",
            "P6\n99999999999 1\n255\n",
            "P6\n",
        ] {
            assert!(ppm(bad).is_err(), "{bad}");
        }
    }
}
