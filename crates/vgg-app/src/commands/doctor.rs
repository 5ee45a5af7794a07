//! `vgg doctor`: what this machine can do, and how fast.

use std::io::Write as _;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use vgg_layers::{Config, Init, Network, NetworkSpec};
use vgg_tensor::{Device, Tensor};

use super::options::free_memory_bytes;

use crate::console::out;

#[derive(Args)]
pub(crate) struct Doctor {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<()> {
        let device = Device::cpu(0)?;
        let gflops = speed(&device)?;
        let free_gib = free_memory_bytes() as f64 / (1u64 << 30) as f64;
        // Net D at crop 224: forward and backward take three times the forward pass.
        let images_per_s = gflops / (3.0 * 2.0 * 15.47);
        if self.json {
            let document = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "device": device.describe(),
                "threads": device.threads(),
                "instruction_set": device.instruction_set(),
                "forward_gflops": gflops,
                "free_memory_bytes": free_memory_bytes(),
                "cuda": null,
            });
            writeln!(out(), "{}", serde_json::to_string_pretty(&document)?)?;
            return Ok(());
        }
        writeln!(out(), "vgg {}", env!("CARGO_PKG_VERSION"))?;
        writeln!(out(), "device: {}", device.describe())?;
        writeln!(
            out(),
            "speed: {gflops:.0} GFLOP/s in the forward pass of a small net D; net D at full size would train at about {images_per_s:.1} images/s"
        )?;
        writeln!(out(), "memory: {free_gib:.1} GiB free")?;
        writeln!(out(), "cuda: not part of this build")?;
        Ok(())
    }
}

/// GFLOP/s of the forward pass of D at a quarter of its width.
fn speed(device: &Device) -> Result<f64> {
    let spec = NetworkSpec { width: 0.25, crop: 128, head: [512, 512], ..NetworkSpec::paper(Config::D) };
    let flops = 2.0 * spec.summary()?.macs as f64;
    let network = Network::random(spec, Init::He, 1, device)?;
    let x = Tensor::zeros([8, 128, 128, 3], device);
    network.infer(&x)?;
    let (start, mut runs) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < 1.0 {
        network.infer(&x)?;
        runs += 1;
    }
    Ok(8.0 * flops * f64::from(runs) / start.elapsed().as_secs_f64() / 1e9)
}
