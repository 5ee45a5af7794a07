//! Evaluation of a data set against PyTorch, skipped images and interruption.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use vgg_data::{Geometry, Image, ImageSet, Interpolation, OnBadImage, Split, write_png};
use vgg_eval::{
    DensePool, EvaluateOptions, Evaluation, Partition, Posteriors, Preprocessing, Protocol, evaluate, merge,
};
use vgg_layers::{Config, NetworkSpec, PoolRounding};
use vgg_tensor::Device;
use vgg_testkit::{assert_close, pseudo_random};
use vgg_tests::{fixture, pseudo_random_network};

const SIZES: [(usize, usize); 3] = [(104, 136), (120, 104), (104, 104)];
const PREPROCESSING: Preprocessing = Preprocessing { offset: [-120.0, -110.0, -100.0], scale: [0.02; 3] };

fn spec() -> NetworkSpec {
    NetworkSpec { width: 1.0 / 16.0, classes: 10, head: [16, 16], crop: 64, ..NetworkSpec::paper(Config::D) }
}

/// Ten classes with one image of pseudo-random pixels each, as in the reference script.
fn make_set(root: &Path) {
    for class in 0..10 {
        let (h, w) = SIZES[class.min(2)];
        let values = pseudo_random(&format!("pixels{class}"), 1.0, h * w * 3);
        let bytes = values.into_iter().map(|v| ((v + 1.0) * 128.0) as u8).collect();
        let image = Image::from_shape_vec((h, w, 3), bytes).unwrap();
        for split in ["train", "val"] {
            let folder = root.join(split).join(format!("class{class}"));
            std::fs::create_dir_all(&folder).unwrap();
            write_png(&folder.join("image.png"), &image).unwrap();
        }
    }
}

fn evaluation(protocol: Protocol, dense_pool: DensePool) -> Evaluation {
    Evaluation {
        protocol,
        test_scales: vec![104],
        flip: true,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        dense_pool,
        pool_rounding: None,
    }
}

