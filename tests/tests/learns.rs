//! A small network learns: it beats chance on unseen images by far, on a CPU and on a GPU.

use std::path::Path;
use std::sync::Arc;

use vgg_data::synthetic::{SyntheticConfig, generate};
use vgg_data::write_png;
use vgg_experiment::{Dataset, PreparedRun, RunContext, RunPlan};
use vgg_tensor::{Device, Precision, SingleProcess};
use vgg_testkit::make_pictures;
use vgg_tests::{bf16_devices, gpu};
use vgg_train::{Checkpoints, EpochMetrics, Resume, Schedule};

/// Net A at one eighth of its width, on 32 x 32 crops.
fn plan(batch: usize, max_epochs: usize) -> RunPlan {
    let settings = r#"
        network   = { config = "A", width = 0.125, head = [64, 64], dropout = 0.0, lrn_style = "alexnet", pool_rounding = "floor", init = { scheme = "he" } }
        data      = { train_scale = 34, crop = 32, interpolation = "bilinear", flip = false, pca_jitter_std = 0.0, pixel_scale = "unit-variance", on_bad_image = "stop" }
        optimizer = { momentum_variant = "torch", batch = 10, micro_batch = 10, momentum = 0.9, weight_decay = 5e-4, decay_biases = false, bias_lr_mult = 1.0 }
        schedule  = { kind = "steps", lr = 0.005, gamma = 0.1, milestones = [9] }
        validate  = { protocol = "centre", test_scale = 34, every_epochs = 12 }
        run       = { seed = 1, max_epochs = 12 }
    "#;
    let mut plan: RunPlan = toml::from_str(settings).unwrap();
    plan.optimizer.batch = batch;
    plan.optimizer.micro_batch = batch;
    plan.validate.every_epochs = max_epochs;
    plan.run.max_epochs = max_epochs;
    let milestones = vec![(7 * max_epochs).div_ceil(10)];
    plan.schedule = Schedule::Steps { lr: 0.005, gamma: 0.1, milestones };
    plan
}

/// Trains on `dir/set` and returns the metrics of the last epoch.
fn trained(dir: &Path, device: &Device, plan: &RunPlan) -> EpochMetrics {
    let dataset = Dataset::open(&dir.join("set"), 1 << 30).unwrap();
    let statistics = dataset.statistics(dir, 2, &SingleProcess, &mut |_| ()).unwrap();
    let context = RunContext {
        device,
        dataset: &dataset,
        statistics: &statistics,
        workers: 1,
        group: Arc::new(SingleProcess),
        checkpoints: Checkpoints::default(),
        allow_changes: &[],
        interrupted: &|| false,
    };
    let run = PreparedRun::new(plan, None, &context).unwrap();
    let finished = run.train(&dir.join("run"), Resume::Auto, &context, &mut |_| ()).unwrap();
    finished.unwrap().last
}

#[test]
fn network_learns_the_synthetic_set_on_a_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let set = SyntheticConfig { seed: 101, train_per_class: 120, val_per_class: 50 };
    generate(&dir.path().join("set"), &set, 2, &|_, _| ()).unwrap();
    let last = trained(dir.path(), &Device::cpu(2).unwrap(), &plan(10, 12));
    let (top1, top5) = (last.val_top1_error.unwrap(), last.val_top5_error.unwrap());
    // Ten classes: chance level is 0.9 (top-1) and 0.5 (top-5). Measured: 0.50 and 0.09. With faults injected
    // into the code, top-1 error is 0.87 with labels of other images, 0.89 with the mean added, 0.90 with a
    // learning rate of 0, 0.67 without mean subtraction in validation, 0.82 with one image in eight, and 0.86
    // with frozen convolutions. A wrong sign of the biases' learning rate is detected by `training_runs.rs`,
    // not here.
    assert!(top1 < 0.65 && top5 < 0.2, "{last:?}");
}

#[test]
fn network_learns_small_pictures_in_bf16_and_on_a_gpu() {
    for device in bf16_devices().into_iter().chain(gpu(Precision::F32)) {
        let dir = tempfile::tempdir().unwrap();
        make_pictures(&dir.path().join("set"), |path, pixels| write_png(path, pixels).unwrap()).unwrap();
        let last = trained(dir.path(), &device, &plan(7, 40));
        // Seven classes of two images: chance level is 6 / 7, and a loss of 1.95. Measured: 2 of 14 wrong.
        let (error, loss) = (last.val_top1_error.unwrap(), last.val_loss.unwrap());
        assert!(error <= 6.0 / 14.0 && loss < 1.3, "{device}: {last:?}");
    }
}
