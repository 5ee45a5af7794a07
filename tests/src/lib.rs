//! Helpers shared by the end-to-end tests.

use std::path::{Path, PathBuf};

use vgg_layers::{NamedTensor, Network, NetworkSpec};
use vgg_tensor::{Device, DeviceConfig, DeviceKind, Precision};
use vgg_testkit::{assert_close, pseudo_random};

/// Path of a committed file with reference values.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A folder of real images below the folder in `VGG_TEST_IMAGES`. They are not part of the repository:
/// without the variable, reports a skip and returns `None`; panics if `VGG_REQUIRE` lists `images`.
pub fn real_images(name: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("VGG_TEST_IMAGES") else {
        vgg_testkit::skip("images", &format_args!("VGG_TEST_IMAGES does not name a folder with {name}"));
        return None;
    };
    let folder = Path::new(&root).join(name);
    assert!(folder.is_dir(), "VGG_TEST_IMAGES has no {name}");
    Some(folder)
}

/// Asserts that both lists have the same names in the same order, and that each tensor is within `tolerance`
/// of its reference.
#[track_caller]
pub fn assert_arrays_close(ours: &[NamedTensor], expected: &[NamedTensor], tolerance: f64, what: &str) {
    let names = |arrays: &[NamedTensor]| arrays.iter().map(|array| array.name.clone()).collect::<Vec<_>>();
    assert!(!expected.is_empty(), "{what}: no reference tensors");
    assert_eq!(names(ours), names(expected), "{what}");
    for (ours, expected) in ours.iter().zip(expected) {
        assert_close(&ours.values, &expected.values, tolerance, &format!("{what}, {}", ours.name));
    }
}

/// A network with pseudo-random weights, each tensor derived from a hash of its name.
pub fn pseudo_random_network(spec: NetworkSpec, device: &Device) -> Network {
    let mut network = Network::new(spec, device).unwrap();
    for (name, shape) in network.spec().file_shapes().unwrap() {
        let fan_in: usize = shape[1..].iter().product();
        let bound = if shape.len() == 1 { 0.1 } else { (6.0 / fan_in as f64).sqrt() as f32 };
        let values = pseudo_random(&name, bound, shape.iter().product());
        network.load_tensor(&NamedTensor { name, shape, values }).unwrap();
    }
    network
}

/// Devices that compute in bf16: the CPU with the software model of its tile unit and, if there are, with AMX and the
/// first GPU. If `VGG_REQUIRE` names `amx` or `gpu`, a missing one is a failure.
pub fn bf16_devices() -> Vec<Device> {
    let mut devices = Vec::new();
    for instruction_set in [Some("portable".to_owned()), None] {
        let config = DeviceConfig {
            kind: DeviceKind::Cpu,
            precision: Some(Precision::Bf16),
            instruction_set,
            ..DeviceConfig::default()
        };
        match Device::open(&config) {
            Ok(device) => devices.push(device),
            Err(e) => vgg_testkit::skip("amx", &e),
        }
    }
    devices.extend(gpu(Precision::Bf16));
    devices
}

/// The first GPU. Without one, reports a skip, which is a failure if `VGG_REQUIRE` lists `gpu`.
pub fn gpu(precision: Precision) -> Option<Device> {
    match Device::open(&DeviceConfig {
        kind: DeviceKind::Cuda(0),
        precision: Some(precision),
        ..DeviceConfig::default()
    }) {
        Ok(device) => Some(device),
        Err(e) => {
            vgg_testkit::skip("gpu", &e);
            None
        }
    }
}
