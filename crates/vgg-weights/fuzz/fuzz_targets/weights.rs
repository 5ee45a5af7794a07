//! Every reader of weights, found out from the content: `VGG_FUZZ_FORMAT` (safetensors, zip, legacy or caffe) puts a
//! beginning before the input, so that a run stays with one reader.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vgg_tensor::Device;
use vgg_weights::{load, read_metadata};

static START: LazyLock<&[u8]> = LazyLock::new(|| match std::env::var("VGG_FUZZ_FORMAT").as_deref() {
    Ok("legacy") => &[0x80, 2, 0x8a, 10],
    Ok("zip") => b"PK\x03\x04",
    Ok("caffe") => &[0xa2, 0x06],
    _ => &[],
});

static DEVICE: LazyLock<Device> = LazyLock::new(|| Device::cpu(1).expect("a CPU"));

fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("vgg-fuzz-{}", std::process::id()));
    let file = if data.starts_with(&START) { data.to_vec() } else { [&START, data].concat() };
    if std::fs::write(&path, file).is_ok() {
        let _ = read_metadata(&path);
        let _ = load(&path, &DEVICE);
    }
});
