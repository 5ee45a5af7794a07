//! The native format: networks round-trip, and files that do not match are rejected with all differences.

use std::path::Path;

use vgg_layers::{Config, Init, Network, NetworkSpec};
use vgg_tensor::Device;
use vgg_weights::{ChannelOrder, Error, WeightsMetadata, load, read_metadata, save};

fn spec(config: Config) -> NetworkSpec {
    NetworkSpec { width: 0.125, classes: 3, head: [16, 8], crop: 64, ..NetworkSpec::paper(config) }
}

fn metadata(spec: NetworkSpec) -> WeightsMetadata {
    WeightsMetadata {
        spec,
        classes: ["cat", "dog", "größe"].map(str::to_owned).to_vec(),
        channel_order: ChannelOrder::Rgb,
        pixel_scale: 0.0173,
        mean_rgb: [123.68, 116.779, 103.939],
        std_rgb: [1.0; 3],
        train_scale: vec![64, 128],
        geometry: "paper".into(),
    }
}

fn saved(dir: &Path, config: Config) -> (std::path::PathBuf, Network) {
    let network = Network::random(spec(config.clone()), Init::He, 1, &Device::cpu(1).unwrap()).unwrap();
    let path = dir.join("w.safetensors");
    save(&path, &network, &metadata(spec(config))).unwrap();
    (path, network)
}

#[test]
fn networks_and_metadata_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let (path, network) = saved(dir.path(), Config::C);
    let loaded = load(&path, &Device::cpu(1).unwrap()).unwrap();
    assert!(!network.state_dict().is_empty() && loaded.network.state_dict() == network.state_dict());
    assert_eq!(loaded.metadata, metadata(spec(Config::C)));
    assert_eq!(read_metadata(&path).unwrap(), loaded.metadata);
    let bytes = std::fs::read(&path).unwrap();
    save(&path, &loaded.network, &loaded.metadata).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "saving the loaded network changed the file");
}

#[test]
fn truncated_file_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = saved(dir.path(), Config::A);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = load(&path, &Device::cpu(1).unwrap()).err().unwrap();
    assert!(matches!(&error, Error::File(vgg_files::Error::Corrupt { .. })), "{error}");
}

#[test]
fn all_mismatched_tensors_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let network = Network::random(spec(Config::D), Init::He, 1, &Device::cpu(1).unwrap()).unwrap();
    save(&path, &network, &metadata(NetworkSpec { head: [16, 9], ..spec(Config::C) })).unwrap();
    let error = load(&path, &Device::cpu(1).unwrap()).err().unwrap().to_string();
    for part in [
        "config C",
        "conv3_3.weight has shape",
        "fc7.weight has shape [8, 16] instead of [9, 16]",
        "fc8.weight",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn nan_weight_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut network) = saved(dir.path(), Config::A);
    let mut bias = network.state_dict().into_iter().find(|a| a.name == "fc7.bias").unwrap();
    bias.values[3] = f32::NAN;
    network.load_tensor(&bias).unwrap();
    save(&path, &network, &metadata(spec(Config::A))).unwrap();
    let error = load(&path, &Device::cpu(1).unwrap()).err().unwrap();
    assert!(matches!(error, Error::NotFinite { tensor, .. } if tensor == "fc7.bias"));
}
