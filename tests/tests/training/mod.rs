//! A small run, shared by the tests of training.

#![allow(dead_code, reason = "not every test uses every helper")]

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use vgg_data::synthetic::{SyntheticConfig, generate};
use vgg_data::{
    AugmentConfig, Geometry, ImageSet, Interpolation, Loader, LoaderConfig, OnBadImage, Partition, Split,
};
use vgg_layers::{Config, Init, Network, NetworkSpec};
use vgg_optim::{Schedule, SgdOptions};
use vgg_tensor::{Device, ProcessGroup, SingleProcess};
use vgg_train::{Checkpoints, Error, Event, Outcome, Resume, TrainConfig, Trainer, Training, Validation};
use vgg_weights::{ChannelOrder, WeightsMetadata};

/// Micro-batch size.
pub const MICRO_BATCH: usize = 5;
/// Mean of every colour channel.
pub const MEAN: f32 = 128.0;
/// Scale of mean-subtracted pixels.
pub const PIXEL_SCALE: f32 = 0.02;

/// Settings of a run of three epochs.
pub struct Run {
    pub threads: usize,
    /// Step before which the run stops.
    pub stop: Option<usize>,
    pub init: Init,
    pub lr: f64,
    /// Seed of initial weights, order and augmentation of images, and dropout.
    pub seed: u64,
    pub validation_loss: f64,
    pub identity: &'static str,
    /// `None` for a single process.
    pub group: Option<Arc<dyn ProcessGroup>>,
    /// `None` for a CPU.
    pub gpu: Option<Device>,
}

pub const RUN: Run = Run {
    threads: 2,
    stop: None,
    init: Init::He,
    lr: 0.01,
    seed: 1,
    validation_loss: 1.5,
    identity: "test",
    group: None,
    gpu: None,
};

impl Run {
    fn group(&self) -> Arc<dyn ProcessGroup> {
        self.group.clone().unwrap_or_else(|| Arc::new(SingleProcess))
    }
}

/// Trains in `dir`. Returns the outcome, and whether [`Event::NoProgress`] was reported.
pub fn run(folder: &Arc<ImageSet>, dir: &Path, run: &Run) -> (Result<Outcome, Error>, bool) {
    let device = run.gpu.clone().unwrap_or_else(|| Device::cpu(run.threads).unwrap());
    let spec = spec();
    let mut network = Network::random(spec.clone(), run.init, run.seed, &device).unwrap();
    let metadata = WeightsMetadata {
        spec,
        classes: folder.classes().to_vec(),
        channel_order: ChannelOrder::Rgb,
        pixel_scale: PIXEL_SCALE,
        mean_rgb: [MEAN; 3],
        std_rgb: [1.0; 3],
        train_scale: vec![32, 48],
        geometry: "paper".into(),
    };
    let mut loader = loader(folder, run);
    let config = TrainConfig {
        micro_batch: MICRO_BATCH,
        sgd: SgdOptions::PAPER,
        schedule: Schedule::Steps { lr: run.lr, gamma: 0.1, milestones: vec![2] },
        max_epochs: 3,
        validate_every: 1,
        seed: run.seed,
    };
    let (steps, mut dead) = (Cell::new(0), false);
    let outcome = Trainer::new(Training {
        network: &mut network,
        metadata: &metadata,
        loader: &mut loader,
        config: &config,
        identity: run.identity.into(),
        group: run.group(),
        dir: Some(dir),
        allow_changes: &[],
        checkpoints: Checkpoints { every_steps: Some(2), ..Checkpoints::default() },
        resume: Resume::Auto,
        validate: &mut |_| {
            Ok(Some(Validation { top1_error: 0.9, top5_error: 0.5, loss: run.validation_loss }))
        },
        events: &mut |event| match event {
            Event::Step { .. } => steps.set(steps.get() + 1),
            Event::NoProgress { .. } => dead = true,
            _ => (),
        },
        interrupted: &|| run.stop.is_some_and(|stop| steps.get() >= stop),
    })
    .and_then(Trainer::run);
    (outcome, dead)
}

/// The network of a run.
pub fn spec() -> NetworkSpec {
    NetworkSpec { width: 0.125, classes: 10, head: [16, 16], crop: 32, ..NetworkSpec::paper(Config::B) }
}

/// The loader of a run: for the whole set, or for the rank's part of each batch.
pub fn loader(folder: &Arc<ImageSet>, run: &Run) -> Loader {
    let augment = AugmentConfig {
        train_scale: [32, 48],
        crop: 32,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        flip: true,
        pca_jitter: None,
    };
    let (group, on_bad_image) = (run.group(), OnBadImage::Stop);
    let partition = Partition { index: group.rank(), count: group.size() };
    let config = LoaderConfig {
        augment,
        mean_rgb: [MEAN; 3],
        batch: 8,
        seed: run.seed,
        on_bad_image,
        workers: run.threads,
        partition,
    };
    Loader::new(folder.clone(), config).unwrap()
}

/// Generates a data set with twenty training images.
pub fn small_set(root: &Path) -> Arc<ImageSet> {
    let set = SyntheticConfig { seed: 1, train_per_class: 2, val_per_class: 1 };
    generate(root, &set, 2, &|_, _| ()).unwrap();
    Arc::new(ImageSet::open(root, Split::Train).unwrap().with_cache(1 << 30))
}
