//! A small run on the pictures of `vgg_testkit`, and helpers to inspect its directory.

#![allow(dead_code, reason = "not every test uses every helper")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use vgg_data::{
    AugmentConfig, Geometry, ImageSet, Interpolation, Loader, LoaderConfig, OnBadImage, Partition, Split,
    write_png,
};
use vgg_layers::{Config, Device, Init, Network, NetworkSpec};
use vgg_tensor::{ProcessGroup, SingleProcess};
use vgg_testkit::{PICTURE_CLASSES, make_pictures};
use vgg_train::{
    Checkpoints, Error, Event, Outcome, Resume, Schedule, SgdOptions, TrainConfig, Trainer, Training,
    Validation,
};
use vgg_weights::{ChannelOrder, WeightsMetadata};

/// A run: 14 images in batches of 4, four steps an epoch.
pub struct Run {
    pub config: TrainConfig,
    pub checkpoints: Checkpoints,
    pub resume: Resume,
    pub identity: Value,
    pub allow_changes: Vec<String>,
    pub on_bad_image: OnBadImage,
    pub init: Init,
    /// Top-1 error of each validation in turn; the last one repeats.
    pub errors: Vec<f64>,
    pub validation_loss: f64,
    /// Step of this attempt before which it is interrupted.
    pub stop: Option<usize>,
    /// Validation of this attempt during which it is interrupted.
    pub stop_validation: Option<usize>,
    pub group: Arc<dyn ProcessGroup>,
    /// Whether the run has no directory.
    pub without_dir: bool,
    /// Losses and errors that steps report, and the times that they waited for data.
    pub reported: Mutex<Vec<(f64, f64, Duration)>>,
}

/// An event in a form that tests can compare.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    Step { epoch: usize, step: usize, steps: usize, images: usize },
    Epoch(usize),
    Resumed { epochs: usize, batches: usize },
    Rejected,
    Skipped(usize),
    Diverges { loss: f64, chance: f64 },
    NoProgress { loss: f64, chance: f64 },
    Validated,
}

impl Default for Run {
    fn default() -> Run {
        Run {
            config: TrainConfig {
                micro_batch: 3,
                sgd: SgdOptions::PAPER,
                schedule: Schedule::Constant { lr: 0.01 },
                max_epochs: 3,
                validate_every: 1,
                seed: 1,
            },
            checkpoints: Checkpoints::default(),
            resume: Resume::Auto,
            identity: json!("test"),
            allow_changes: Vec::new(),
            on_bad_image: OnBadImage::Stop,
            init: Init::He,
            errors: vec![0.5],
            validation_loss: 1.2,
            stop: None,
            stop_validation: None,
            group: Arc::new(SingleProcess),
            without_dir: false,
            reported: Mutex::default(),
        }
    }
}

pub fn spec() -> NetworkSpec {
    NetworkSpec {
        width: 1.0 / 64.0,
        classes: PICTURE_CLASSES,
        head: [16, 16],
        crop: 32,
        ..NetworkSpec::paper(Config::A)
    }
}

pub fn metadata() -> WeightsMetadata {
    WeightsMetadata {
        spec: spec(),
        classes: (0..PICTURE_CLASSES).map(|k| format!("class{k}")).collect(),
        channel_order: ChannelOrder::Rgb,
        pixel_scale: 0.02,
        mean_rgb: [120.0, 110.0, 100.0],
        std_rgb: [1.0, 2.0, 0.5],
        train_scale: vec![36, 48],
        geometry: "paper".into(),
    }
}

/// Fourteen training images in `dir/set`.
pub fn pictures(dir: &Path) -> Arc<ImageSet> {
    let set = dir.join("set");
    make_pictures(&set, |path, pixels| write_png(path, pixels).unwrap()).unwrap();
    Arc::new(ImageSet::open(&set, Split::Train).unwrap())
}

pub fn loader(set: &Arc<ImageSet>, run: &Run) -> Loader {
    let augment = AugmentConfig {
        train_scale: [36, 48],
        crop: 32,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        flip: true,
        pca_jitter: None,
    };
    let partition = Partition { index: run.group.rank(), count: run.group.size() };
    let (mean_rgb, on_bad_image) = (metadata().mean_rgb, run.on_bad_image);
    let config = LoaderConfig { augment, mean_rgb, batch: 4, seed: 1, on_bad_image, workers: 1, partition };
    Loader::new(set.clone(), config).unwrap()
}

/// Trains in `dir`; returns the outcome, the network and the events.
pub fn run(set: &Arc<ImageSet>, dir: &Path, run: &Run) -> (Result<Outcome, Error>, Network, Vec<Seen>) {
    let device = Device::cpu(1).unwrap();
    let mut network = Network::random(spec(), run.init, 1, &device).unwrap();
    let (seen, steps) = (Mutex::new(Vec::new()), Mutex::new(0));
    let mut validations = 0;
    let outcome = Trainer::new(Training {
        network: &mut network,
        metadata: &metadata(),
        loader: &mut loader(set, run),
        config: &run.config,
        identity: run.identity.clone(),
        group: run.group.clone(),
        dir: (!run.without_dir).then_some(dir),
        allow_changes: &run.allow_changes,
        checkpoints: run.checkpoints,
        resume: run.resume,
        validate: &mut |_| {
            seen.lock().unwrap().push(Seen::Validated);
            if run.stop_validation == Some(validations) {
                return Ok(None);
            }
            let top1_error = *run.errors.get(validations).or(run.errors.last()).unwrap();
            validations += 1;
            Ok(Some(Validation { top1_error, top5_error: top1_error / 2.0, loss: run.validation_loss }))
        },
        events: &mut |event| {
            if let Event::Step { loss, top1_error, waited, .. } = event {
                *steps.lock().unwrap() += 1;
                run.reported.lock().unwrap().push((loss, top1_error, waited));
            }
            seen.lock().unwrap().push(in_words(&event));
        },
        interrupted: &|| run.stop.is_some_and(|stop| *steps.lock().unwrap() >= stop),
    })
    .and_then(Trainer::run);
    (outcome, network, seen.into_inner().unwrap())
}

fn in_words(event: &Event) -> Seen {
    match event {
        Event::Step { epoch, step, steps, images, .. } => {
            Seen::Step { epoch: *epoch, step: *step, steps: *steps, images: *images }
        }
        Event::Epoch { metrics, timing } => {
            assert_eq!(metrics.epoch, timing.epoch);
            Seen::Epoch(metrics.epoch)
        }
        Event::Resumed { epochs, batches } => Seen::Resumed { epochs: *epochs, batches: *batches },
        Event::Rejected(_) => Seen::Rejected,
        Event::Skipped(bad) => Seen::Skipped(bad.id),
        Event::Diverges { loss, chance } => Seen::Diverges { loss: *loss, chance: *chance },
        Event::NoProgress { loss, chance } => Seen::NoProgress { loss: *loss, chance: *chance },
    }
}

/// Steps of the checkpoints in a run directory, in order.
pub fn checkpoints(dir: &Path) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(dir.join("checkpoints")) else { return Vec::new() };
    let step = |name: String| name.strip_prefix("step-").unwrap_or_else(|| panic!("{name}")).parse().unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut steps: Vec<u64> = names.map(step).collect();
    steps.sort_unstable();
    steps
}

/// `state.json` of a checkpoint.
pub fn state(dir: &Path, step: u64) -> Value {
    let path = dir.join(format!("checkpoints/step-{step:08}/state.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
