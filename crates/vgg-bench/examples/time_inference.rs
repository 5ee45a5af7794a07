//! Times ConvNet A on a batch of eight crops: `cargo run --release -p vgg-bench --example time_inference`.

use std::time::Instant;

use vgg_bench::{Mode, Workload};
use vgg_layers::{Config, NetworkSpec};
use vgg_tensor::Device;

fn main() -> vgg_bench::Result<()> {
    let device = Device::cpu(0)?;
    let mut workload = Workload::new(Mode::Infer, NetworkSpec::paper(Config::A), 8, [224, 224], &device)?;
    // The first sample packs filters and allocates memory.
    workload.sample()?;
    let start = Instant::now();
    workload.sample()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.1} images/s, {:.0} GFLOP/s effective", 8.0 / seconds, workload.flops() / seconds / 1e9);
    Ok(())
}
