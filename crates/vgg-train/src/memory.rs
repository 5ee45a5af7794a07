//! How much memory a step needs, before it is taken.

use vgg_data::Batch;
use vgg_layers::{Device, Network, NetworkSpec};
use vgg_optim::Sgd;

use crate::{Result, Stepper, TrainConfig};

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
    let device = device.planning()?;
    let mut network = Network::new(spec.clone(), &device)?;
    if let Some(layers) = train_layers {
        network.train_only(layers)?;
    }
    let mut sgd = Sgd::new(config.sgd)?;
    let batch = Batch::blank(batch, [spec.crop, spec.crop]);
    let mut stepper = Stepper::new(&mut network, &mut sgd, [1.0; 3], config.micro_batch, config.seed)?;
    for step in 0..2 {
        stepper.step(&batch, step, 0.0)?;
    }
    Ok(device.memory().peak_bytes)
}
