//! Decoding of image files, and of the binary PPM of prepared data sets, to RGB pixels.

use std::fs;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use ndarray::ArrayView3;
use vgg_error::printable;

use crate::decode_budget::reserve;
use crate::error::io_error;
use crate::format::{format, looks_like};
#[cfg(feature = "turbojpeg")]
use crate::jpeg::turbo;
use crate::jpeg::{self, Exif, Outline};
use crate::{Error, Image, Result};

/// Largest image file that is read, in bytes: 512 MiB.
const MAX_FILE_BYTES: u64 = 512 << 20;
/// Memory for decoding beside the pixels: colour profiles, compression windows.
const EXTRA_BYTES: u64 = 64 << 20;
/// Memory per pixel for decoding: 16-bit RGBA, and the result. A progressive JPEG needs less: nine bytes.
const BYTES_PER_PIXEL: u64 = 11;

/// The JPEG decoder of this build. Pixels of different decoders differ by a few levels.
pub const JPEG_DECODER: &str = if cfg!(feature = "turbojpeg") { "libjpeg-turbo" } else { "zune-jpeg" };

/// How image files are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Largest number of pixels of an image; larger ones are rejected before they are decoded. Default: 100
    /// million.
    pub max_pixels: u64,
    /// Whether to turn and flip images as their EXIF orientation says. Default: no, as in the paper.
    pub exif_orientation: bool,
}

impl Default for DecodeOptions {
    fn default() -> DecodeOptions {
        DecodeOptions { max_pixels: 100_000_000, exif_orientation: false }
    }
}

/// [`decode_with`] the default options.
///
/// # Errors
/// As [`decode_with`].
pub fn decode(bytes: &[u8], path: &Path) -> Result<Image> {
    decode_with(bytes, path, &DecodeOptions::default())
}

/// Decodes an image: JPEG, PNG, WebP, TIFF (first page), BMP, GIF (first frame) or PNM. The format is detected from the
/// content; `path` is for messages.
///
/// Grey and CMYK are converted to RGB, alpha is dropped, and 16 bits are reduced to 8. JPEGs without an end marker are
/// accepted as in Pillow, if they are padded with zeros and complete. With the feature `turbojpeg`, libjpeg-turbo
/// decodes JPEGs: its values may differ by a few levels, and it also reads arithmetic coding.
///
/// # Errors
/// [`Error::Decode`] if the file is empty, of another format, truncated, damaged or too large.
pub fn decode_with(bytes: &[u8], path: &Path, options: &DecodeOptions) -> Result<Image> {
    let fail = |reason: String| Error::Decode { path: path.to_owned(), reason };
    if bytes.is_empty() {
        return Err(fail("the file is empty (0 bytes)".into()));
    }
    if let Some(pixels) = ppm(bytes).filter(|pixels| (pixels.len() / 3) as u64 <= options.max_pixels) {
        return Ok(pixels.to_owned());
    }
    match format(bytes) {
        Some(ImageFormat::Jpeg) => without_panic(|| decode_jpeg(bytes, options)).map_err(fail),
        Some(format) => without_panic(|| decode_other(bytes, format, options)).map_err(fail),
        None => Err(fail(match looks_like(bytes) {
            Some(what) => format!("it is {what}"),
            None => "its format is unknown".into(),
        })),
    }
}

/// Reads an image file.
///
/// # Errors
/// [`Error::Decode`] if it is a dangling link, not a regular file or larger than 512 MiB; [`Error::Missing`] or
/// [`Error::Io`] if it cannot be read.
pub fn read_image(path: &Path) -> Result<Vec<u8>> {
    let fail = |reason: String| Err(Error::Decode { path: path.to_owned(), reason });
    // Before the file is opened: opening a named pipe would wait for its writer.
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) => match fs::read_link(path) {
            Ok(target) if e.kind() == std::io::ErrorKind::NotFound => {
                return fail(format!("it is a dangling link to {}", printable(&target)));
            }
            _ => return Err(io_error("read", path)(e)),
        },
    };
    if !metadata.is_file() {
        return fail("it is not a regular file".into());
    }
    let file = fs::File::open(path).map_err(io_error("read", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return fail("the file is larger than 512 MiB".into());
    }
    Ok(bytes)
}