fn run(
    root: &Path,
    evaluation: &Evaluation,
    ceil: bool,
    on_bad_image: OnBadImage,
) -> vgg_eval::Result<Posteriors> {
    let device = Device::cpu(2).unwrap();
    let pool_rounding = ceil.then_some(PoolRounding::Ceil);
    let evaluation = &Evaluation { pool_rounding, ..evaluation.clone() };
    let model = evaluation.prepare(pseudo_random_network(spec(), &device), PREPROCESSING, "weights").unwrap();
    let folder = Arc::new(ImageSet::open(root, Split::Val).unwrap());
    let options = EvaluateOptions { workers: 2, on_bad_image, part: Partition::WHOLE };
    evaluate(&model, &folder, evaluation, options, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn posteriors_of_all_protocols_are_pytorchs() {
    let dir = tempfile::tempdir().unwrap();
    make_set(dir.path());
    let json = std::fs::read(fixture("dense_posteriors.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_slice(&json).unwrap();
    for (key, protocol, pool, ceil) in [
        ("score-mean", Protocol::Dense, DensePool::ScoreMean, false),
        ("prob-mean", Protocol::Dense, DensePool::ProbMean, false),
        ("score-sum", Protocol::Dense, DensePool::ScoreSum, false),
        ("ceil", Protocol::Dense, DensePool::ScoreMean, true),
        ("centre", Protocol::Centre, DensePool::ScoreMean, false),
        ("multi-crop", Protocol::MultiCrop, DensePool::ScoreMean, false),
        ("combined", Protocol::Combined, DensePool::ScoreMean, false),
    ] {
        let ours = run(dir.path(), &evaluation(protocol, pool), ceil, OnBadImage::Stop).unwrap();
        assert_eq!(ours.labels, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(ours.paths[1], "val/class1/image.png");
        // The reference has the first three images, of three sizes.
        let rows = reference[key].as_array().unwrap();
        assert_eq!((rows.len(), ours.values.dim()), (3, (10, 10)));
        for (i, row) in rows.iter().enumerate() {
            let expected: Vec<f32> =
                row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
            // The logits are within 1e-5 of f64; their differences, of up to about ten, are exponentiated.
            // Measured 8.2e-6.
            assert_close(&ours.values.row(i).to_vec(), &expected, 4e-5, &format!("{key}, image {i}"));
        }
    }
}

#[test]
fn posteriors_file_round_trips() {
    let dir = tempfile::tempdir().unwrap();
    make_set(dir.path());
    let dense = evaluation(Protocol::Dense, DensePool::ScoreMean);
    let ours = run(dir.path(), &dense, false, OnBadImage::Stop).unwrap();
    let path = dir.path().join("p.safetensors");
    ours.save(&path).unwrap();
    let back = Posteriors::load(&path).unwrap();
    assert_eq!((back.values, back.labels, back.paths), (ours.values, ours.labels, ours.paths));
    assert_eq!(back.origin, ours.origin);
    assert_eq!((back.origin.networks[0].evaluation.clone(), back.origin.classes.len()), (dense, 10));
    let weights = fixture("sgd_c.safetensors");
    assert!(matches!(Posteriors::load(&weights), Err(vgg_eval::Error::Posteriors { .. })));
}

#[test]
fn merged_parts_equal_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    make_set(dir.path());
    let dense = evaluation(Protocol::Dense, DensePool::ScoreMean);
    let whole = run(dir.path(), &dense, false, OnBadImage::Stop).unwrap();
    let device = Device::cpu(2).unwrap();
    let model = dense.prepare(pseudo_random_network(spec(), &device), PREPROCESSING, "weights").unwrap();
    let folder = Arc::new(ImageSet::open(dir.path(), Split::Val).unwrap());
    let parts: Vec<Posteriors> = (1..=3)
        .map(|number| {
            let part = Partition { index: number - 1, count: 3 };
            let options = EvaluateOptions { workers: 2, on_bad_image: OnBadImage::Stop, part };
            evaluate(&model, &folder, &dense, options, &mut |_| ControlFlow::Continue(())).unwrap()
        })
        .collect();
    let named: Vec<(&Path, &Posteriors)> = parts.iter().map(|part| (Path::new("part"), part)).collect();
    let merged = merge(&named).unwrap();
    assert_eq!((&merged.paths, &merged.labels, &merged.origin), (&whole.paths, &whole.labels, &whole.origin));
    // Batches group images differently, but each image comes with its flip: the results are bitwise
    // identical.
    assert_eq!(merged.values, whole.values);
}

#[test]
fn bad_image_stops_or_is_skipped_and_break_interrupts() {
    let dir = tempfile::tempdir().unwrap();
    make_set(dir.path());
    std::fs::write(dir.path().join("val/class4/image.png"), b"").unwrap();
    let dense = evaluation(Protocol::Dense, DensePool::ScoreMean);
    let stopped = run(dir.path(), &dense, false, OnBadImage::Stop).unwrap_err();
    assert!(stopped.to_string().contains("val/class4/image.png: the file is empty"), "{stopped}");
    let skipped = run(dir.path(), &dense, false, OnBadImage::Skip).unwrap();
    assert_eq!(skipped.labels, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    assert_eq!(skipped.skipped.len(), 1);
    assert_eq!(skipped.top1_error().n, 9);

    let device = Device::cpu(1).unwrap();
    let model = dense.prepare(pseudo_random_network(spec(), &device), PREPROCESSING, "weights").unwrap();
    let folder = Arc::new(ImageSet::open(dir.path(), Split::Train).unwrap());
    let options = EvaluateOptions { workers: 1, on_bad_image: OnBadImage::Stop, part: Partition::WHOLE };
    let ended = evaluate(&model, &folder, &dense, options, &mut |_| ControlFlow::Break(()));
    assert!(matches!(ended, Err(vgg_eval::Error::Interrupted)));
}
