//! JPEG decoding by libjpeg-turbo, which Pillow and torchvision also use: it is faster and gives the same
//! values as theirs.

use std::cell::RefCell;
use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

use turbojpeg_sys as tj;

use crate::Image;

/// Largest number of scans of a progressive JPEG, a limit against decompression bombs.
const MOST_SCANS: c_int = 500;
/// Largest memory for a progressive JPEG, in MiB.
const MOST_MEMORY: c_int = 1024;

/// Prefixes of libjpeg-turbo's warnings. They report damage that still leaves an image, and are ignored, as
/// in Pillow. The library's error code cannot distinguish warnings, because it does not change when an error
/// follows a warning.
const WARNINGS: [&str; 5] = [
    "Corrupt JPEG data",
    "Unknown Adobe",
    "Inconsistent progression",
    "Warning:",
    "Invalid SOS parameters for sequential",
];

/// Decodes a JPEG whose frame header gives `size`, (height, width).
///
/// # Errors
/// The message of libjpeg-turbo, or the property of the image that is not supported.
pub(crate) fn decode(bytes: &[u8], size: Option<(u32, u32)>) -> Result<Image, String> {
    decode_and_warn(bytes, size).map(|(image, _)| image)
}

/// [`decode`], which fails if the data end early.
///
/// # Errors
/// As [`decode`], and if the data end before the last row.
pub(crate) fn decode_complete(bytes: &[u8], size: Option<(u32, u32)>) -> Result<Image, String> {
    match decode_and_warn(bytes, size)? {
        (_, warning) if warning.contains("premature end of data segment") => Err(warning),
        (image, _) => Ok(image),
    }
}

/// Decodes, and returns the library's warning, or an empty text.
fn decode_and_warn(bytes: &[u8], size: Option<(u32, u32)>) -> Result<(Image, String), String> {
    thread_local!(static DECODER: RefCell<Option<Decoder>> = const { RefCell::new(None) });
    DECODER.with_borrow_mut(|decoder| {
        let decoder = match decoder {
            Some(decoder) => decoder,
            none => none.insert(Decoder::new()?),
        };
        decoder.decode(bytes, size)
    })
}

/// A libjpeg-turbo decompressor handle.
struct Decoder(NonNull<std::ffi::c_void>);

impl Decoder {
    fn new() -> Result<Decoder, String> {
        // SAFETY: the function may be called at any time.
        let handle = unsafe { tj::tj3Init(tj::TJINIT_TJINIT_DECOMPRESS as c_int) };
        let decoder = Decoder(NonNull::new(handle).ok_or("libjpeg-turbo could not be initialised")?);
        decoder.set(tj::TJPARAM_TJPARAM_SCANLIMIT, MOST_SCANS)?;
        decoder.set(tj::TJPARAM_TJPARAM_MAXMEMORY, MOST_MEMORY)?;
        Ok(decoder)
    }

    fn decode(&mut self, bytes: &[u8], size: Option<(u32, u32)>) -> Result<(Image, String), String> {
        // SAFETY: `tj3Init` returned the handle, and `bytes` has `bytes.len()` bytes.
        let status =
            unsafe { tj::tj3DecompressHeader(self.0.as_ptr(), bytes.as_ptr(), bytes.len() as tj::size_t) };
        self.checked(status)?;
        let (h, w) = (self.get(tj::TJPARAM_TJPARAM_JPEGHEIGHT), self.get(tj::TJPARAM_TJPARAM_JPEGWIDTH));
        let side = |side: c_int| usize::try_from(side).ok().filter(|&s| s > 0);
        let (Some(h), Some(w)) = (side(h), side(w)) else {
            return Err(format!("it has {h} x {w} pixels"));
        };
        if size != Some((h as u32, w as u32)) {
            return Err("its frame header cannot be read".into());
        }
        let bits = self.get(tj::TJPARAM_TJPARAM_PRECISION);
        if bits != 8 {
            return Err(format!("it has {bits} bits per sample, not 8"));
        }
        let colours = self.get(tj::TJPARAM_TJPARAM_COLORSPACE);
        let of_ink = [tj::TJCS_TJCS_CMYK, tj::TJCS_TJCS_YCCK].contains(&(colours as tj::TJCS));
        let (format, each) = if of_ink { (tj::TJPF_TJPF_CMYK, 4) } else { (tj::TJPF_TJPF_RGB, 3) };
        let mut pixels = vec![0; h * w * each];
        let pitch = c_int::try_from(w * each).map_err(|e| e.to_string())?;
        // SAFETY: `tj3Init` returned the handle, `bytes` has `length` bytes, and `pixels` has room for the
        // `h` rows of `pitch` bytes that the header states.
        let status = unsafe {
            let (data, length) = (bytes.as_ptr(), bytes.len() as tj::size_t);
            tj::tj3Decompress8(self.0.as_ptr(), data, length, pixels.as_mut_ptr(), pitch, format as c_int)
        };
        self.checked(status)?;
        let warning = if status == 0 { String::new() } else { self.message() };
        if of_ink {
            pixels = from_ink(&pixels);
        }
        let image = Image::from_shape_vec((h, w, 3), pixels).map_err(|e| e.to_string())?;
        Ok((image, warning))
    }

