//! From the bytes of a JPEG or PNG file to RGB pixels.

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
/// Memory that decoding one image may take.
const MAX_BYTES: u64 = 1 << 30;

/// What decodes JPEGs in this build: pixels depend on it, by a few levels.
pub const JPEG_DECODER: &str = if cfg!(feature = "turbojpeg") { "libjpeg-turbo" } else { "zune-jpeg" };

/// Decodes a JPEG or PNG image, or the pixels of a binary PPM of 8 bits, found by its content.
///
/// Grey and CMYK become RGB, alpha is dropped, 16 bits become 8. EXIF orientation is ignored. `path` is for messages. With the
/// feature `turbojpeg`, JPEGs are decoded by libjpeg-turbo, whose values may be a few levels away, and which reads arithmetic
/// coding too.
///
/// # Errors
/// [`Error::Decode`] with the path and the reason: empty, another format, truncated, damaged, too large.
pub fn decode(bytes: &[u8], path: &Path) -> Result<Image> {
    let fail = |reason: String| Error::Decode { path: path.to_owned(), reason };
    if bytes.is_empty() {
        return Err(fail("the file is empty (0 bytes)".into()));
    }
    if bytes.starts_with(b"P6\n") {
        let pixels = ppm(bytes).map(|pixels| pixels.to_owned());
        return pixels.ok_or_else(|| fail("it is no PPM of 8 bits, or not a whole one".into()));
    }
    let Some(format) = format(bytes) else {
        return Err(fail(format!("it is neither JPEG nor PNG{}", what_else(bytes))));
    };
    let size = if format == ImageFormat::Jpeg {
        let outline = Outline::of(bytes);
        if !outline.whole {
            return Err(fail("the JPEG stream is cut off: its end marker is missing".into()));
        }
        outline.size
    } else {
        let side = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        side(20).zip(side(16))
    };
    if let Some((h, w)) = size.filter(|&(h, w)| too_large(h, w)) {
        return Err(fail(format!(
            "it claims {h} x {w} pixels; at most {MAX_SIDE} to a side and 1 GiB in all are decoded"
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

/// The pixels of a binary PPM of 8 bits, as it is written here: width and height, 255, and pixels.
pub(crate) fn ppm(bytes: &[u8]) -> Option<ArrayView3<'_, u8>> {
    let mut lines = bytes.strip_prefix(b"P6\n")?.splitn(3, |&byte| byte == b'\n');
    let size = std::str::from_utf8(lines.next()?).ok()?;
    let (w, h) = size.split_once(' ')?;
    let (w, h): (usize, usize) = (w.parse().ok()?, h.parse().ok()?);
    if w == 0 || h == 0 || w.max(h) > MAX_SIDE as usize {
        return None;
    }
    let pixels = lines.next().filter(|&most| most == b"255").and(lines.next())?;
    // More bytes than the size takes would be rows of another width.
    let pixels = (pixels.len() == 3 * h * w).then_some(pixels)?;
    ArrayView3::from_shape((h, w, 3), pixels).ok()
}

fn too_large(h: u32, w: u32) -> bool {
    h.max(w) > MAX_SIDE || 3 * u64::from(h) * u64::from(w) > MAX_BYTES
}

/// Whether the first bytes of a file are those of a JPEG or PNG image.
pub fn sniff(bytes: &[u8]) -> bool {
    format(bytes).is_some()
}

/// `JPEG` or `PNG` if that is what the bytes are and the name of the file claims something else.
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

/// A hint for people, from the first bytes.
fn what_else(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'G', b'I', b'F', ..] => " (a GIF)",
        [b'B', b'M', ..] => " (a BMP)",
        [b'R', b'I', b'F', b'F', ..] => " (perhaps a WebP)",
        [b'<', ..] => " (perhaps a web page)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn pixels_are_as_many_as_a_ppm_says() {
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
