//! Training steps and dense evaluation of narrow networks, for the self-test of a GPU.

use vgg_data::Batch;
use vgg_layers::{Config, DropoutSeed, Init, Network, NetworkSpec};
use vgg_optim::{Sgd, SgdOptions};
use vgg_tensor::selftest::{Check, NamedValues, Tolerance};
use vgg_tensor::{Device, GradMode, Precision, StepState, Tensor, ops};
use vgg_train::{StepConfig, TrainStep};

use crate::{Error, Result, expect};

/// Training steps and dense evaluation, by name.
pub const TRAINING_CHECKS: [(&str, Check<Error>); 6] = [
    ("gradients of A-LRN", |device| gradients(Config::ALrn, device)),
    ("gradients of C", |device| gradients(Config::C, device)),
    ("gradients of D", |device| gradients(Config::D, device)),
    ("dense D", dense),
    ("five steps of B", |device| captured(Config::B, device)),
    ("five steps of A-LRN", |device| captured(Config::ALrn, device)),
];

/// Tolerance of training steps against the CPU: a dozen layers forward and backward, with the largest errors
/// in the gradients of the first ones. A rounding that flips a ReLU or a pooling maximum changes a whole term
/// of a gradient, and these networks are narrow. Tensor cores truncate f32 to tf32, which flips hardly fewer
/// of them than rounding to bf16.
pub fn training_tolerance(precision: Precision) -> Tolerance {
    match precision {
        Precision::F32 => Tolerance { error: 5e-3, cosine: 0.999_99 },
        Precision::Tf32 => Tolerance { error: 0.3, cosine: 0.99 },
        Precision::Bf16 => Tolerance { error: 0.5, cosine: 0.98 },
    }
}

const SCALE: [f32; 3] = [1.0 / 64.0; 3];

fn spec(config: Config) -> NetworkSpec {
    NetworkSpec { width: 0.125, crop: 32, head: [64, 64], classes: 10, ..NetworkSpec::paper(config) }
}

/// Smooth images: the gradients of pure noise do not survive a dozen layers in bf16.
fn batch(n: usize, side: usize) -> Batch {
    let mut batch = Batch::blank(n, [side, side]);
    for ((i, y, x, c), pixel) in batch.pixels.indexed_iter_mut() {
        let wave = ((x * (i + 1) + y * 3) as f32 * 0.3 + c as f32).sin();
        *pixel = (128.0 + 100.0 * wave) as u8;
    }
    batch.offset.fill(-128.0);
    batch.targets = (0..n as u32).map(|i| i % 10).collect();
    batch
}

/// Loss, logits and the gradient of every parameter of one step in two micro-batches, and the updated
/// weights.
fn gradients(config: Config, device: &Device) -> Result<Vec<NamedValues>> {
    let mut network = Network::random(spec(config), Init::He, 1, device)?;
    let (state, mut sgd) = (StepState::new(device)?, Sgd::new(SgdOptions::PAPER)?);
    state.begin(0, 0.01)?;
    let mut results = Vec::new();
    for (first, write) in [(0, GradMode::Overwrite), (4, GradMode::Accumulate)] {
        let part = part(&batch(8, 32), first);
        let x = ops::normalize(part.pixels.view(), part.offset.view(), SCALE, device)?;
        let run = DropoutSeed { seed: 1, step: 0, first_sample: first };
        let (logits, trace) = network.forward(x, run)?;
        let loss = ops::softmax_cross_entropy(&logits, &part.targets, 1.0 / 8.0, &state)?;
        let mut values = Vec::new();
        logits.read_into(&mut values)?;
        results.push((format!("logits from image {first}"), values.clone()));
        loss.per_sample.read_into(&mut values)?;
        results.push((format!("losses from image {first}"), values));
        network.backward(trace, loss.grad, write, &state)?;
    }
    let of = |part: &str, arrays: Vec<vgg_layers::NamedTensor>| {
        arrays.into_iter().map(|array| (format!("{part}{}", array.name), array.values)).collect::<Vec<_>>()
    };
    results.extend(of("gradient of ", network.gradients()));
    sgd.step(network.parameters_mut(), &state)?;
    results.extend(of("", network.state_dict()));
    Ok(results)
}

/// Checks that captured steps are bitwise identical to eager steps, with other images, learning rate and
/// dropout in each step, and that they leave neighbouring tensors unchanged. Returns the weights.
fn captured(config: Config, device: &Device) -> Result<Vec<NamedValues>> {
    let run = |eager: bool| -> Result<(Vec<f64>, Vec<NamedValues>)> {
        let mut network = Network::random(spec(config.clone()), Init::He, 1, device)?;
        let mut sgd = Sgd::new(SgdOptions::PAPER)?;
        let mut train_step = TrainStep::new(device, StepConfig { scale: SCALE, micro_batch: 3, seed: 1 })?;
        train_step.set_eager(eager);
        let (mut losses, mut beside) = (Vec::new(), Vec::new());
        for step in 0..5 {
            let mut batch = batch(8, 32);
            let shift = 20.0 * step as f32;
            batch.pixels.map_inplace(|pixel| *pixel = pixel.saturating_add(shift as u8));
            batch.targets.rotate_left(step);
            train_step.set_lr(0.01 / (1 + step) as f64);
            let report = train_step.step(&mut network, &mut sgd, &batch)?;
            expect(report.finite, || format!("loss or gradient of step {step} is not finite"))?;
            losses.push(report.sums.loss);
            let values = vec![step as f32; 20_000];
            beside.push((Tensor::from_slice(&values, [values.len()], device)?, values));
        }
        for (tensor, values) in beside {
            let mut now = Vec::new();
            tensor.read_into(&mut now)?;
            expect(now == values, || "a step overwrote another tensor".into())?;
        }
        let arrays = network.state_dict().into_iter();
        Ok((losses, arrays.map(|array| (array.name, array.values)).collect()))
    };
    let ((captured_losses, captured), (eager_losses, eager)) = (run(false)?, run(true)?);
    expect(captured_losses == eager_losses, || {
        format!("losses differ: captured {captured_losses:?}, eager {eager_losses:?}")
    })?;
    for ((name, a), (_, b)) in captured.iter().zip(&eager) {
        expect(a == b, || format!("{name} differs between captured and eager steps"))?;
    }
    Ok(captured)
}

/// Four of the images, starting at `first`.
fn part(all: &Batch, first: usize) -> Batch {
    let mut part = Batch::blank(4, [32, 32]);
    part.pixels
        .indexed_iter_mut()
        .for_each(|((i, y, x, c), pixel)| *pixel = all.pixels[[first + i, y, x, c]]);
    part.offset.fill(-128.0);
    part.targets = all.targets[first..first + 4].to_vec();
    part
}

fn dense(device: &Device) -> Result<Vec<NamedValues>> {
    let network = Network::random(spec(Config::D), Init::He, 1, device)?;
    let images = batch(2, 64);
    let x = ops::normalize(images.pixels.view(), images.offset.view(), SCALE, device)?;
    let mut values = Vec::new();
    let map = network.into_fully_convolutional()?.score_map(&x)?;
    map.read_into(&mut values)?;
    let mut mean = Vec::new();
    ops::global_avg_pool2d(&map)?.read_into(&mut mean)?;
    Ok(vec![("score map".into(), values), ("scores".into(), mean)])
}
