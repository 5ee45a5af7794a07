//! A small network learns: on images that it has not seen it beats chance by far, on a CPU and on a GPU.

use std::path::Path;
use std::sync::Arc;

use vgg_data::synthetic::{SyntheticConfig, generate};
use vgg_data::{Filter, OnBadImage, write_png};
use vgg_experiment::{Context, DataPlan, Dataset, InitPlan, NetworkPlan, PixelScale, PreparedRun, RunPlan};
use vgg_layers::{Config, Init, LrnStyle, PoolRounding};
use vgg_tensor::{Alone, Device, Precision};
use vgg_testkit::make_pictures;
use vgg_tests::gpu;
use vgg_train::{Checkpoints, EpochMetrics, Resume, Schedule, SgdForm, SgdOptions, TrainConfig};

/// Net A at an eighth of its width, on crops of 32 x 32.
fn plan(batch: usize, max_epochs: usize) -> RunPlan {
    RunPlan {
        name: "learns".into(),
        network: NetworkPlan {
            config: Config::A,
            width: 0.125,
            classes: None,
            head: [64, 64],
            crop: 32,
            dropout: 0.0,
            lrn_style: LrnStyle::AlexNet,
            pool_rounding: PoolRounding::Floor,
        },
        init: InitPlan { fresh: Init::He, from: None },
        data: DataPlan {
            train_side: [34, 34],
            filter: Filter::Bilinear,
            flip: false,
            colour_shift_std: 0.0,
            pixel_scale: PixelScale::UnitVariance,
            on_bad_image: OnBadImage::Stop,
            enlarge: false,
        },
        train: TrainConfig {
            micro_batch: batch,
            sgd: SgdOptions { form: SgdForm::Torch, ..SgdOptions::PAPER },
            schedule: Schedule::Steps { lr: 0.005, factor: 0.1, at: vec![0.7] },
            max_epochs,
            validate_every: max_epochs,
            seed: 1,
        },
        batch,
        validate_side: 34,
        may_diverge: false,
        train_layers: None,
    }
}

/// The last epoch of training on `dir/set`.
fn trained(dir: &Path, device: &Device, plan: &RunPlan) -> EpochMetrics {
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
    let run = PreparedRun::new(plan, None, &context).unwrap();
    let finished = run.train(&dir.join("run"), Resume::Auto, &context, &mut |_| ()).unwrap();
    finished.unwrap().last
}

#[test]
fn a_network_learns_the_synthetic_set_on_a_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let set = SyntheticConfig { seed: 101, train_per_class: 120, val_per_class: 50 };
    generate(&dir.path().join("set"), &set, 2, &|_, _| ()).unwrap();
    let last = trained(dir.path(), &Device::cpu(2).unwrap(), &plan(10, 12));
    let (top1, top5) = (last.val_top1_error.unwrap(), last.val_top5_error.unwrap());
    // Ten classes: chance is 0.9 and 0.5. Seen: 0.50 and 0.09.
    assert!(top1 < 0.65 && top5 < 0.2, "{last:?}");
}

#[test]
fn a_network_learns_small_pictures_on_a_gpu() {
    let Some(device) = gpu(Precision::F32) else { return };
    let dir = tempfile::tempdir().unwrap();
    make_pictures(&dir.path().join("set"), |path, pixels| write_png(path, pixels).unwrap()).unwrap();
    let last = trained(dir.path(), &device, &plan(7, 40));
    // Seven classes of two images: chance is 6 / 7 and a loss of 1.95. Seen: 2 of 14 wrong.
    assert!(last.val_top1_error.unwrap() <= 6.0 / 14.0 && last.val_loss.unwrap() < 1.3, "{last:?}");
}
