//! A one-second speed measurement of a device.

use std::time::Instant;

use vgg_layers::{Config, Init, Network, NetworkSpec};
use vgg_tensor::{Device, Tensor};

use crate::Result;

/// GFLOP/s of the forward pass of net D at a quarter of its width, with the operations of direct
/// convolutions.
///
/// # Errors
/// [`crate::Error::Tensor`] or [`crate::Error::Network`] if an operation fails.
pub fn forward_gflops(device: &Device) -> Result<f64> {
    let spec = NetworkSpec { width: 0.25, crop: 128, head: [512, 512], ..NetworkSpec::paper(Config::D) };
    let flops = 2.0 * spec.summary()?.macs as f64;
    let network = Network::random(spec, Init::He, 1, device)?;
    let x = Tensor::zeros([8, 128, 128, 3], device)?;
    network.infer(&x)?;
    let (start, mut runs) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < 1.0 {
        network.infer(&x)?;
        runs += 1;
    }
    Ok(8.0 * flops * f64::from(runs) / start.elapsed().as_secs_f64() / 1e9)
}
