//! What the end-to-end tests share.

use std::path::{Path, PathBuf};

use vgg_layers::{NamedTensor, Network, NetworkSpec};
use vgg_tensor::{Device, DeviceConfig, DeviceKind, Precision};
use vgg_testkit::{assert_close, hashed};

/// A committed file of reference values.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A folder of real images below the one that `VGG_TEST_IMAGES` names. They are not part of the repository: without the variable
/// `None`, and it is said that a test is skipped, unless `VGG_REQUIRE` names `images`.
pub fn real_images(name: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("VGG_TEST_IMAGES") else {
        vgg_testkit::skip("images", &format_args!("VGG_TEST_IMAGES names no folder with {name}"));
        return None;
    };
    let folder = Path::new(&root).join(name);
    assert!(folder.is_dir(), "VGG_TEST_IMAGES has no {name}");
    Some(folder)
}

/// Asserts that two lists of arrays have the same names in the same order, and that each array is within `tolerance` of its
/// reference.
#[track_caller]
pub fn assert_arrays_close(ours: &[NamedTensor], expected: &[NamedTensor], tolerance: f64, what: &str) {
    let names = |arrays: &[NamedTensor]| arrays.iter().map(|array| array.name.clone()).collect::<Vec<_>>();
    assert!(!expected.is_empty(), "{what}: nothing to compare with");
    assert_eq!(names(ours), names(expected), "{what}");
    for (ours, expected) in ours.iter().zip(expected) {
        assert_close(&ours.values, &expected.values, tolerance, &format!("{what}, {}", ours.name));
    }
}

/// A network with hashed weights.
pub fn hashed_network(spec: NetworkSpec, device: &Device) -> Network {
    let mut network = Network::new(spec, device).unwrap();
    for (name, shape) in network.spec().file_shapes().unwrap() {
        let fan_in: usize = shape[1..].iter().product();
        let bound = if shape.len() == 1 { 0.1 } else { (6.0 / fan_in as f64).sqrt() as f32 };
        let values = hashed(&name, bound, shape.iter().product());
        network.load_tensor(&NamedTensor { name, shape, values }).unwrap();
    }
    network
}

/// The first GPU. Where there is none, it is said aloud that a test is skipped, unless `VGG_REQUIRE` names `gpu`.
pub fn gpu(precision: Precision) -> Option<Device> {
    match Device::open(&DeviceConfig { kind: DeviceKind::Cuda(0), precision, ..DeviceConfig::default() }) {
        Ok(device) => Some(device),
        Err(e) => {
            vgg_testkit::skip("gpu", &e);
            None
        }
    }
}