/// Calls a decoder of another crate. On a damaged file it may panic, which must not end the program.
fn without_panic(
    decode: impl FnOnce() -> std::result::Result<Image, String>,
) -> std::result::Result<Image, String> {
    // What the decoder was writing is dropped.
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err("its decoder panicked".into()))
}

fn decode_jpeg(bytes: &[u8], options: &DecodeOptions) -> std::result::Result<Image, String> {
    let outline = Outline::of(bytes);
    let (h, w) = outline.size.ok_or("the JPEG has no frame header")?;
    check_size(h, w, options)?;
    let zeros_end_it = outline.is_baseline && bytes.ends_with(&[0, 0]);
    if !outline.whole && !zeros_end_it {
        return Err("the JPEG is truncated: its end marker is missing".into());
    }
    let _reserved = reserve(BYTES_PER_PIXEL * u64::from(h) * u64::from(w));
    let bytes = jpeg::as_libjpeg_reads(bytes, &outline);
    let image = match outline.whole {
        true => jpeg_pixels(&bytes, outline.size)?,
        false => complete_pixels(&bytes, outline.size)?,
    };
    match outline.exif {
        Some(Exif::Turned(orientation)) if options.exif_orientation => Ok(turned(image, orientation)),
        _ => Ok(image),
    }
}

/// The pixels of a JPEG with zeros in place of the end marker, if no data are missing.
#[cfg(feature = "turbojpeg")]
fn complete_pixels(bytes: &[u8], size: Option<(u32, u32)>) -> std::result::Result<Image, String> {
    turbo::decode_complete(&[bytes, &[0xFF, 0xD9]].concat(), size)
        .map_err(|reason| format!("the JPEG is truncated: {reason}"))
}

/// The pixels of a JPEG with zeros in place of the end marker, if no data are missing.
#[cfg(not(feature = "turbojpeg"))]
fn complete_pixels(bytes: &[u8], size: Option<(u32, u32)>) -> std::result::Result<Image, String> {
    let image = jpeg_pixels(bytes, size)?;
    // Where data are missing, the decoder writes grey; from further zeros, it decodes something else.
    match image == jpeg_pixels(&[bytes, &vec![0; 1 << 20]].concat(), size)? {
        true => Ok(image),
        false => Err("the JPEG is truncated".into()),
    }
}

#[cfg(feature = "turbojpeg")]
fn jpeg_pixels(bytes: &[u8], size: Option<(u32, u32)>) -> std::result::Result<Image, String> {
    turbo::decode(bytes, size)
}

#[cfg(not(feature = "turbojpeg"))]
fn jpeg_pixels(bytes: &[u8], _: Option<(u32, u32)>) -> std::result::Result<Image, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Jpeg);
    // The size is known to be within the limit.
    reader.no_limits();
    to_pixels(reader.decode().map_err(|e| e.to_string())?)
}

fn decode_other(
    bytes: &[u8],
    format: ImageFormat,
    options: &DecodeOptions,
) -> std::result::Result<Image, String> {
    let text = |e: image::ImageError| e.to_string();
    if let Some(length) = png_palette_bytes(bytes).filter(|length| !length.is_multiple_of(3)) {
        // The `png` crate panics on it.
        return Err(format!("its palette has {length} bytes, which is not a multiple of 3"));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(options.max_pixels.saturating_mul(8).saturating_add(EXTRA_BYTES));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(text)?;
    let (w, h) = decoder.dimensions();
    check_size(h, w, options)?;
    let orientation = match options.exif_orientation {
        true => decoder.orientation().map_err(text)?,
        false => Orientation::NoTransforms,
    };
    let _reserved = reserve(BYTES_PER_PIXEL * u64::from(h) * u64::from(w) + EXTRA_BYTES / 16);
    let mut image = DynamicImage::from_decoder(decoder).map_err(text)?;
    image.apply_orientation(orientation);
    to_pixels(image)
}

/// Length of the palette of a PNG, if it has one.
fn png_palette_bytes(bytes: &[u8]) -> Option<u32> {
    let mut rest = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    loop {
        let (length, after) = rest.split_first_chunk()?;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length);
        match kind {
            b"PLTE" => return Some(length),
            b"IDAT" => return None,
            // The checksum follows the contents.
            _ => rest = after.get(usize::try_from(length).ok()?.checked_add(4)?..)?,
        }
    }
}

