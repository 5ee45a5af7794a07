//! The library on networks with known answers: all weights are zero, so that only the biases matter.

use std::path::{Path, PathBuf};

use vgg::layers::{Config, NamedTensor, Network, NetworkSpec};
use vgg::weights::{ChannelOrder, WeightsMetadata};
use vgg::{Classifier, Device, FeatureExtractor, Finetune};
use vgg_testkit::{PICTURE_CLASSES, make_pictures, picture_path};

/// Writes a network with these biases of fc7 and fc8; all other parameters are zero.
fn write_weights(path: &Path, fc7: &[f32], fc8: &[f32]) {
    let spec = NetworkSpec {
        width: 1.0 / 64.0,
        classes: fc8.len(),
        head: [4, fc7.len()],
        crop: 32,
        ..NetworkSpec::paper(Config::A)
    };
    let mut network = Network::new(spec.clone(), &Device::cpu(1).unwrap()).unwrap();
    for (name, shape) in spec.file_shapes().unwrap() {
        let values = match name.as_str() {
            "fc7.bias" => fc7.to_vec(),
            "fc8.bias" => fc8.to_vec(),
            _ => vec![0.0; shape.iter().product()],
        };
        network.load_tensor(&NamedTensor { name, shape, values }).unwrap();
    }
    let classes = (0..fc8.len()).map(|k| format!("class{k}")).collect();
    let metadata = WeightsMetadata {
        spec,
        classes,
        channel_order: ChannelOrder::Rgb,
        pixel_scale: 0.5,
        mean_rgb: [120.0, 110.0, 100.0],
        std_rgb: [2.0, 3.0, 4.0],
        train_scale: vec![36, 48],
        geometry: "paper".into(),
    };
    vgg::weights::save(path, &network, &metadata).unwrap();
}

/// A data set of seven classes in `dir/set`, and a network with as many in `dir/w.safetensors`.
fn workplace() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set");
    make_pictures(&set, |path, pixels| vgg::data::write_png(path, pixels).unwrap()).unwrap();
    let weights = dir.path().join("w.safetensors");
    // The softmax of logarithms gives shares: 3 of 16 for class 2, 4 of 16 for class 4.
    let shares = [1.0f32, 2.0, 3.0, 2.0, 4.0, 2.0, 2.0];
    write_weights(&weights, &[3.0, -1.0, 4.0], &shares.map(f32::ln));
    (dir, set, weights)
}

#[test]
fn classifier_returns_all_classes_most_likely_first() {
    let (_dir, set, weights) = workplace();
    let classifier = Classifier::open(&weights).unwrap();
    let answers = classifier.classify(picture_path(&set, "val", 0)).unwrap();
    let order: Vec<usize> = answers.iter().map(|answer| answer.class).collect();
    // Ties stay in class order.
    assert_eq!(order, [4, 2, 1, 3, 5, 6, 0]);
    for (answer, share) in answers.iter().zip([4.0, 3.0, 2.0, 2.0, 2.0, 2.0, 1.0]) {
        assert!((answer.posterior - share / 16.0).abs() < 1e-6, "{answer:?}");
        assert_eq!((&answer.id, &answer.name), (&format!("class{}", answer.class), &answer.id));
    }
    let missing = classifier.classify(set.join("none.jpg")).unwrap_err().to_string();
    assert!(missing.contains("none.jpg"), "{missing}");
    let map = classifier.score_map(&vgg::Image::zeros((40, 64, 3)), 4).unwrap();
    assert_eq!(map.dim().2, 3);
}

#[test]
fn features_are_the_layer_after_its_relu_scaled_to_length_one() {
    let (_dir, set, weights) = workplace();
    let extractor = FeatureExtractor::open(&weights, "fc7").unwrap();
    let features = extractor.extract(picture_path(&set, "val", 3)).unwrap();
    assert_eq!(features.to_vec(), [0.6, 0.0, 0.8]);
    let unknown = FeatureExtractor::open(&weights, "fc9").err().unwrap().to_string();
    assert!(unknown.contains("fc9"), "{unknown}");
}

#[test]
fn constant_prediction_is_right_only_for_its_class() {
    let (_dir, set, weights) = workplace();
    let report = vgg::evaluate(&weights, &set).unwrap();
    let images = |class: &str| std::fs::read_dir(set.join("val").join(class)).unwrap().count();
    let all: usize = (0..PICTURE_CLASSES).map(|k| images(&format!("class{k}"))).sum();
    let errors = report.errors;
    assert_eq!((errors.n, errors.skipped, report.config), (all, 0, Config::A));
    assert_eq!(errors.top1_error, (all - images("class4")) as f64 / all as f64);
    assert_eq!((report.evaluation.protocol.name(), report.evaluation.test_scales), ("dense", vec![42]));
}

#[test]
fn fine_tuning_starts_from_matching_layers_and_trains_only_fc8() {
    let (dir, set, weights) = workplace();
    let finetune =
        Finetune { epochs: 3, batch: 4, train_layers: Some(vec!["fc8".into()]), ..Finetune::default() };
    let run = finetune.run(&weights, &set, dir.path().join("run")).unwrap();
    assert_eq!(run.epochs, 3);
    let mut before = vgg::files::TensorFile::open(&weights).unwrap();
    let mut after = vgg::files::TensorFile::open(&run.weights_file()).unwrap();
    // The number of classes is the same, so fc8 starts from its old weights and changes; all other layers are
    // frozen.
    for name in before.names() {
        let same = before.read_f32(&name).unwrap() == after.read_f32(&name).unwrap();
        assert_eq!(same, !name.starts_with("fc8"), "{name}");
    }
    let metadata = vgg::weights::read_metadata(&run.weights_file()).unwrap();
    assert_eq!((metadata.pixel_scale, metadata.std_rgb), (0.5, [2.0, 3.0, 4.0]));
    assert_eq!(metadata.train_scale, [36, 48]);
    // The same call returns the finished run.
    assert_eq!(finetune.run(&weights, &set, dir.path().join("run")).unwrap(), run);
}
