//! One training run: from a plan to metrics and weights, against PyTorch; what it says and writes; and what decides it.
//!
//! `tests/reference/training_runs.py` made the expected runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use vgg_data::{Filter, OnBadImage, write_png};
use vgg_experiment::{
    Context, DataPlan, Dataset, Error, FinishedRun, InitPlan, NetworkPlan, PixelScale, PreparedRun, RunEvent,
    RunPlan, Source, Start,
};
use vgg_layers::{
    Config, Device, Init, LrnStyle, NamedArray, Network, NetworkSpec, PoolRounding, TransferMap,
};
use vgg_testkit::{PICTURE_CLASSES, hashed, make_pictures, picture_path, projections};
use vgg_train::{Checkpoints, Resume, Schedule, SgdForm, SgdOptions, Then, TrainConfig};
use vgg_weights::{ChannelOrder, WeightsMetadata};

/// Shares by which losses and projections of weights may differ from PyTorch's in float64: rounding to float32, amplified by 12 steps,
/// comes to 2e-5; a unit at the kink of a ReLU may take the other side, which comes to 2e-2. Every setting moves its run by 7e-2 or more.
const TOLERANCE: f64 = 3e-2;

fn plan() -> RunPlan {
    RunPlan {
        name: "base".into(),
        network: NetworkPlan {
            config: Config::A,
            width: 1.0 / 64.0,
            classes: None,
            head: [18, 14],
            crop: 32,
            dropout: 0.4,
            lrn_style: LrnStyle::AlexNet,
            pool_rounding: PoolRounding::Floor,
        },
        init: InitPlan { fresh: Init::He, from: None },
        data: DataPlan {
            train_side: [36, 48],
            filter: Filter::Bilinear,
            flip: true,
            colour_shift_std: 0.5,
            pixel_scale: PixelScale::UnitVariance,
            on_bad_image: OnBadImage::Stop,
            enlarge: false,
        },
        train: TrainConfig {
            micro_batch: 3,
            sgd: SgdOptions {
                form: SgdForm::Caffe,
                momentum: 0.8,
                weight_decay: 0.05,
                decay_biases: false,
                bias_lr: 2.0,
            },
            schedule: Schedule::Steps { lr: 0.02, factor: 0.2, at: vec![0.5] },
            max_epochs: 3,
            validate_every: 1,
            seed: 5,
        },
        batch: 4,
        validate_side: 40,
        may_diverge: false,
        train_layers: None,
    }
}

fn start_spec() -> NetworkSpec {
    NetworkSpec {
        width: 1.0 / 64.0,
        classes: PICTURE_CLASSES,
        head: [18, 14],
        crop: 32,
        ..NetworkSpec::paper(Config::A)
    }
}

/// Hashed weights with pixels of their own, to start from.
fn write_start(path: &Path) {
    let mut network = Network::new(start_spec(), &Device::cpu(1).unwrap()).unwrap();
    for (name, shape) in start_spec().file_shapes().unwrap() {
        let fan_in: usize = shape[1..].iter().product();
        let bound = if name.ends_with("weight") { (6.0 / fan_in as f64).sqrt() as f32 } else { 0.1 };
        let values = hashed(&name, bound, shape.iter().product());
        network.import(&NamedArray { name, shape, values }).unwrap();
    }
    let metadata = WeightsMetadata {
        spec: start_spec(),
        classes: (0..PICTURE_CLASSES).map(|k| format!("class{k}")).collect(),
        channel_order: ChannelOrder::Rgb,
        pixel_scale: 0.5,
        mean_rgb: [120.0, 110.0, 100.0],
        std_rgb: [40.0, 30.0, 20.0],
        train_side: vec![36, 48],
        geometry: "paper".into(),
    };
    vgg_weights::save(path, &network, &metadata).unwrap();
}