fn check_size(h: u32, w: u32, options: &DecodeOptions) -> std::result::Result<(), String> {
    let max = options.max_pixels;
    match u64::from(h) * u64::from(w) {
        0 => Err(format!("its header gives {h} x {w} pixels")),
        pixels if pixels > max => {
            Err(format!("its header gives {h} x {w} pixels; at most {max} are allowed"))
        }
        _ => Ok(()),
    }
}

fn to_pixels(image: DynamicImage) -> std::result::Result<Image, String> {
    let pixels = image.into_rgb8();
    let (w, h) = pixels.dimensions();
    Image::from_shape_vec((h as usize, w as usize, 3), pixels.into_raw()).map_err(|e| e.to_string())
}

/// Turns and flips an image by its EXIF orientation.
fn turned(image: Image, orientation: u8) -> Image {
    let (h, w, _) = image.dim();
    let pixels = RgbImage::from_raw(w as u32, h as u32, image.iter().copied().collect());
    match (pixels, Orientation::from_exif(orientation)) {
        (Some(pixels), Some(orientation)) => {
            let mut upright = DynamicImage::from(pixels);
            upright.apply_orientation(orientation);
            to_pixels(upright).unwrap_or(image)
        }
        _ => image,
    }
}

/// The pixels of an 8-bit binary PPM as in prepared data sets: a line with width and height, a line `255`,
/// then the pixels.
pub(crate) fn ppm(bytes: &[u8]) -> Option<ArrayView3<'_, u8>> {
    let mut lines = bytes.strip_prefix(b"P6\n")?.splitn(3, |&byte| byte == b'\n');
    let size = std::str::from_utf8(lines.next()?).ok()?;
    let (w, h) = size.split_once(' ')?;
    let (w, h): (usize, usize) = (w.parse().ok()?, h.parse().ok()?);
    let length = w.checked_mul(h)?.checked_mul(3).filter(|length| *length > 0)?;
    let pixels = lines.next().filter(|&most| most == b"255").and(lines.next())?;
    // A longer file has rows of another width.
    let pixels = (pixels.len() == length).then_some(pixels)?;
    ArrayView3::from_shape((h, w, 3), pixels).ok()
}

#[cfg(test)]
mod tests {
    use super::{decode, png_palette_bytes, without_panic};

    #[test]
    fn png_palettes_of_incomplete_colours_are_rejected() {
        let png = |palette: &[u8]| {
            let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
            let header = b"IHDR\0\0\0\x01\0\0\0\x01\x08\x03\0\0\0";
            let pixel = b"IDAT\x78\x01\x01\x02\0\xfd\xff\0\0\0\x02\0\x01";
            for chunk in [&header[..], &[b"PLTE", palette].concat(), pixel, b"IEND"] {
                png.extend((chunk.len() as u32 - 4).to_be_bytes());
                png.extend(chunk);
                png.extend(crc32fast::hash(chunk).to_be_bytes());
            }
            png
        };
        assert_eq!(png_palette_bytes(&png(&[7, 8, 9])), Some(3));
        let path = std::path::Path::new("x.png");
        assert_eq!(decode(&png(&[7, 8, 9]), path).unwrap().as_slice(), Some(&[7, 8, 9][..]));
        for length in [1, 2, 4] {
            let refused = decode(&png(&vec![7; length]), path).unwrap_err().to_string();
            assert!(
                refused.ends_with(&format!("its palette has {length} bytes, which is not a multiple of 3"))
            );
        }
    }

    #[test]
    fn a_panic_of_a_decoder_is_an_error() {
        let broken = without_panic(|| panic!("index out of range"));
        assert_eq!(broken.unwrap_err(), "its decoder panicked");
    }

    #[test]
    fn ppm_size_must_match_its_header() {
        let ppm = |text: &str| decode(text.as_bytes(), std::path::Path::new("x.ppm"));
        assert_eq!(ppm("P6\n1 2\n255\nabcdef").unwrap().as_slice(), Some(b"abcdef".as_slice()));
        for bad in [
            "P6\n0 0\n255\n",
            "P6\n1 2\n255\nabcde",
            "P6\n1 2\n65535\nabcdef",
            "P6\n99999999999 1\n255\n",
            "P6\n",
        ] {
            assert!(ppm(bad).is_err(), "{bad}");
        }
    }
}
