//! Descriptors compared with the network's activations, averaged by plain loops in f64.

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use common::{CROP, PREPROCESSING, as_f32, batch_of_one, cells, distance, mean, network, options, write_set};
use serde_json::{Value, json};
use vgg_data::{Geometry, ImageSet, Interpolation, OnBadImage, Region, Split, View};
use vgg_eval::{
    Aggregate, Error, EvalModel, EvaluateOptions, FeatureConfig, Features, Partition, Result, features,
};
use vgg_files::TensorFile;
use vgg_layers::{DenseNetwork, Network};
use vgg_tensor::{ProcessGroup, SingleProcess, on_thread_ranks};
use vgg_testkit::assert_close;

/// Batches are summed in another order than single images; activations sum up to 576 f32 products.
const TOLERANCE: f64 = 1e-4;

const FILES: [(&str, (usize, usize)); 4] =
    [("ant/1.png", (40, 56)), ("bee/1.png", (56, 40)), ("bee/2.png", (56, 40)), ("cow/1.png", (40, 40))];

fn config(layer: &str, test_scales: &[usize], aggregate: Aggregate) -> FeatureConfig {
    FeatureConfig {
        layer: layer.to_owned(),
        test_scales: test_scales.to_vec(),
        flip: true,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        aggregate,
        l2_normalise: false,
    }
}

fn dense(network: Network) -> DenseNetwork {
    network.into_fully_convolutional().unwrap()
}

fn model(network: Network, weights_hash: &str) -> EvalModel<'static> {
    EvalModel::dense(dense(network), PREPROCESSING, weights_hash)
}

fn set() -> (tempfile::TempDir, Arc<ImageSet>) {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), &FILES);
    let image_set = Arc::new(ImageSet::open(dir.path(), Split::Val).unwrap());
    (dir, image_set)
}

fn run_on(
    group: &dyn ProcessGroup,
    image_set: &Arc<ImageSet>,
    config: &FeatureConfig,
    options: EvaluateOptions,
) -> Result<Option<Features>> {
    let mut ignore_progress = |_| ControlFlow::Continue(());
    features(group, &model(network(3), "w1"), image_set, config, options, &mut ignore_progress)
}

fn run(image_set: &Arc<ImageSet>, config: &FeatureConfig) -> Features {
    run_on(&SingleProcess, image_set, config, options(2)).unwrap().unwrap()
}

