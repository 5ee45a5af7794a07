//! `vgg doctor`: devices, CUDA libraries and speed of this machine.

use std::io::Write as _;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use vgg::system::free_memory_bytes;
use vgg_bench::forward_gflops;
use vgg_error::printable;
use vgg_tensor::{CudaLibraryStatus, Device, DeviceConfig, DeviceKind, cuda_libraries};

use super::options::bf16_cpu;
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
        let gflops = forward_gflops(&device)?;
        let bf16 = bf16_gflops()?;
        let free_gib = free_memory_bytes() as f64 / (1u64 << 30) as f64;
        // Net D at crop 224 takes 15.47 GMAC forward; forward and backward take three times that.
        let images_per_s = gflops / (3.0 * 2.0 * 15.47);
        if self.json {
            let document = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "device": device.to_string(),
                "threads": device.threads(),
                "instruction_set": device.instruction_set(),
                "precision": device.precision().name(),
                "forward_gflops": gflops,
                "bf16": match &bf16 {
                    Ok(gflops) => json!({ "forward_gflops": gflops, "problem": null }),
                    Err(problem) => json!({ "forward_gflops": null, "problem": problem }),
                },
                "free_memory_bytes": free_memory_bytes(),
                "cuda": cuda_json(),
            });
            writeln!(out(), "{}", serde_json::to_string_pretty(&document)?)?;
            return Ok(());
        }
        writeln!(out(), "vgg {}", env!("CARGO_PKG_VERSION"))?;
        writeln!(out(), "device: {device}")?;
        writeln!(
            out(),
            "speed: {gflops:.0} GFLOP/s in the forward pass of a narrow net D; net D at full width would train at about {images_per_s:.1} images/s"
        )?;
        match bf16 {
            Ok(bf16) if bf16 > gflops => {
                writeln!(out(), "bf16: {:.1} times as fast; use it with --precision bf16", bf16 / gflops)?;
            }
            Ok(bf16) => writeln!(out(), "bf16: no faster here ({bf16:.0} GFLOP/s)")?,
            Err(problem) => writeln!(out(), "bf16: not available: {problem}")?,
        }
        writeln!(out(), "memory: {free_gib:.1} GiB free")?;
        for status in cuda_libraries() {
            match &status.found {
                Ok((version, path)) => {
                    writeln!(out(), "cuda: {} {version}, {}", status.library.name(), printable(path))?
                }
                Err(problem) => writeln!(out(), "cuda: {problem}")?,
            }
        }
        match gpu() {
            Ok(gpu) => writeln!(out(), "cuda: {gpu}")?,
            Err(e) => writeln!(out(), "{e}")?,
        }
        Ok(())
    }
}

/// As [`forward_gflops`], in bf16 on the CPU; or why it is not available.
fn bf16_gflops() -> Result<std::result::Result<f64, String>> {
    match bf16_cpu() {
        Ok(device) => Ok(Ok(forward_gflops(&device)?)),
        Err(vgg_tensor::Error::Precision { reason, .. }) => Ok(Err(reason)),
        Err(e) => Err(e.into()),
    }
}

fn gpu() -> vgg_tensor::Result<Device> {
    Device::open(&DeviceConfig { kind: DeviceKind::Cuda(0), ..DeviceConfig::default() })
}

fn cuda_json() -> serde_json::Value {
    let library = |status: &CudaLibraryStatus| match &status.found {
        Ok((version, path)) => {
            json!({ "name": status.library.name(), "version": version, "path": printable(path).to_string(), "problem": null })
        }
        Err(problem) => {
            json!({ "name": status.library.name(), "version": null, "path": null, "problem": problem })
        }
    };
    let libraries: Vec<serde_json::Value> = cuda_libraries().iter().map(library).collect();
    match gpu() {
        Ok(gpu) => json!({ "libraries": libraries, "device": gpu.to_string(), "problem": null }),
        Err(e) => json!({ "libraries": libraries, "device": null, "problem": e.to_string() }),
    }
}
