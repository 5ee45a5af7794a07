//! The training loop on a small synthetic set.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use vgg_data::synthetic::{SyntheticConfig, generate};
use vgg_data::{AugmentConfig, Filter, Folder, Loader, LoaderConfig, OnBadImage, Split};
use vgg_layers::{Config, Init, Network, NetworkSpec};
use vgg_optim::{Schedule, SgdForm, SgdOptions};
use vgg_tensor::Device;
use vgg_train::{Event, Outcome, Resume, TrainConfig, Training, Validation, train};
use vgg_weights::{ChannelOrder, WeightsMetadata};

/// Trains three epochs in `dir`; stops before step `stop` of the run.
fn run(folder: &Arc<Folder>, dir: &Path, threads: usize, stop: Option<usize>) -> Outcome {
    let device = Device::cpu(threads).unwrap();
    let spec =
        NetworkSpec { width: 0.125, classes: 10, head: [16, 16], crop: 32, ..NetworkSpec::paper(Config::B) };
    let mut network = Network::random(spec.clone(), Init::He, 1, &device).unwrap();
    let metadata = WeightsMetadata {
        spec,
        classes: folder.classes().to_vec(),
        channel_order: ChannelOrder::Rgb,
        pixel_scale: 0.02,
        mean_rgb: [128.0; 3],
        std_rgb: [1.0; 3],
        train_side: vec![32, 48],
        geometry: "paper".into(),
    };
    let augment = AugmentConfig {
        train_side: [32, 48],
        crop: 32,
        filter: Filter::Bilinear,
        flip: true,
        colour_shift: None,
    };
    let (mean_rgb, on_bad_image) = (metadata.mean_rgb, OnBadImage::Stop);
    let config = LoaderConfig { augment, mean_rgb, batch: 8, seed: 1, on_bad_image, workers: threads };
    let mut loader = Loader::new(folder.clone(), config).unwrap();
    let config = TrainConfig {
        micro_batch: 5,
        sgd: SgdOptions {
            form: SgdForm::Caffe,
            momentum: 0.9,
            weight_decay: 5e-4,
            decay_biases: false,
            bias_lr: 1.0,
        },
        schedule: Schedule::Steps { lr: 0.01, factor: 0.1, at: vec![0.5] },
        max_epochs: 3,
        validate_every: 1,
        seed: 1,
    };
    let steps = Cell::new(0);
    train(Training {
        network: &mut network,
        metadata: &metadata,
        loader: &mut loader,
        config: &config,
        identity: "test".into(),
        dir: Some(dir),
        resume: Resume::Auto,
        validate: &mut |_| Ok(Validation { top1_error: 0.9, top5_error: 0.5, loss: 2.3 }),
        events: &mut |event| {
            if let Event::Step { .. } = event {
                steps.set(steps.get() + 1);
            }
        },
        interrupted: &|| stop.is_some_and(|stop| steps.get() >= stop),
    })
    .unwrap()
}

#[test]
fn interrupted_and_resumed_is_the_same_to_the_last_bit() {
    let dir = tempfile::tempdir().unwrap();
    let set = SyntheticConfig { seed: 1, train_per_class: 2, val_per_class: 1 };
    generate(&dir.path().join("set"), &set, 2, &|_, _| ()).unwrap();
    let folder = Arc::new(Folder::open(&dir.path().join("set"), Split::Train).unwrap().with_cache(1 << 30));
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let outcome = run(&folder, &whole, 2, None);
    assert_eq!((outcome.metrics.len(), outcome.interrupted), (3, false));
    assert!(run(&folder, &parts, 1, Some(4)).interrupted, "stops within the second epoch");
    run(&folder, &parts, 2, None);
    for file in ["weights.safetensors", "metrics.jsonl", "metrics.csv"] {
        let read = |dir: &Path| std::fs::read(dir.join(file)).unwrap();
        assert!(read(&whole) == read(&parts), "{file} differs");
    }
}
