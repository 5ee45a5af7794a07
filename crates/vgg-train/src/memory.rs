//! How much memory a step needs, before it is taken.

use vgg_layers::{Device, DropoutRun, Network, NetworkSpec};
use vgg_optim::Sgd;
use vgg_tensor::{StepState, Tensor, Write, ops};

use crate::{Result, TrainConfig};

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
    let device = device.planning();
    let mut network = Network::new(spec.clone(), &device)?;
    if let Some(layers) = train_layers {
        network.train_only(layers)?;
    }
    let (mut sgd, state) = (Sgd::new(config.sgd)?, StepState::new());
    let images = config.micro_batch.min(batch);
    let targets = vec![0; images];
    for step in 0..2 {
        let x = Tensor::zeros([images, spec.crop, spec.crop, 3], &device);
        let (logits, trace) = network.forward(x, DropoutRun { seed: 0, step, first_sample: 0 })?;
        let loss = ops::softmax_cross_entropy(&logits, &targets, 1.0, &state)?;
        drop(logits);
        network.backward(trace, loss.grad, Write::Overwrite, &state)?;
        sgd.step(network.parameters_mut(), &state)?;
    }
    Ok(device.memory().peak_bytes)
}