/// Mean activations of a layer over all positions, for each flip at one test scale.
fn means_at_scale(
    image_set: &ImageSet,
    index: usize,
    config: &FeatureConfig,
    test_scale: usize,
) -> Vec<Vec<f64>> {
    let (network, image) = (dense(network(3)), image_set.image(index).unwrap());
    let flips: &[bool] = if config.flip { &[false, true] } else { &[false] };
    let mean_of = |flip: &bool| {
        let view = View { test_scale, geometry: Geometry::Paper, region: Region::Whole, flip: *flip };
        let pixels = view.apply(&image, config.interpolation).unwrap();
        mean(&cells(&network.activations(&batch_of_one(&pixels, PREPROCESSING), &config.layer).unwrap()))
    };
    flips.iter().map(mean_of).collect()
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// The descriptor of an image, without normalisation.
fn reference(image_set: &ImageSet, index: usize, config: &FeatureConfig) -> Vec<f64> {
    let scales: Vec<Vec<f64>> = (config.test_scales.iter())
        .map(|scale| mean(&means_at_scale(image_set, index, config, *scale)))
        .collect();
    match config.aggregate {
        Aggregate::Mean => mean(&scales),
        Aggregate::Stack => scales.concat(),
    }
}

/// Asserts that the descriptors are the references of these images, in this order.
#[track_caller]
fn assert_features(ours: &Features, image_set: &ImageSet, config: &FeatureConfig, images: &[usize]) {
    let paths: Vec<String> = images.iter().map(|i| format!("val/{}", FILES[*i].0)).collect();
    assert_eq!(ours.paths, paths);
    let labels: Vec<u32> = images.iter().map(|i| [0, 1, 1, 2][*i]).collect();
    assert_eq!(ours.labels, labels);
    assert_eq!(ours.values.nrows(), images.len());
    for (row, i) in ours.values.rows().into_iter().zip(images) {
        let expected = reference(image_set, *i, config);
        let scale = if config.l2_normalise { length(&expected) } else { 1.0 };
        let expected: Vec<f64> = expected.into_iter().map(|value| value / scale).collect();
        assert!(length(&expected) > 0.1, "image {i} has no activations");
        assert_close(&row.to_vec(), &as_f32(&expected), TOLERANCE, &format!("{config:?}, image {i}"));
    }
}

#[test]
fn descriptors_are_means_over_positions_flips_and_scales() {
    let (_dir, image_set) = set();
    for layer in ["conv2_1", "pool5", "fc6", "fc7"] {
        for scales in [&[40][..], &[64, 32], &[32, 96, 64]] {
            let config = config(layer, scales, Aggregate::Mean);
            assert_features(&run(&image_set, &config), &image_set, &config, &[0, 1, 2, 3]);
        }
    }
    let without_flip = FeatureConfig { flip: false, ..config("pool5", &[64], Aggregate::Mean) };
    let ours = run(&image_set, &without_flip);
    assert_features(&ours, &image_set, &without_flip, &[0, 1, 2, 3]);
    let flipped = run(&image_set, &config("pool5", &[64], Aggregate::Mean));
    assert!(distance(&ours.values.row(0).to_vec(), &flipped.values.row(0).to_vec()) > 1e-3);
}

#[test]
fn stacked_descriptors_follow_the_order_of_the_scales() {
    let (_dir, image_set) = set();
    for scales in [&[64, 32][..], &[32, 96, 64]] {
        let config = config("pool5", scales, Aggregate::Stack);
        let ours = run(&image_set, &config);
        assert_eq!(ours.values.ncols(), scales.len() * 64);
        assert_features(&ours, &image_set, &config, &[0, 1, 2, 3]);
    }
    let [there, back] =
        [[64, 32], [32, 64]].map(|scales| run(&image_set, &config("pool5", &scales, Aggregate::Stack)));
    let (there, back) = (there.values.row(0).to_vec(), back.values.row(0).to_vec());
    assert_close(&there[..64], &back[64..], TOLERANCE, "scale 64");
    assert!(distance(&there[..64], &back[..64]) > 1e-2);
}

#[test]
fn normalised_descriptors_have_length_one() {
    let (_dir, image_set) = set();
    for aggregate in [Aggregate::Mean, Aggregate::Stack] {
        let config = FeatureConfig { l2_normalise: true, ..config("pool5", &[64, 40], aggregate) };
        let ours = run(&image_set, &config);
        assert_features(&ours, &image_set, &config, &[0, 1, 2, 3]);
        for row in ours.values.rows() {
            let length = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            // 128 values rounded to 24 bits.
            assert!((length - 1.0).abs() < 1e-6, "{length}");
        }
    }
}

#[test]
fn a_descriptor_of_zeros_stays_zero() {
    let (_dir, image_set) = set();
    let zero = model(Network::new(network(3).spec().clone(), &common::cpu()).unwrap(), "w");
    let config = FeatureConfig { l2_normalise: true, ..config("pool5", &[40], Aggregate::Mean) };
    let mut ignore_progress = |_| ControlFlow::Continue(());
    let ours = features(&SingleProcess, &zero, &image_set, &config, options(1), &mut ignore_progress);
    assert!(ours.unwrap().unwrap().values.iter().all(|value| *value == 0.0));
}

#[test]
fn features_record_their_provenance() {
    let (_dir, image_set) = set();
    let config = config("fc7", &[40], Aggregate::Mean);
    let ours = run(&image_set, &config);
    assert_eq!((&ours.config, ours.weights.as_str()), (&config, "w1"));
    assert_eq!(ours.classes, ["ant", "bee", "cow"]);
    assert_eq!(ours.dataset, image_set.hash().as_str());
    assert!(ours.skipped.is_empty());
}

#[test]
fn undecodable_images_are_skipped_and_listed() {
    let (dir, image_set) = set();
    std::fs::write(dir.path().join("val/bee/1.png"), b"").unwrap();
    let config = config("fc6", &[40], Aggregate::Mean);
    let skip = EvaluateOptions { on_bad_image: OnBadImage::Skip, ..options(2) };
    let ours = run_on(&SingleProcess, &image_set, &config, skip).unwrap().unwrap();
    assert_features(&ours, &image_set, &config, &[0, 2, 3]);
    assert!(ours.skipped.len() == 1 && ours.skipped[0].contains("val/bee/1.png"), "{:?}", ours.skipped);
    let stopped = run_on(&SingleProcess, &image_set, &config, options(2));
    assert!(matches!(stopped, Err(Error::Data(_))));
}

#[test]
fn rank_0_gets_the_descriptors_of_all_ranks() {
    let (_dir, image_set) = set();
    let config = config("pool5", &[64, 32], Aggregate::Stack);
    let other_part = EvaluateOptions { part: Partition { index: 1, count: 2 }, ..options(1) };
    for size in [2, 3, 5] {
        let mut ranks =
            on_thread_ranks(size, |rank| run_on(&*rank, &image_set, &config, other_part).unwrap());
        assert!(ranks[1..].iter().all(Option::is_none), "{size} ranks");
        assert_features(&ranks.swap_remove(0).unwrap(), &image_set, &config, &[0, 1, 2, 3]);
    }
}

#[test]
fn ranks_with_another_configuration_are_rejected() {
    let (_dir, image_set) = set();
    let results = on_thread_ranks(2, |rank| {
        let scales = if rank.rank() == 1 { [64, 32] } else { [32, 64] };
        run_on(&*rank, &image_set, &config("pool5", &scales, Aggregate::Mean), options(1))
    });
    assert!(matches!(&results[1], Err(Error::Ranks(what)) if what.contains("rank 1")), "{:?}", results[1]);
}

#[test]
fn progress_counts_images_and_can_interrupt() {
    let (_dir, image_set) = set();
    let mut reported = Vec::new();
    let mut progress = |done| {
        reported.push(done);
        if reported.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let config = config("fc7", &[40], Aggregate::Mean);
    let ended =
        features(&SingleProcess, &model(network(3), "w"), &image_set, &config, options(1), &mut progress);
    assert!(matches!(ended, Err(Error::Interrupted)));
    assert_eq!(reported, [1, 3]);
}

#[test]
fn columns_are_channels_times_stacked_scales() {
    let network = dense(network(3));
    let columns = |layer: &str, aggregate| config(layer, &[32, 64, 96], aggregate).columns(&network);
    assert_eq!(columns("conv1_1", Aggregate::Mean).unwrap(), 8);
    assert_eq!(columns("conv3_2", Aggregate::Stack).unwrap(), 3 * 32);
    assert_eq!(columns("fc8", Aggregate::Stack).unwrap(), 9);
    assert!(matches!(columns("fc9", Aggregate::Mean), Err(Error::Network(_))));
}

#[test]
fn invalid_configurations_are_rejected() {
    let network = dense(network(3));
    let check = |layer: &str, scales: &[usize]| config(layer, scales, Aggregate::Mean).check(&network);
    assert!(check("fc7", &[CROP]).is_ok());
    assert!(matches!(check("fc7", &[64, CROP - 1]), Err(Error::Config(_))));
    assert!(matches!(check("fc7", &[]), Err(Error::Config(_))));
    assert!(matches!(check("fc9", &[64]), Err(Error::Network(_))));
}

#[test]
fn aggregate_names_are_parsed_and_serialised() {
    for (name, aggregate) in [("mean", Aggregate::Mean), ("stack", Aggregate::Stack)] {
        assert_eq!(name.parse(), Ok(aggregate));
        assert_eq!(serde_json::to_value(aggregate).unwrap(), name);
    }
    let error = "max".parse::<Aggregate>().unwrap_err();
    assert!(["max", "mean", "stack"].iter().all(|word| error.contains(word)), "{error}");
    let unknown = json!({
        "layer": "fc7", "test_scales": [64], "flip": true, "interpolation": "bilinear", "aggregate": "mean",
        "l2_normalise": true, "other": 1,
    });
    assert!(serde_json::from_value::<FeatureConfig>(unknown).is_err());
}

fn saved(features: &Features, dir: &Path) -> TensorFile {
    let path = dir.join("f.safetensors");
    features.save(&path).unwrap();
    TensorFile::open(&path).unwrap()
}

#[test]
fn a_file_has_the_documented_tensors_and_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let features = Features {
        values: ndarray::array![[0.5, -1e-40, 3.0], [1.0, 2.0, 1.0 / 3.0]],
        labels: vec![2, 0],
        paths: vec!["val/c/1.png".into(), "val/a/1.png".into()],
        skipped: vec!["cannot decode x".into()],
        config: FeatureConfig { flip: false, ..config("fc7", &[256, 384], Aggregate::Stack) },
        weights: "w1".into(),
        classes: vec!["a".into(), "b".into(), "c".into()],
        dataset: "hash".into(),
    };
    let mut file = saved(&features, dir.path());
    assert_eq!((file.shape("features"), file.dtype("features")), (Some(&[2, 3][..]), Some("F32")));
    assert_eq!((file.shape("labels"), file.dtype("labels")), (Some(&[2][..]), Some("I64")));
    assert_eq!(file.names().len(), 2);
    let rows = features.values.iter().copied().collect::<Vec<f32>>();
    assert_eq!(file.read_f32("features").unwrap(), rows);
    assert_eq!(file.read_i64("labels").unwrap(), [2, 0]);
    let metadata: BTreeMap<String, Value> = (file.metadata().into_iter())
        .map(|(key, text)| (key, serde_json::from_str(&text).unwrap()))
        .collect();
    let config = json!({
        "layer": "fc7", "test_scales": [256, 384], "flip": false, "interpolation": "bilinear", "aggregate": "stack",
        "l2_normalise": false,
    });
    let expected = [
        ("classes", json!(["a", "b", "c"])),
        ("config", config),
        ("dataset", json!("hash")),
        ("paths", json!(["val/c/1.png", "val/a/1.png"])),
        ("skipped", json!(["cannot decode x"])),
        ("weights", json!("w1")),
    ];
    assert_eq!(metadata, expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    // The file does not depend on the array's memory order.
    let values = features.values.t().as_standard_layout().into_owned().reversed_axes();
    assert!(!values.is_standard_layout());
    let mut file = saved(&Features { values, ..features }, dir.path());
    assert_eq!(file.read_f32("features").unwrap(), rows);
}
