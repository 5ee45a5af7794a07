//! Fuzzes the decoding of images: the format, the headers that are read here, and the decoders.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vgg_data::{DecodeOptions, decode_with, misnamed};

fuzz_target!(|data: &[u8]| {
    let path = Path::new("x.jpg");
    let _ = misnamed(data, path);
    for exif_orientation in [false, true] {
        // Small images, so that many are tried.
        let options = DecodeOptions { max_pixels: 1 << 20, exif_orientation };
        let _ = decode_with(data, path, &options);
    }
});
