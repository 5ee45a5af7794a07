//! Fuzzes all readers of weights. `VGG_FUZZ_FORMAT` keeps a run on one reader: `legacy`, `zip`, `caffe` and `onnx`
//! put the format's signature before the input; `pickle` and `npy` put the input into an archive with valid
//! checksums, as torch's `data.pkl` or an array of an `.npz`; other values leave the input as it is.

#![no_main]

use std::io::{Cursor, Write};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vgg_tensor::Device;
use vgg_weights::{load, read_metadata};
use zip::write::SimpleFileOptions;

static FORMAT: LazyLock<String> = LazyLock::new(|| std::env::var("VGG_FUZZ_FORMAT").unwrap_or_default());
static DEVICE: LazyLock<Device> = LazyLock::new(|| Device::cpu(1).expect("a CPU"));

fn prefixed(start: &[u8], data: &[u8]) -> Vec<u8> {
    if data.starts_with(start) { data.to_vec() } else { [start, data].concat() }
}

fn archive(members: &[(&str, &[u8])]) -> zip::result::ZipResult<Vec<u8>> {
    let mut file = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in members {
        file.start_file(*name, stored)?;
        file.write_all(bytes)?;
    }
    Ok(file.finish()?.into_inner())
}

fn file(data: &[u8]) -> Vec<u8> {
    match FORMAT.as_str() {
        "legacy" => prefixed(&[0x80, 2, 0x8a, 10], data),
        "zip" => prefixed(b"PK\x03\x04", data),
        "caffe" => prefixed(&[0xa2, 0x06], data),
        "onnx" => prefixed(&[0x08, 0x08, 0x3a], data),
        "pickle" => {
            let storages = ["archive/data/0", "archive/data/1"].map(|name| (name, [0; 1024].as_slice()));
            let members = [("archive/data.pkl", data), storages[0], storages[1], ("archive/version", b"3\n")];
            archive(&members).unwrap_or_default()
        }
        "npy" => archive(&[("block1_conv1/kernel.npy", &prefixed(b"\x93NUMPY\x01\0", data))]).unwrap_or_default(),
        _ => data.to_vec(),
    }
}

fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("vgg-fuzz-{}", std::process::id()));
    if std::fs::write(&path, file(data)).is_ok() {
        let _ = read_metadata(&path);
        let _ = load(&path, &DEVICE);
    }
});