    fn set(&self, parameter: tj::TJPARAM, value: c_int) -> Result<(), String> {
        // SAFETY: `tj3Init` returned the handle.
        let status = unsafe { tj::tj3Set(self.0.as_ptr(), parameter as c_int, value) };
        self.checked(status)
    }

    fn get(&self, parameter: tj::TJPARAM) -> c_int {
        // SAFETY: `tj3Init` returned the handle.
        unsafe { tj::tj3Get(self.0.as_ptr(), parameter as c_int) }
    }

    /// Succeeds if `status` is success or the library's message is a warning; otherwise returns the message.
    fn checked(&self, status: c_int) -> Result<(), String> {
        let text = self.message();
        if status == 0 || WARNINGS.iter().any(|warning| text.starts_with(warning)) {
            return Ok(());
        }
        Err(text)
    }

    /// The message of the last call that failed or warned.
    fn message(&self) -> String {
        // SAFETY: `tj3Init` returned the handle, and the text is valid until the next call.
        unsafe { CStr::from_ptr(tj::tj3GetErrorStr(self.0.as_ptr())) }.to_string_lossy().into_owned()
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: `tj3Init` returned the handle, and it is not used again.
        unsafe { tj::tj3Destroy(self.0.as_ptr()) };
    }
}

/// Converts CMYK to RGB. JPEGs store CMYK inverted: 255 is no ink.
fn from_ink(pixels: &[u8]) -> Vec<u8> {
    let product = |a: u8, b: u8| {
        let product = u32::from(a) * u32::from(b) + 128;
        (((product >> 8) + product) >> 8) as u8
    };
    let pixels = pixels.as_chunks::<4>().0;
    pixels.iter().flat_map(|&[c, m, y, k]| [c, m, y].map(|colour| k - product(255 - colour, k))).collect()
}

#[cfg(test)]
mod tests {
    use jpeg_encoder::{ColorType, Encoder};

    use super::decode;

    #[test]
    fn an_error_after_a_warning_is_reported() {
        let (h, w) = (96, 128);
        let pixels: Vec<u8> = (0..h * w * 3).map(|i| 100 + (i * 7 % 150) as u8).collect();
        let mut whole = Vec::new();
        let mut encoder = Encoder::new(&mut whole, 90);
        encoder.set_progressive(true);
        encoder.encode(&pixels, w as u16, h as u16, ColorType::Rgb).unwrap();
        let (mut taken, mut refused) = (0, 0);
        for i in 0..2000_usize {
            let mut bytes = whole.clone();
            // Damage within the scans and their headers.
            for k in 0..1 + i % 3 {
                let at = 200 + (i * 7919 + k * 104_729) % (bytes.len() - 202);
                bytes[at] = (i * 31 + k * 17) as u8;
            }
            match decode(&bytes, Some((h as u32, w as u32))) {
                Ok(image) => {
                    let black = image.iter().filter(|value| **value == 0).count();
                    assert!(black * 2 < image.len(), "{i}: {black} of {} values are 0", image.len());
                    taken += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(taken > 10 && refused > 100, "{taken} decoded, {refused} rejected");
    }
}
