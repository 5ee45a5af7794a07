//! What the end-to-end tests share.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::io::Write;
use std::path::{Path, PathBuf};

use vgg_layers::{NamedArray, Network, NetworkSpec};
use vgg_tensor::Device;
use vgg_testkit::hashed;

/// A committed file of reference values.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A folder of real images that is not part of the repository, or `None` if it is not there, which is said aloud: past
/// the test harness, which would swallow it. With `VGG_REQUIRE` set to `images`, its absence is a failure.
pub fn real_images(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    let required =
        std::env::var("VGG_REQUIRE").is_ok_and(|list| list.split(',').any(|what| what == "images"));
    assert!(!required, "{} is required but not there", folder.display());
    let _ = writeln!(std::io::stderr(), "SKIPPED a test that needs {}", folder.display());
    None
}

/// A network with hashed weights.
pub fn hashed_network(spec: NetworkSpec, device: &Device) -> Network {
    let mut network = Network::new(spec, device).unwrap();
    for (name, shape) in network.file_shapes() {
        let fan_in: usize = shape[1..].iter().product();
        let bound = if shape.len() == 1 { 0.1 } else { (6.0 / fan_in as f64).sqrt() as f32 };
        let values = hashed(&name, bound, shape.iter().product());
        network.import(&NamedArray { name, shape, values }).unwrap();
    }
    network
}
