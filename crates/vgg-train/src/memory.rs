//! Memory that a training step needs, measured by a dry run.

use vgg_data::Batch;
use vgg_layers::{Device, Network, NetworkSpec};
use vgg_optim::Sgd;

use crate::{Error, Result, StepConfig, TrainConfig, TrainStep};

/// Peak bytes of tensors and workspaces for training `spec` on batches of up to `batch` images on `device`.
///
/// Runs two steps on a dry-run device: the same code, without data. Images in the loader are not included.
///
/// # Errors
/// The errors of [`TrainStep::step`], such as shapes that do not match.
pub fn step_memory_bytes(
    spec: &NetworkSpec,
    train_layers: Option<&[String]>,
    config: &TrainConfig,
    batch: usize,
    device: &Device,
) -> Result<usize> {
    let device = device.dry_run()?;
    let mut network = Network::new(spec.clone(), &device)?;
    if let Some(layers) = train_layers {
        network.train_only(layers)?;
    }
    let mut sgd = Sgd::new(config.sgd)?;
    let batch = Batch::blank(batch, [spec.crop, spec.crop]);
    let step_config = StepConfig { scale: [1.0; 3], micro_batch: config.micro_batch, seed: config.seed };
    let mut step = TrainStep::new(&device, step_config)?;
    for _ in 0..2 {
        step.step(&mut network, &mut sgd, &batch)?;
    }
    Ok(device.memory().peak_bytes)
}

/// Checks that a training step fits into the free memory of `device`, and returns the bytes that it needs. A
/// CPU has no limit.
///
/// # Errors
/// [`Error::Memory`] with a micro-batch that fits, found by halving; the errors of [`step_memory_bytes`].
pub fn check_step_memory(
    spec: &NetworkSpec,
    train_layers: Option<&[String]>,
    config: &TrainConfig,
    batch: usize,
    device: &Device,
) -> Result<usize> {
    let needed = |micro_batch: usize| {
        let config = TrainConfig { micro_batch, ..config.clone() };
        step_memory_bytes(spec, train_layers, &config, batch, device)
    };
    let micro_batch = config.micro_batch;
    let needed_bytes = needed(micro_batch)?;
    let Some(free_bytes) = device.free_memory_bytes()? else { return Ok(needed_bytes) };
    if needed_bytes <= free_bytes {
        return Ok(needed_bytes);
    }
    let mut fitting = micro_batch / 2;
    while fitting > 0 && needed(fitting)? > free_bytes {
        fitting /= 2;
    }
    Err(Error::Memory { micro_batch, needed_bytes, free_bytes, fitting })
}
