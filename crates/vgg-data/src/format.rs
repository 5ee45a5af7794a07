//! Formats of image files, by content and by extension.

use std::path::Path;

use image::ImageFormat;

/// The formats that are decoded: their names and file extensions, the usual one first. torchvision reads these, too.
const FORMATS: [(ImageFormat, &str, &[&str]); 7] = [
    (ImageFormat::Jpeg, "JPEG", &["jpg", "jpeg", "jpe", "jfif", "pjpeg", "pjp", "jpg_large"]),
    (ImageFormat::Png, "PNG", &["png"]),
    (ImageFormat::Gif, "GIF", &["gif"]),
    (ImageFormat::Bmp, "BMP", &["bmp", "dib"]),
    (ImageFormat::WebP, "WebP", &["webp"]),
    (ImageFormat::Tiff, "TIFF", &["tif", "tiff"]),
    (ImageFormat::Pnm, "PNM", &["pnm", "pbm", "pgm", "ppm", "pam"]),
];

/// File extensions of image formats that are not decoded, and the formats' names.
const UNSUPPORTED: [(&str, &str); 14] = [
    ("heic", "HEIC"),
    ("heif", "HEIC"),
    ("avif", "AVIF"),
    ("jp2", "JPEG 2000"),
    ("j2k", "JPEG 2000"),
    ("jpx", "JPEG 2000"),
    ("jxl", "JPEG XL"),
    ("psd", "Photoshop"),
    ("svg", "SVG"),
    ("dng", "raw camera"),
    ("nef", "raw camera"),
    ("cr2", "raw camera"),
    ("arw", "raw camera"),
    ("dcm", "DICOM"),
];

/// Length of the start of a file that [`sniff`] needs.
pub(crate) const SNIFFED_BYTES: u64 = 32;

/// Whether a file that starts with `bytes` is an image that [`crate::decode`] reads. 32 bytes suffice. PNM files, which
/// start like text, are recognised only by their extension.
pub fn sniff(bytes: &[u8]) -> bool {
    format(bytes).is_some_and(|format| format != ImageFormat::Pnm)
}

/// Whether the extension of `path` is that of a format that is decoded.
pub(crate) fn has_image_extension(path: &Path) -> bool {
    FORMATS.iter().any(|(_, _, extensions)| has_extension(path, extensions))
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|own| extensions.iter().any(|name| own.eq_ignore_ascii_case(name)))
}

/// The name of the image format of a file that is not decoded, by its extension.
pub(crate) fn unsupported(path: &Path) -> Option<&'static str> {
    let own = path.extension()?;
    UNSUPPORTED.iter().find(|(name, _)| own.eq_ignore_ascii_case(name)).map(|(_, format)| *format)
}

/// The format of `bytes`, such as `JPEG`, if `path` has the file extension of another format. PNM files, which start
/// like text, are not named.
pub fn misnamed(bytes: &[u8], path: &Path) -> Option<&'static str> {
    let found = format(bytes).filter(|format| *format != ImageFormat::Pnm)?;
    let (_, name, extensions) = FORMATS.iter().find(|(format, _, _)| *format == found)?;
    (path.extension().is_some() && !has_extension(path, extensions)).then_some(*name)
}

/// The format of a file by its first bytes, if it is one that is decoded.
pub(crate) fn format(bytes: &[u8]) -> Option<ImageFormat> {
    match bytes {
        [0xFF, 0xD8, 0xFF, ..] => Some(ImageFormat::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(ImageFormat::Png),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(ImageFormat::Gif),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(ImageFormat::WebP),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(ImageFormat::Tiff),
        // The sizes of the known headers: two letters alone could start a text.
        [b'B', b'M', rest @ ..]
            if matches!(rest.get(12..16), Some([12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])) =>
        {
            Some(ImageFormat::Bmp)
        }
        [b'P', b'1'..=b'7', b'\n' | b'\r' | b' ' | b'\t' | b'#', ..] => Some(ImageFormat::Pnm),
        _ => None,
    }
}

/// The usual file extension of an image.
#[cfg(feature = "prepare")]
pub(crate) fn extension_of(bytes: &[u8]) -> &'static str {
    let found = FORMATS.iter().find(|(own, _, _)| format(bytes) == Some(*own));
    found.map_or("png", |(_, _, extensions)| extensions[0])
}

/// What a file that is not decoded seems to be, for error messages, with what to do.
pub(crate) fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    let brand = bytes.get(4..12).and_then(|start| start.strip_prefix(b"ftyp"));
    if let Some(brand) = brand {
        return match brand {
            b"avif" | b"avis" => Some("AVIF, which is not supported: convert it to JPEG or PNG"),
            b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1" => {
                Some("HEIC, which is not supported: convert it to JPEG or PNG")
            }
            _ => Some("a video or another MP4 file"),
        };
    }
    match bytes {
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xFF, 0x4F, 0xFF, 0x51, ..] => {
            Some("JPEG 2000, which is not supported: convert it to JPEG or PNG")
        }
        [0xFF, 0x0A, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => {
            Some("JPEG XL, which is not supported: convert it to JPEG or PNG")
        }
        _ if bytes.starts_with(b"%PDF") => Some("a PDF document"),
        _ if bytes.starts_with(b"PK\x03\x04") => Some("a ZIP archive"),
        _ => vgg_files::not_the_file(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognised_by_content() {
        let bmp = [&b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0"[..], &[40, 0, 0, 0]].concat();
        for (bytes, format, name) in [
            (&b"GIF89a"[..], Some(ImageFormat::Gif), Some("GIF")),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Some(ImageFormat::WebP), Some("WebP")),
            (b"MM\0\x2a\0\0", Some(ImageFormat::Tiff), Some("TIFF")),
            (&bmp, Some(ImageFormat::Bmp), Some("BMP")),
            (b"P5\n1 1\n255\nx", Some(ImageFormat::Pnm), None),
            (b"BMW is a brand of cars.", None, None),
            (b"RIFF\x10\0\0\0WAVEfmt ", None, None),
            (b"", None, None),
        ] {
            assert_eq!(
                (super::format(bytes), misnamed(bytes, Path::new("x.jfif"))),
                (format, name),
                "{bytes:?}"
            );
        }
        assert!(!sniff(b"P5\n1 1\n255\nx"));
    }

    #[test]
    fn other_files_are_named() {
        for (bytes, words) in [
            (&b"\0\0\0\x1cftypheic\0\0"[..], "HEIC"),
            (b"\0\0\0\x1cftypavif\0\0", "AVIF"),
            (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"  <!doctype html>", "web page"),
        ] {
            assert!(looks_like(bytes).unwrap().contains(words), "{words}");
        }
        assert_eq!((looks_like(b"text"), unsupported(Path::new("a.HEIC"))), (None, Some("HEIC")));
    }
}
