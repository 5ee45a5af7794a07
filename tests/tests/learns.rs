//! A small network learns: it must beat chance by far on images that it has not seen, on a CPU and on a GPU.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::path::Path;
use std::sync::Arc;

use vgg_data::synthetic::{SyntheticConfig, generate};
use vgg_data::{Filter, OnBadImage};
use vgg_experiment::{Context, DataPlan, Dataset, InitPlan, NetworkPlan, PixelScale, PreparedRun, RunPlan};
use vgg_layers::{Config, Init, LrnStyle, PoolRounding};
use vgg_tensor::{Alone, Device, Precision};
use vgg_tests::gpu;
use vgg_train::{Checkpoints, Resume, Schedule, SgdOptions, TrainConfig};

fn plan(max_epochs: usize) -> RunPlan {
    RunPlan {
        name: "learns".into(),
        network: NetworkPlan {
            config: Config::A,
            width: 0.125,
            classes: None,
            head: [32, 32],
            crop: 32,
            dropout: 0.2,
            lrn_style: LrnStyle::AlexNet,
            pool_rounding: PoolRounding::Floor,
        },
        init: InitPlan { fresh: Init::He, from: None },
        data: DataPlan {
            train_side: [36, 40],
            filter: Filter::Bilinear,
            flip: true,
            colour_shift_std: 0.1,
            pixel_scale: PixelScale::UnitVariance,
            on_bad_image: OnBadImage::Stop,
            enlarge: false,
        },
        train: TrainConfig {
            micro_batch: 20,
            sgd: SgdOptions::PAPER,
            schedule: Schedule::Steps { lr: 0.02, factor: 0.2, at: vec![0.7] },
            max_epochs,
            validate_every: max_epochs,
            seed: 1,
        },
        batch: 20,
        validate_side: 38,
        may_diverge: false,
        train_layers: None,
    }
}

/// Errors on training and validation images after training in `dir`.
fn errors(dir: &Path, device: &Device, max_epochs: usize) -> [f64; 2] {
    let dataset = Dataset::open(&dir.join("set"), 1 << 30).unwrap();
    let statistics = dataset.statistics(dir, 2, &Alone, &mut |_| ()).unwrap();
    let context = Context {
        device,
        dataset: &dataset,
        statistics: &statistics,
        workers: 1,
        group: Arc::new(Alone),
        checkpoints: Checkpoints::default(),
        may_differ: &[],
        interrupted: &|| false,
    };
    let plan = plan(max_epochs);
    let run = PreparedRun::new(&plan, None, &context).unwrap();
    let out = dir.join(format!("run on {}", device.describe().split(' ').next().unwrap()));
    let finished = run.train(&out, Resume::Auto, &context, &mut |_| ()).unwrap().unwrap();
    [finished.last.train_top1_error, finished.last.val_top1_error.unwrap()]
}

fn make_set(dir: &Path, train_per_class: usize) {
    let set = SyntheticConfig { seed: 101, train_per_class, val_per_class: 10 };
    generate(&dir.join("set"), &set, 2, &|_, _| ()).unwrap();
}

#[test]
fn a_network_learns_on_a_cpu() {
    let dir = tempfile::tempdir().unwrap();
    make_set(dir.path(), 40);
    let [train, val] = errors(dir.path(), &Device::cpu(2).unwrap(), 12);
    println!("{train} {val}");
    assert!(val < 0.5, "of ten classes {val} wrong, in training {train}");
}