/// A directory with `set` and `start.safetensors`.
fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    make_pictures(&dir.path().join("set"), |path, pixels| write_png(path, pixels).unwrap()).unwrap();
    write_start(&dir.path().join("start.safetensors"));
    dir
}

/// Calls `f` with the context of the data set in `dir`, on one thread.
fn in_context<R>(dir: &Path, may_differ: &[String], f: impl FnOnce(&Context) -> R) -> R {
    in_context_on(&Device::cpu(1).unwrap(), dir, may_differ, f)
}

fn in_context_on<R>(device: &Device, dir: &Path, may_differ: &[String], f: impl FnOnce(&Context) -> R) -> R {
    let dataset = Dataset::open(&dir.join("set"), 1 << 28).unwrap();
    let statistics = dataset.statistics(dir, 1, &vgg_tensor::Alone, &mut |_| ()).unwrap();
    f(&Context {
        device,
        dataset: &dataset,
        statistics: &statistics,
        workers: 1,
        group: Arc::new(vgg_tensor::Alone),
        checkpoints: Checkpoints::default(),
        may_differ,
        interrupted: &|| false,
    })
}

fn train(
    dir: &Path,
    plan: &RunPlan,
    out: &Path,
    events: &mut dyn FnMut(RunEvent),
) -> Result<FinishedRun, Error> {
    in_context(dir, &[], |context| {
        let run = PreparedRun::new(plan, None, context)?;
        Ok(run.train(out, Resume::Auto, context, events)?.unwrap())
    })
}

fn reference(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("fixtures/training_runs.json")).unwrap();
    assert!(all[name].is_object(), "{name}");
    all[name].clone()
}

/// Asserts that the run in `out` has the metrics and weights of the reference.
fn assert_run(out: &Path, reference: &Value, what: &str) {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = reference["metrics"].as_array().unwrap();
    assert_eq!(rows.len(), expected.len(), "{what}");
    for (row, expected) in rows.iter().zip(expected) {
        for key in ["train_loss", "val_loss"] {
            let (ours, theirs) = (row[key].as_f64(), expected[key].as_f64());
            let close = ours.zip(theirs).map_or(ours == theirs, |(a, b)| (a / b - 1.0).abs() < TOLERANCE);
            assert!(close, "{what}: {key} {ours:?} instead of {theirs:?}");
        }
        for key in ["epoch", "step", "skipped"] {
            assert_eq!(row[key], expected[key], "{what}: {key}");
        }
    }
    let mut weights = vgg_files::TensorFile::open(&out.join("weights.safetensors")).unwrap();
    let expected = reference["weights"].as_object().unwrap();
    assert_eq!(weights.names().len(), expected.len());
    for (name, expected) in expected {
        let theirs: [f64; 5] = serde_json::from_value(expected.clone()).unwrap();
        let ours = projections(&weights.read_f32(name).unwrap());
        for (a, b) in ours.iter().zip(theirs) {
            assert!((a - b).abs() <= TOLERANCE * theirs[0], "{what}: {name} {ours:?} instead of {theirs:?}");
        }
    }
    let metadata = vgg_weights::read_metadata(&out.join("weights.safetensors")).unwrap();
    for c in 0..3 {
        let mean = reference["pixels"]["mean"][c].as_f64().unwrap();
        let factor = reference["pixels"]["factor"][c].as_f64().unwrap();
        // Each rounded to float32.
        assert!((f64::from(metadata.mean_rgb[c]) / mean - 1.0).abs() < 2e-7, "{what}: {metadata:?}");
        let ours = f64::from(metadata.pixel_scale) / f64::from(metadata.std_rgb[c]);
        assert!((ours / factor - 1.0).abs() < 2e-7, "{what}: {metadata:?}");
    }
}

