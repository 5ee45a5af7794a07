//! Validation of run plans at their limits, and serialisation.

mod fixture;

use std::path::Path;

use fixture::{small_run, starts_from};
use serde_json::{json, to_value};
use vgg_data::MAX_SIDE;
use vgg_eval::Protocol;
use vgg_experiment::{Error, PixelScale, RunPlan};
use vgg_layers::{Config, Device, Init, LayerSelection, LrnStyle, Network, NetworkSpec, PoolRounding};
use vgg_train::Schedule;
use vgg_weights::{ChannelOrder, WeightsMetadata};

fn run() -> RunPlan {
    small_run("A/36", Config::A, [36, 36])
}

fn changed(change: impl FnOnce(&mut RunPlan)) -> RunPlan {
    let mut run = run();
    change(&mut run);
    run
}

#[track_caller]
fn accepted(change: impl FnOnce(&mut RunPlan)) {
    changed(change).check().unwrap();
}

#[track_caller]
fn refused(change: impl FnOnce(&mut RunPlan), message: &str) {
    let error = changed(change).check().unwrap_err();
    assert!(matches!(&error, Error::Plan(_)), "{error:?}");
    assert_eq!(error.to_string(), message);
}

#[test]
fn training_scales_are_ascending_between_the_crop_and_the_largest_side() {
    assert_eq!(MAX_SIDE, 16_384);
    for (low, high) in [(32, 32), (32, 16_384), (16_384, 16_384), (40, 41)] {
        accepted(|run| run.data.train_scale = [low, high]);
    }
    for (low, high, problem) in [
        (31, 40, "[31, 40] is smaller than the crop, 32"),
        (41, 40, "[41, 40] must be ascending"),
        (32, 16_385, "[32, 16385] is larger than 16384"),
        (16_385, 16_385, "16385 is larger than 16384"),
    ] {
        refused(|run| run.data.train_scale = [low, high], &format!("train_scale {problem}"));
    }
}

#[test]
fn the_validation_scale_is_between_the_crop_and_the_largest_side() {
    for side in [32, 16_384] {
        accepted(|run| run.validate.test_scale = side);
    }
    for side in [0, 31, 16_385] {
        let message = format!("validate.test_scale {side} must be between the crop, 32, and 16384");
        refused(|run| run.validate.test_scale = side, &message);
    }
}

#[test]
fn batches_and_micro_batches_have_limits() {
    accepted(|run| run.optimizer.batch = 1);
    refused(|run| run.optimizer.batch = 0, "batch must be at least 1");
    accepted(|run| run.optimizer.batch = 1 << 20);
    let message = "batch 1048577 is larger than the maximum, 1048576";
    refused(|run| run.optimizer.batch = (1 << 20) + 1, message);
    accepted(|run| run.optimizer.micro_batch = 256);
    let message = "micro_batch 257 is larger than the maximum, 256";
    refused(|run| run.optimizer.micro_batch = 257, message);
}

