//! Trains a small network of configuration A on a synthetic set for three epochs:
//! `cargo run --release -p vgg-train --example train_small [DIR]`.
//!
//! DIR contains the data, metrics and weights. Rerun the same command to resume.

use std::path::PathBuf;
use std::sync::Arc;

use vgg_data::synthetic::{SyntheticConfig, open_or_generate};
use vgg_data::{AugmentConfig, Geometry, Interpolation, Loader, LoaderConfig, OnBadImage, Partition};
use vgg_layers::{Config, Device, Init, Network, NetworkSpec};
use vgg_tensor::SingleProcess;
use vgg_train::{Event, Resume, Schedule, SgdOptions, TrainConfig, Trainer, Training, Validation};
use vgg_weights::{ChannelOrder, WeightsMetadata};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("vgg-train-small"), PathBuf::from);
    let set = SyntheticConfig { seed: 1, train_per_class: 30, val_per_class: 5 };
    let [folder, _] = open_or_generate(&dir.join("set"), &set, 2, &|_, _| ())?;
    let folder = Arc::new(folder.with_cache(1 << 30));

    let device = Device::cpu(0)?;
    let spec =
        NetworkSpec { width: 0.125, classes: 10, head: [64, 64], crop: 64, ..NetworkSpec::paper(Config::A) };
    let mut network = Network::random(spec.clone(), Init::He, 1, &device)?;
    let metadata = WeightsMetadata {
        spec,
        classes: folder.classes().to_vec(),
        channel_order: ChannelOrder::Rgb,
        pixel_scale: 1.0 / 58.0,
        mean_rgb: [128.0; 3],
        std_rgb: [1.0; 3],
        train_scale: vec![73],
        geometry: "paper".into(),
    };
    let augment = AugmentConfig {
        train_scale: [73, 73],
        crop: 64,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        flip: true,
        pca_jitter: None,
    };
    let (mean_rgb, on_bad_image) = (metadata.mean_rgb, OnBadImage::Stop);
    let loader = LoaderConfig {
        augment,
        mean_rgb,
        batch: 16,
        seed: 1,
        on_bad_image,
        workers: 2,
        partition: Partition::WHOLE,
    };
    let schedule = Schedule::Constant { lr: 0.005 };
    let config = TrainConfig {
        micro_batch: 16,
        sgd: SgdOptions::PAPER,
        schedule,
        max_epochs: 3,
        validate_every: 3,
        seed: 1,
    };
    Trainer::new(Training {
        network: &mut network,
        metadata: &metadata,
        loader: &mut Loader::new(folder, loader)?,
        config: &config,
        identity: "the example".into(),
        group: Arc::new(SingleProcess),
        dir: Some(&dir.join("run")),
        allow_changes: &[],
        checkpoints: Default::default(),
        resume: Resume::Auto,
        // A real program evaluates the network here, for example with vgg-eval.
        validate: &mut |_| Ok(Some(Validation { top1_error: 1.0, top5_error: 1.0, loss: 0.0 })),
        events: &mut |event| {
            if let Event::Epoch { metrics, timing } = event {
                println!(
                    "epoch {}: loss {:.3}, {:.0} images/s",
                    metrics.epoch, metrics.train_loss, timing.images_per_s
                );
            }
        },
        interrupted: &|| false,
    })?
    .run()?;
    println!("{}", dir.join("run").display());
    Ok(())
}