#[test]
fn a_run_has_the_metrics_and_weights_of_pytorch() {
    let dir = workplace();
    let file = dir.path().join("start.safetensors");
    let start = |map| Some(Start { source: Source::File(file.clone()), map });
    let base = plan;
    let data = |data: DataPlan| RunPlan { data, ..base() };
    let cases = [
        ("base", base()),
        (
            "network.config",
            RunPlan { network: NetworkPlan { config: Config::C, ..base().network }, ..base() },
        ),
        ("he-fan-out", RunPlan { init: InitPlan { fresh: Init::HeFanOut, from: None }, ..base() }),
        (
            "map list",
            RunPlan {
                init: InitPlan {
                    fresh: Init::He,
                    from: start(TransferMap::Layers(vec!["conv4_1".into(), "fc7".into()])),
                },
                ..base()
            },
        ),
        (
            "network.train_layers",
            RunPlan { train_layers: Some(vec!["conv5_2".into(), "fc8".into()]), ..base() },
        ),
        ("data.train_side, fixed", data(DataPlan { train_side: [44, 44], ..base().data })),
        ("lanczos", data(DataPlan { filter: Filter::Lanczos, ..base().data })),
        ("data.flip", data(DataPlan { flip: false, ..base().data })),
        ("data.colour_shift_std, 0", data(DataPlan { colour_shift_std: 0.0, ..base().data })),
        ("data.pixel_scale", data(DataPlan { pixel_scale: PixelScale::Fixed(0.0125), ..base().data })),
        ("pixel_scale torchvision", data(DataPlan { pixel_scale: PixelScale::Torchvision, ..base().data })),
        (
            "pixel_scale as-start",
            RunPlan {
                init: InitPlan { fresh: Init::He, from: start(TransferMap::Layers(vec!["fc7".into()])) },
                ..data(DataPlan { pixel_scale: PixelScale::AsStart, ..base().data })
            },
        ),
        ("optimizer.batch", RunPlan { batch: 5, ..base() }),
        ("validate.test_side", RunPlan { validate_side: 37, ..base() }),
        ("run.seed", RunPlan { train: TrainConfig { seed: 6, ..base().train }, ..base() }),
        (
            "plateau, every 2",
            RunPlan {
                train: TrainConfig {
                    schedule: Schedule::Plateau {
                        lr: 0.03,
                        factor: 0.5,
                        max_drops: 1,
                        patience_epochs: 2,
                        min_gain: 0.0,
                        then: Then::Stop,
                    },
                    max_epochs: 7,
                    validate_every: 2,
                    ..base().train
                },
                ..base()
            },
        ),
    ];
    for (number, (name, plan)) in cases.iter().enumerate() {
        let out = dir.path().join(format!("run-{number}"));
        train(dir.path(), plan, &out, &mut |_| ()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_run(&out, &reference(name), name);
    }
}

#[test]
fn bad_images_are_left_out_of_training_and_validation() {
    let dir = workplace();
    for (split, index) in [("train", 3), ("val", 4), ("val", 9)] {
        std::fs::write(picture_path(&dir.path().join("set"), split, index), b"").unwrap();
    }
    let skip = RunPlan { data: DataPlan { on_bad_image: OnBadImage::Skip, ..plan().data }, ..plan() };
    let mut left_out = Vec::new();
    let out = dir.path().join("run");
    train(dir.path(), &skip, &out, &mut |event| {
        if let RunEvent::LeftOut(bad) = event {
            left_out.push(bad.to_owned());
        }
    })
    .unwrap();
    assert_run(&out, &reference("data.on_bad_image"), "bad images");
    assert_eq!(left_out.len(), 2, "told once: {left_out:?}");
    assert!(
        left_out[0].contains("val/class2/0.png") && left_out[1].contains("val/class4/1.png"),
        "{left_out:?}"
    );
    assert!(train(dir.path(), &plan(), &dir.path().join("stop"), &mut |_| ()).is_err());
}

#[test]
fn a_run_writes_down_what_it_is_and_is_not_trained_again() {
    let dir = workplace();
    let from = Some(Start {
        source: Source::File(dir.path().join("start.safetensors")),
        map: TransferMap::Layers(vec!["fc7".into()]),
    });
    let plan = RunPlan { init: InitPlan { fresh: Init::He, from }, ..plan() };
    let out = dir.path().join("run");
    let mut begun = Vec::new();
    let finished = train(dir.path(), &plan, &out, &mut |event| match event {
        RunEvent::Begins { images, transfer } => begun.push((images, transfer.cloned().unwrap())),
        RunEvent::Cached(_) => panic!("there was nothing"),
        _ => (),
    })
    .unwrap();
    assert_eq!((begun.len(), begun[0].0, &begun[0].1.copied), (1, 14, &vec!["fc7".to_owned()]));
    assert_eq!(begun[0].1.drawn.len(), 10);
    assert_eq!((finished.epochs, finished.last.epoch, &finished.dir), (3, 3, &out));
    assert_eq!(finished.weights, vgg_files::hash_file(&finished.weights_file()).unwrap());
    let json =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(out.join(name)).unwrap()).unwrap() };
    let (run, result) = (json("run.json"), json("result.json"));
    assert_eq!(run["plan"], serde_json::to_value(&plan).unwrap());
    assert_eq!(
        (&run["identity"], &result["identity"]),
        (&result["identity"], &serde_json::to_value(&finished.identity).unwrap())
    );
    let spec = start_spec();
    assert_eq!(run["parameters"], spec.parameter_count().unwrap());
    assert_eq!(run["transfer"]["copied"][0], "fc7");
    let text = |key: &str| run[key].as_str().unwrap().to_owned();
    assert!(text("dataset").ends_with("set") && Path::new(&text("dataset")).is_absolute());
    assert_eq!(
        (text("start"), text("version")),
        (dir.path().join("start.safetensors").display().to_string(), env!("CARGO_PKG_VERSION").to_owned())
    );
    assert!(text("device").starts_with("cpu"), "{run}");
    assert!(run["started_unix_s"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!((&result["epochs"], &result["last"]["epoch"]), (&3.into(), &3.into()));
    let metadata = vgg_weights::read_metadata(&finished.weights_file()).unwrap();
    assert_eq!(
        (metadata.spec, metadata.train_side, metadata.geometry),
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

/// Every field of a plan that decides its run, each changed in another way.
fn other_plans(start: PathBuf) -> Vec<RunPlan> {
    let base = plan;
    let network = |network| RunPlan { network, ..base() };
    let data = |data| RunPlan { data, ..base() };
    let train = |train| RunPlan { train, ..base() };
    let sgd = |sgd| RunPlan { train: TrainConfig { sgd, ..base().train }, ..base() };
    let of = base().network;
    let all = base().data;
    let config = base().train;
    let start = |map| RunPlan {
        init: InitPlan { fresh: Init::He, from: Some(Start { source: Source::File(start.clone()), map }) },
        ..base()
    };
    let as_start = start(TransferMap::Paper);
    vec![
        network(NetworkPlan { config: Config::B, ..of.clone() }),
        network(NetworkPlan { width: 0.125, ..of.clone() }),
        network(NetworkPlan { head: [14, 18], ..of.clone() }),
        network(NetworkPlan { dropout: 0.5, ..of.clone() }),
        network(NetworkPlan { lrn_style: LrnStyle::Caffe, ..of.clone() }),
        network(NetworkPlan { pool_rounding: PoolRounding::Ceil, ..of.clone() }),
        RunPlan {
            validate_side: 64,
            data: DataPlan { train_side: [64, 64], ..all.clone() },
            ..network(NetworkPlan { crop: 64, ..of })
        },
        RunPlan { init: InitPlan { fresh: Init::GlorotNormal, from: None }, ..base() },
        start(TransferMap::AllMatching),
        start(TransferMap::Layers(vec!["fc7".into()])),
        RunPlan { data: DataPlan { pixel_scale: PixelScale::AsStart, ..all.clone() }, ..as_start.clone() },
        as_start,
        data(DataPlan { train_side: [36, 49], ..all.clone() }),
        data(DataPlan { train_side: [37, 48], ..all.clone() }),
        data(DataPlan { filter: Filter::Nearest, ..all.clone() }),
        data(DataPlan { flip: false, ..all.clone() }),
        data(DataPlan { colour_shift_std: 0.25, ..all.clone() }),
        data(DataPlan { pixel_scale: PixelScale::Fixed(1.0), ..all.clone() }),
        data(DataPlan { pixel_scale: PixelScale::Torchvision, ..all.clone() }),
        data(DataPlan { on_bad_image: OnBadImage::Skip, ..all }),
        train(TrainConfig { micro_batch: 2, ..config.clone() }),
        train(TrainConfig { max_epochs: 4, ..config.clone() }),
        train(TrainConfig { validate_every: 2, ..config.clone() }),
        train(TrainConfig { seed: 6, ..config.clone() }),
        train(TrainConfig { schedule: Schedule::Constant { lr: 0.02 }, ..config.clone() }),
        train(TrainConfig {
            schedule: Schedule::Steps { lr: 0.02, factor: 0.2, at: vec![0.6] },
            ..config.clone()
        }),
        sgd(SgdOptions { form: SgdForm::Torch, ..config.sgd }),
        sgd(SgdOptions { momentum: 0.9, ..config.sgd }),
        sgd(SgdOptions { weight_decay: 0.1, ..config.sgd }),
        sgd(SgdOptions { decay_biases: true, ..config.sgd }),
        sgd(SgdOptions { bias_lr: 1.0, ..config.sgd }),
        RunPlan { batch: 5, ..base() },
        RunPlan { validate_side: 41, ..base() },
        RunPlan { train_layers: Some(vec!["fc8".into()]), ..base() },
    ]
}

#[test]
fn everything_that_decides_a_run_is_in_its_identity() {
    let dir = workplace();
    let out = dir.path().join("run");
    train(dir.path(), &plan(), &out, &mut |_| ()).unwrap();
    let others = other_plans(dir.path().join("start.safetensors"));
    in_context(dir.path(), &[], |context| {
        let identity = |plan: &RunPlan| PreparedRun::new(plan, None, context).unwrap().identity();
        let mut seen = vec![identity(&plan())];
        for other in &others {
            let own = identity(other);
            assert!(!seen.contains(&own), "the same identity as another: {other:?}");
            seen.push(own);
            let refused = PreparedRun::new(other, None, context).unwrap().train(
                &out,
                Resume::Auto,
                context,
                &mut |_| (),
            );
            assert!(matches!(refused, Err(Error::Train(vgg_train::Error::OtherRun { .. }))), "{other:?}");
        }
        // What does not decide a run.
        let classes = RunPlan { network: NetworkPlan { classes: Some(7), ..plan().network }, ..plan() };
        let named = RunPlan { name: "other".into(), may_diverge: true, ..plan() };
        let enlarged = RunPlan { data: DataPlan { enlarge: true, ..plan().data }, ..plan() };
        for same in [classes, named, enlarged] {
            assert_eq!(identity(&same), seen[0], "{same:?}");
        }
    });
}

#[test]
fn images_weights_to_start_from_and_the_instruction_set_decide_a_run_and_threads_do_not() {
    let dir = workplace();
    let file = dir.path().join("start.safetensors");
    let from = Some(Start { source: Source::File(file.clone()), map: TransferMap::AllMatching });
    let started = RunPlan { init: InitPlan { fresh: Init::He, from }, ..plan() };
    let identity = |device: &Device, plan: &RunPlan| {
        in_context_on(device, dir.path(), &[], |context| {
            PreparedRun::new(plan, None, context).unwrap().identity()
        })
    };
    let cpu = Device::cpu(1).unwrap();
    let before = [identity(&cpu, &plan()), identity(&cpu, &started)];
    assert_eq!(identity(&Device::cpu(2).unwrap(), &plan()), before[0]);
    let portable = vgg_tensor::DeviceConfig {
        kind: vgg_tensor::DeviceKind::Cpu,
        threads: 1,
        instruction_set: Some("portable".into()),
        ..Default::default()
    };
    assert_ne!(identity(&Device::open(&portable).unwrap(), &plan()), before[0]);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(identity(&cpu, &plan()), before[0]);
    assert_ne!(identity(&cpu, &started), before[1]);
    let image = picture_path(&dir.path().join("set"), "val", 3);
    std::fs::rename(&image, image.with_file_name("renamed.png")).unwrap();
    assert_ne!(identity(&cpu, &plan()), before[0]);
}

#[test]
fn directories_that_hold_something_else_are_refused() {
    let dir = workplace();
    for name in ["weights.safetensors", "checkpoints", "metrics.jsonl", "metrics.csv", "timing.jsonl"] {
        let out = dir.path().join("foreign");
        std::fs::create_dir_all(&out).unwrap();
        std::fs::write(out.join(name), b"mine").unwrap();
        let message = train(dir.path(), &plan(), &out, &mut |_| ()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("give another directory"), "{message}");
        assert_eq!(std::fs::read(out.join(name)).unwrap(), b"mine");
        std::fs::remove_dir_all(&out).unwrap();
    }
    // A finished run of other settings that may differ needs a checkpoint to go on from.
    let out = dir.path().join("run");
    train(dir.path(), &plan(), &out, &mut |_| ()).unwrap();
    let longer = RunPlan { train: TrainConfig { max_epochs: 4, ..plan().train }, ..plan() };
    let may_differ = ["train.max_epochs".to_owned()];
    let go_on = || {
        in_context(dir.path(), &may_differ, |context| {
            let run = PreparedRun::new(&longer, None, context).unwrap();
            run.train(&out, Resume::Auto, context, &mut |_| ()).map(Option::unwrap)
        })
    };
    vgg_train::remove_checkpoints(&out).unwrap();
    let message = go_on().unwrap_err().to_string();
    assert!(message.contains("no checkpoint of it to go on from"), "{message}");
    std::fs::remove_dir_all(&out).unwrap();
    train(dir.path(), &plan(), &out, &mut |_| ()).unwrap();
    assert_eq!(go_on().unwrap().epochs, 4);
}

#[test]
fn a_run_of_a_table_starts_from_the_run_that_it_names() {
    let dir = workplace();
    let child = RunPlan {
        init: InitPlan {
            fresh: Init::He,
            from: Some(Start { source: Source::Run("parent".into()), map: TransferMap::AllMatching }),
        },
        ..plan()
    };
    let parent = train(dir.path(), &plan(), &dir.path().join("parent"), &mut |_| ()).unwrap();
    in_context(dir.path(), &[], |context| {
        let message = PreparedRun::new(&child, None, context).err().unwrap().to_string();
        assert_eq!(message, "run parent must be trained first");
        let with = PreparedRun::new(&child, Some(&parent), context).unwrap();
        // The same as from its weights file.
        let file = Some(Start { source: Source::File(parent.weights_file()), map: TransferMap::AllMatching });
        let from_file = RunPlan { init: InitPlan { fresh: Init::He, from: file }, ..plan() };
        assert_eq!(with.identity(), PreparedRun::new(&from_file, None, context).unwrap().identity());
        let out = dir.path().join("child");
        let mut copied = 0;
        with.train(&out, Resume::Auto, context, &mut |event| {
            if let RunEvent::Begins { transfer, .. } = event {
                copied = transfer.unwrap().copied.len();
            }
        })
        .unwrap()
        .unwrap();
        assert_eq!(copied, 11);
    });
}
