//! Single training runs against PyTorch: metrics, weights, events and files.
//!
//! The expected runs come from `tests/reference/training_runs.py`.

mod one_run;

use std::path::Path;

use one_run::{changed, in_context, plan, start_from, start_spec, train, workplace};
use serde_json::Value;
use vgg_data::{Interpolation, OnBadImage};
use vgg_experiment::{PixelScale, PreparedRun, RunEvent, read_run};
use vgg_layers::{Config, Init, LayerSelection, NetworkSpec};
use vgg_testkit::{picture_path, projections};
use vgg_train::{OnExhausted, Resume, Schedule};

/// Relative tolerance of losses and weight projections against PyTorch in float64: rounding to float32,
/// amplified by some twelve steps, reaches 2e-5.
const ROUNDING: f64 = 2e-4;
/// Tolerance when rounding moves one of a run's half million units across the kink of a ReLU or a pool, which
/// changes the run by up to 2e-2. Every setting changes its run by 7e-2 or more.
const KINK: f64 = 3e-2;

fn reference(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("fixtures/training_runs.json")).unwrap();
    assert!(all[name].is_object(), "{name}");
    all[name].clone()
}

/// Differences between the run in `out` and the reference; rounding is allowed up to `tolerance`.
fn differences(out: &Path, reference: &Value, tolerance: f64) -> Vec<String> {
    let mut found = Vec::new();
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = reference["metrics"].as_array().unwrap();
    assert_eq!(rows.len(), expected.len(), "epochs");
    let close = |ours: f64, theirs: f64, of: f64| (ours - theirs).abs() <= tolerance * of;
    for (row, expected) in rows.iter().zip(expected) {
        for (key, theirs) in expected.as_object().unwrap() {
            let same = match (row[key].as_f64(), theirs.as_f64()) {
                (Some(a), Some(b)) if key.ends_with("loss") => close(a, b, b),
                // Errors over 11 to 14 images: a kink may change the prediction of one image.
                (Some(a), Some(b)) if key.ends_with("error") => {
                    (a - b).abs() < if tolerance == KINK { 1.01 / 11.0 } else { 1e-12 }
                }
                (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * b,
                (ours, theirs) => ours == theirs,
            };
            if !same {
                found.push(format!("epoch {}: {key} is {} instead of {theirs}", expected["epoch"], row[key]));
            }
        }
    }
    let mut weights = vgg_files::TensorFile::open(&out.join("weights.safetensors")).unwrap();
    let expected = reference["weights"].as_object().unwrap();
    assert_eq!(weights.names().len(), expected.len());
    for (name, expected) in expected {
        let theirs: [f64; 5] = serde_json::from_value(expected.clone()).unwrap();
        let ours = projections(&weights.read_f32(name).unwrap());
        if !ours.iter().zip(theirs).all(|(a, b)| close(*a, b, theirs[0])) {
            found.push(format!("{name}: {ours:?} instead of {theirs:?}"));
        }
    }
    let metadata = vgg_weights::read_metadata(&out.join("weights.safetensors")).unwrap();
    for c in 0..3 {
        let mean = reference["pixels"]["mean"][c].as_f64().unwrap();
        let factor = reference["pixels"]["factor"][c].as_f64().unwrap();
        let ours = f64::from(metadata.pixel_scale) / f64::from(metadata.std_rgb[c]);
        // Both are rounded to float32.
        let same =
            (f64::from(metadata.mean_rgb[c]) / mean - 1.0).abs() < 2e-7 && (ours / factor - 1.0).abs() < 2e-7;
        if !same {
            found.push(format!("pixels of channel {c}: {metadata:?}"));
        }
    }
    found
}

#[test]
fn runs_reproduce_metrics_and_weights_of_pytorch() {
    let dir = workplace();
    let file = dir.path().join("start.safetensors");
    let layers =
        |names: &[&str]| LayerSelection::Layers(names.iter().map(|name| (*name).to_owned()).collect());
    let cases = [
        ("base", plan()),
        ("network.config", changed(|plan| plan.network.config = Config::C)),
        ("he-fan-out", changed(|plan| plan.network.init.scheme = Init::HeFanOut)),
        ("layers list", changed(|plan| start_from(plan, &file, layers(&["conv4_1", "fc7"])))),
        (
            "network.train_layers",
            changed(|plan| plan.network.train_layers = Some(vec!["conv5_2".into(), "fc8".into()])),
        ),
        ("data.train_scale, fixed", changed(|plan| plan.data.train_scale = [44, 44])),
        ("lanczos", changed(|plan| plan.data.interpolation = Interpolation::Lanczos)),
        ("data.flip", changed(|plan| plan.data.flip = false)),
        ("data.pca_jitter_std, 0", changed(|plan| plan.data.pca_jitter_std = 0.0)),
        ("data.pixel_scale", changed(|plan| plan.data.pixel_scale = PixelScale::Fixed(0.0125))),
        ("pixel_scale torchvision", changed(|plan| plan.data.pixel_scale = PixelScale::Torchvision)),
        (
            "pixel_scale inherit",
            changed(|plan| {
                start_from(plan, &file, layers(&["fc7"]));
                plan.data.pixel_scale = PixelScale::Inherit;
            }),
        ),
        ("optimizer.batch", changed(|plan| plan.optimizer.batch = 5)),
        ("validate.test_scale", changed(|plan| plan.validate.test_scale = 37)),
        ("run.seed", changed(|plan| plan.run.seed = 6)),
        (
            "plateau, every 2",
            changed(|plan| {
                plan.schedule = Schedule::Plateau {
                    lr: 0.03,
                    factor: 0.5,
                    max_reductions: 1,
                    patience: 2,
                    threshold: 0.0,
                    on_exhausted: OnExhausted::Stop,
                };
                plan.run.max_epochs = 7;
                plan.validate.every_epochs = 2;
            }),
        ),
    ];
    let mut at_a_kink = Vec::new();
    for (number, (name, plan)) in cases.iter().enumerate() {
        let out = dir.path().join(format!("run-{number}"));
        train(dir.path(), plan, &out, &mut |_| ()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let apart = differences(&out, &reference(name), KINK);
        assert!(apart.is_empty(), "{name}: {apart:#?}");
        let apart = differences(&out, &reference(name), ROUNDING);
        if !apart.is_empty() {
            // A kink changes weights, and through them the metrics.
            assert!(!apart.iter().all(|difference| difference.starts_with("epoch")), "{name}: {apart:#?}");
            at_a_kink.push((name, apart));
        }
    }
    // Observed: one of these runs on one instruction set.
    assert!(at_a_kink.len() <= 3, "{at_a_kink:#?}");
}

#[test]
fn bad_images_are_skipped_in_training_and_validation() {
    let dir = workplace();
    for (split, index) in [("train", 3), ("val", 4), ("val", 9)] {
        std::fs::write(picture_path(&dir.path().join("set"), split, index), b"").unwrap();
    }
    let skip = changed(|plan| plan.data.on_bad_image = OnBadImage::Skip);
    let mut skipped = Vec::new();
    let out = dir.path().join("run");
    train(dir.path(), &skip, &out, &mut |event| {
        if let RunEvent::Skipped(bad) = event {
            skipped.push(bad.to_owned());
        }
    })
    .unwrap();
    let apart = differences(&out, &reference("data.on_bad_image"), KINK);
    assert!(apart.is_empty(), "{apart:#?}");
    assert_eq!(skipped.len(), 2, "reported once: {skipped:?}");
    assert!(
        skipped[0].contains("val/class2/0.png") && skipped[1].contains("val/class4/1.png"),
        "{skipped:?}"
    );
    assert!(train(dir.path(), &plan(), &dir.path().join("stop"), &mut |_| ()).is_err());
}

#[test]
fn run_files_record_the_run_and_it_is_not_trained_again() {
    let dir = workplace();
    let start = dir.path().join("start.safetensors");
    let plan = changed(|plan| start_from(plan, &start, LayerSelection::Layers(vec!["fc7".into()])));
    let out = dir.path().join("run");
    let mut started = Vec::new();
    let finished = train(dir.path(), &plan, &out, &mut |event| match event {
        RunEvent::Begins { images, transfer } => started.push((images, transfer.cloned().unwrap())),
        RunEvent::Cached(_) => panic!("the directory was empty"),
        _ => (),
    })
    .unwrap();
    assert_eq!((started.len(), started[0].0, &started[0].1.loaded), (1, 14, &vec!["fc7".to_owned()]));
    assert_eq!(started[0].1.not_loaded.len(), 10);
    assert_eq!((finished.epochs, finished.last.epoch, &finished.dir), (3, 3, &out));
    assert_eq!(finished.weights, vgg_files::hash_file(&finished.weights_file()).unwrap());
    let json =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(out.join(name)).unwrap()).unwrap() };
    let (run, result) = (json("run.json"), json("result.json"));
    // A run with the recorded settings has the same identity.
    let again = read_run(&out.join("run.json"), &[]).unwrap();
    assert_eq!(again.data.dataset, Some(dir.path().join("set")));
    in_context(dir.path(), &[], |context| {
        assert_eq!(PreparedRun::new(&again, None, context).unwrap().identity(), finished.identity);
    });
    assert_eq!(
        (&run["identity"], &result["identity"]),
        (&result["identity"], &serde_json::to_value(&finished.identity).unwrap())
    );
    let spec = start_spec();
    assert_eq!(run["parameters"], spec.parameter_count().unwrap());
    assert_eq!(run["transfer"]["loaded"][0], "fc7");
    let text = |key: &str| run[key].as_str().unwrap().to_owned();
    assert_eq!(again.network.init.from, Some(start.display().to_string()));
    assert_eq!(text("version"), env!("CARGO_PKG_VERSION"));
    assert!(text("device").starts_with("cpu"), "{run}");
    assert!(run["started_unix_s"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!((&result["epochs"], &result["last"]["epoch"]), (&3.into(), &3.into()));
    let metadata = vgg_weights::read_metadata(&finished.weights_file()).unwrap();
    assert_eq!(
        (metadata.spec, metadata.train_scale, metadata.geometry),
        (NetworkSpec { dropout: 0.4, ..spec }, vec![36, 48], "paper".into())
    );
    assert_eq!(metadata.classes[6], "class6");

    let mut cached = None;
    let again = train(dir.path(), &plan, &out, &mut |event| match event {
        RunEvent::Cached(run) => cached = Some(run.clone()),
        event => panic!("{event:?}"),
    });
    assert_eq!((again.unwrap(), cached), (finished.clone(), Some(finished)));
}

#[test]
fn run_of_a_table_starts_from_its_parent() {
    let dir = workplace();
    let child = changed(|plan| start_from(plan, Path::new("parent"), LayerSelection::AllMatching));
    let parent = train(dir.path(), &plan(), &dir.path().join("parent"), &mut |_| ()).unwrap();
    in_context(dir.path(), &[], |context| {
        // Without a parent, the name is taken as the path of a weights file.
        let message = PreparedRun::new(&child, None, context).err().unwrap().to_string();
        assert!(message.contains("parent"), "{message}");
        let with = PreparedRun::new(&child, Some(&parent), context).unwrap();
        // The identity is the same as when starting from the parent's weights file.
        let from_file = changed(|plan| start_from(plan, &parent.weights_file(), LayerSelection::AllMatching));
        assert_eq!(with.identity(), PreparedRun::new(&from_file, None, context).unwrap().identity());
        let out = dir.path().join("child");
        let mut copied = 0;
        with.train(&out, Resume::Auto, context, &mut |event| {
            if let RunEvent::Begins { transfer, .. } = event {
                copied = transfer.unwrap().loaded.len();
            }
        })
        .unwrap()
        .unwrap();
        assert_eq!(copied, 11);
    });
}
