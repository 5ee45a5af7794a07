//! One training run on the pictures of `vgg_testkit`, as in `tests/reference/training_runs.py`.

#![allow(dead_code, reason = "not every test uses every helper")]

use std::path::Path;
use std::sync::Arc;

use vgg_data::write_png;
use vgg_experiment::{Dataset, Error, FinishedRun, PreparedRun, RunContext, RunEvent, RunPlan};
use vgg_layers::{Config, Device, LayerSelection, NamedTensor, Network, NetworkSpec};
use vgg_testkit::{PICTURE_CLASSES, make_pictures, pseudo_random};
use vgg_train::{Checkpoints, Resume};
use vgg_weights::{ChannelOrder, WeightsMetadata};

pub fn plan() -> RunPlan {
    let settings = r#"
        name      = "base"
        network   = { config = "A", width = 0.015625, head = [18, 14], dropout = 0.4, lrn_style = "alexnet", pool_rounding = "floor", init = { scheme = "he" } }
        data      = { train_scale = [36, 48], crop = 32, interpolation = "bilinear", flip = true, pca_jitter_std = 0.5, pixel_scale = "unit-variance", on_bad_image = "stop" }
        optimizer = { momentum_variant = "caffe", batch = 4, micro_batch = 3, momentum = 0.8, weight_decay = 0.05, decay_biases = false, bias_lr_mult = 2.0 }
        schedule  = { kind = "steps", lr = 0.02, gamma = 0.2, milestones = [2] }
        validate  = { protocol = "centre", test_scale = 40, every_epochs = 1 }
        run       = { seed = 5, max_epochs = 3 }
    "#;
    toml::from_str(settings).unwrap()
}

/// [`plan`] with one change.
pub fn changed(change: impl FnOnce(&mut RunPlan)) -> RunPlan {
    let mut plan = plan();
    change(&mut plan);
    plan
}

/// Makes a run start from a weights file.
pub fn start_from(plan: &mut RunPlan, file: &Path, layers: LayerSelection) {
    plan.network.init.from = Some(file.display().to_string());
    plan.network.init.layers = Some(layers);
}

pub fn start_spec() -> NetworkSpec {
    NetworkSpec {
        width: 1.0 / 64.0,
        classes: PICTURE_CLASSES,
        head: [18, 14],
        crop: 32,
        ..NetworkSpec::paper(Config::A)
    }
}

/// Writes a weights file to start from: pseudo-random weights and its own pixel normalisation.
pub fn write_start(path: &Path) {
    let mut network = Network::new(start_spec(), &Device::cpu(1).unwrap()).unwrap();
    for (name, shape) in start_spec().file_shapes().unwrap() {
        let fan_in: usize = shape[1..].iter().product();
        let bound = if name.ends_with("weight") { (6.0 / fan_in as f64).sqrt() as f32 } else { 0.1 };
        let values = pseudo_random(&name, bound, shape.iter().product());
        network.load_tensor(&NamedTensor { name, shape, values }).unwrap();
    }
    let metadata = WeightsMetadata {
        spec: start_spec(),
        classes: (0..PICTURE_CLASSES).map(|k| format!("class{k}")).collect(),
        channel_order: ChannelOrder::Rgb,
        pixel_scale: 0.5,
        mean_rgb: [120.0, 110.0, 100.0],
        std_rgb: [40.0, 30.0, 20.0],
        train_scale: vec![36, 48],
        geometry: "paper".into(),
    };
    vgg_weights::save(path, &network, &metadata).unwrap();
}

/// A directory with the data set `set` and the weights `start.safetensors`.
pub fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    make_pictures(&dir.path().join("set"), |path, pixels| write_png(path, pixels).unwrap()).unwrap();
    write_start(&dir.path().join("start.safetensors"));
    dir
}

/// Calls `f` with the context of the data set in `dir`, on one thread.
pub fn in_context<R>(dir: &Path, allow_changes: &[String], f: impl FnOnce(&RunContext) -> R) -> R {
    in_context_on(&Device::cpu(1).unwrap(), dir, allow_changes, f)
}

pub fn in_context_on<R>(
    device: &Device,
    dir: &Path,
    allow_changes: &[String],
    f: impl FnOnce(&RunContext) -> R,
) -> R {
    let dataset = Dataset::open(&dir.join("set"), 1 << 28).unwrap();
    let statistics = dataset.statistics(dir, 1, &vgg_tensor::SingleProcess, &mut |_| ()).unwrap();
    f(&RunContext {
        device,
        dataset: &dataset,
        statistics: &statistics,
        workers: 1,
        group: Arc::new(vgg_tensor::SingleProcess),
        checkpoints: Checkpoints::default(),
        allow_changes,
        interrupted: &|| false,
    })
}

pub fn train(
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