#[test]
fn pca_jitter_std_is_finite_and_not_negative() {
    for std in [0.0, 1e-300, 1e300] {
        accepted(|run| run.data.pca_jitter_std = std);
    }
    for (std, name) in [(-0.25, "-0.25"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let message = format!("pca_jitter_std {name} must be finite and at least 0");
        refused(|run| run.data.pca_jitter_std = std, &message);
    }
}

#[test]
fn fixed_pixel_scale_is_finite_and_positive() {
    for scale in [f32::MIN_POSITIVE, 1.0, f32::MAX] {
        accepted(|run| run.data.pixel_scale = PixelScale::Fixed(scale));
    }
    for (scale, name) in [(0.0, "0"), (-1.0, "-1"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let message = format!("pixel_scale {name} must be finite and above 0");
        refused(|run| run.data.pixel_scale = PixelScale::Fixed(scale), &message);
    }
}

#[test]
fn inherited_pixel_scale_needs_initial_weights() {
    let message = "pixel_scale is \"inherit\", but network.init.from is not set";
    refused(|run| run.data.pixel_scale = PixelScale::Inherit, message);
    accepted(|run| {
        run.data.pixel_scale = PixelScale::Inherit;
        start_from(run, "weights.safetensors");
    });
    accepted(|run| start_from(run, "weights.safetensors"));
    accepted(|run| run.data.pixel_scale = PixelScale::Torchvision);
}

fn start_from(run: &mut RunPlan, from: &str) {
    run.network.init.from = Some(from.into());
    run.network.init.layers = Some(LayerSelection::Paper);
}

#[test]
fn initial_weights_need_both_from_and_layers() {
    let message =
        "network.init needs both from and layers (\"paper\", \"all\" or a list of layers), or neither";
    refused(|run| run.network.init.from = Some("a.safetensors".into()), message);
    refused(|run| run.network.init.layers = Some(LayerSelection::Paper), message);
}

#[test]
fn validation_uses_the_centre_crop() {
    let message = "validate.protocol must be centre: training validates on the centre crop";
    refused(|run| run.validate.protocol = Protocol::Dense, message);
}

#[test]
fn layers_to_train_are_layers_with_weights() {
    let layers = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    accepted(|run| run.network.train_layers = layers(&["fc8"]));
    accepted(|run| run.network.train_layers = layers(&["conv1_1", "fc6"]));
    let message = "train_layers is empty: no layer would be trained";
    refused(|run| run.network.train_layers = layers(&[]), message);
    for name in ["conv1_2", "pool1", "drop6", "conv1_1.weight"] {
        let message = format!("config A has no layer {name} to train");
        refused(|run| run.network.train_layers = layers(&["fc8", name]), &message);
    }
}

#[test]
fn network_and_training_settings_are_checked() {
    let error = |change: fn(&mut RunPlan)| changed(change).check().unwrap_err();
    assert!(matches!(error(|run| run.data.crop = 33), Error::Network(_)));
    assert!(matches!(error(|run| run.network.classes = Some(0)), Error::Network(_)));
    assert!(matches!(error(|run| run.schedule = Schedule::Constant { lr: 0.0 }), Error::Train(_)));
    assert!(matches!(error(|run| run.optimizer.micro_batch = 0), Error::Train(_)));
}

#[test]
fn spec_has_the_planned_settings_and_the_data_sets_classes() {
    let mut plan = run();
    plan.network.config = Config::C;
    plan.network.head = [24, 16];
    plan.data.crop = 64;
    plan.network.dropout = 0.25;
    plan.network.lrn_style = LrnStyle::Caffe;
    plan.network.pool_rounding = PoolRounding::Ceil;
    let expected = NetworkSpec {
        config: Config::C,
        width: 0.125,
        classes: 7,
        head: [24, 16],
        crop: 64,
        dropout: 0.25,
        lrn_style: LrnStyle::Caffe,
        pool_rounding: PoolRounding::Ceil,
    };
    assert_eq!(plan.spec(7).unwrap(), expected);
    plan.network.classes = Some(7);
    assert_eq!(plan.spec(7).unwrap(), expected);
    let message = "network.classes is 7, but the data set has 8 classes";
    assert_eq!(plan.spec(8).unwrap_err().to_string(), message);
}

#[test]
fn train_scale_and_parent_of_a_run() {
    assert_eq!(run().train_scale(), [36]);
    assert_eq!(changed(|run| run.data.train_scale = [36, 48]).train_scale(), [36, 48]);
    assert_eq!(run().parent(), None);
    assert_eq!(starts_from(run(), "D/384", LayerSelection::Paper).parent(), Some("D/384"));
}

/// Writes random weights of network A with seven classes.
fn write_weights(path: &Path) {
    let spec = run().spec(7).unwrap();
    let network = Network::random(spec.clone(), Init::He, 1, &Device::cpu(1).unwrap()).unwrap();
    let metadata = WeightsMetadata {
        spec,
        classes: (0..7).map(|class| class.to_string()).collect(),
        channel_order: ChannelOrder::Rgb,
        pixel_scale: 1.0,
        mean_rgb: [0.0; 3],
        std_rgb: [1.0; 3],
        train_scale: vec![36],
        geometry: "paper".into(),
    };
    vgg_weights::save(path, &network, &metadata).unwrap();
}

#[test]
fn initial_weights_must_fit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    write_weights(&path);
    let check = |path: &Path, classes: Option<usize>, layers: LayerSelection| {
        let mut run = changed(|run| start_from(run, &path.display().to_string()));
        run.network.init.layers = Some(layers);
        run.network.classes = classes;
        run.check_start()
    };
    // Without a planned number of classes, the file's is used.
    check(&path, None, LayerSelection::Paper).unwrap();
    check(&path, Some(7), LayerSelection::Paper).unwrap();
    let error = check(&path, Some(8), LayerSelection::Paper).unwrap_err();
    assert!(error.to_string().contains("layer fc8 cannot be copied"), "{error}");
    check(&path, Some(8), LayerSelection::Layers(vec!["fc6".into()])).unwrap();
    let missing = dir.path().join("b.safetensors");
    assert!(matches!(check(&missing, None, LayerSelection::Paper), Err(Error::Weights(_))));
    run().check_start().unwrap();
}

#[test]
fn plans_round_trip_through_toml_and_json() {
    let plain = to_value(run()).unwrap();
    let data = json!({ "train_scale": 36, "crop": 32, "interpolation": "bilinear", "flip": true, "pca_jitter_std": 0.0,
        "pixel_scale": "unit-variance", "on_bad_image": "skip" });
    assert_eq!(plain["data"], data);
    assert_eq!(plain["network"]["init"], json!({ "scheme": "he" }));
    assert_eq!(plain.get("may_diverge"), None);
    assert_eq!(to_value(changed(|run| run.may_diverge = true)).unwrap()["may_diverge"], true);
    let scales = [PixelScale::Fixed(0.5), PixelScale::Inherit, PixelScale::Torchvision];
    assert_eq!(to_value(scales).unwrap(), json!([0.5, "inherit", "torchvision"]));
    let everything = changed(|run| {
        start_from(run, "a.pth");
        run.network.classes = Some(7);
        run.network.train_layers = Some(vec!["fc8".into()]);
        run.data.train_scale = [36, 48];
        run.data.dataset = Some("set".into());
        run.data.enlarge = true;
        run.paper = Some("Table 3".into());
        run.schedule = Schedule::Steps { lr: 0.1, gamma: 0.5, milestones: vec![4] };
    });
    for plan in [run(), everything] {
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(toml::from_str::<RunPlan>(&text).unwrap(), plan, "{text}");
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<RunPlan>(&json).unwrap(), plan, "{json}");
    }
}
