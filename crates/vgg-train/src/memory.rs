//! How much memory a step needs, before it is taken.

use vgg_data::Batch;
use vgg_layers::{Device, Network, NetworkSpec};
use vgg_optim::Sgd;

use crate::{Error, Result, StepConfig, TrainConfig, TrainStep};

/// Bytes of tensors and workspaces of training `spec` in micro-batches, of at most `batch` images, on `device`.
///
/// Two steps are taken on a device that plans: the same code, without data. Images that the loader holds are not in it.
///
/// # Errors
/// Those of a step: shapes that do not fit.
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

/// Checks that a training step fits into the free memory of `device`, and returns the bytes that it needs. A CPU has no limit of its
/// own.
///
/// # Errors
/// [`Error::Memory`] with the largest micro-batch that would fit; those of [`step_memory_bytes`].
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
