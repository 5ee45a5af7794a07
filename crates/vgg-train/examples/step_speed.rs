//! Milliseconds of a whole training step, forward, backward and update, on random pixels: `cargo run --release -p
//! vgg-train --example step_speed [CONFIG] [WIDTH] [CROP] [BATCH] [THREADS]`.

use std::time::Instant;

use vgg_layers::{Config, Device, DropoutRun, Init, Network, NetworkSpec};
use vgg_optim::{Sgd, SgdOptions};
use vgg_tensor::{StepState, Tensor, Write, ops};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize, default: &str| arguments.get(i).cloned().unwrap_or_else(|| default.to_owned());
    let config: Config = argument(0, "D").parse()?;
    let (width, crop): (f64, usize) = (argument(1, "1").parse()?, argument(2, "224").parse()?);
    let (batch, threads): (usize, usize) = (argument(3, "16").parse()?, argument(4, "0").parse()?);
    let head = (4096.0 * width) as usize;
    let spec = NetworkSpec { width, crop, head: [head, head], ..NetworkSpec::paper(config) };
    let device = Device::cpu(threads)?;
    let mut network = Network::random(spec, Init::He, 1, &device)?;
    let (mut sgd, state) = (Sgd::new(SgdOptions::PAPER)?, StepState::new());
    let pixels: Vec<f32> = (0..batch * crop * crop * 3).map(|i| (i * 7 % 31) as f32 / 15.0 - 1.0).collect();
    let targets: Vec<u32> = (0..batch as u32).collect();
    let mut times = Vec::new();
    for step in 0..6 {
        let start = Instant::now();
        state.begin(step, 1e-4);
        let x = Tensor::from_slice(&pixels, [batch, crop, crop, 3], &device)?;
        let (logits, trace) = network.forward(x, DropoutRun { seed: 1, step, first_sample: 0 })?;
        let loss = ops::softmax_cross_entropy(&logits, &targets, 1.0 / batch as f32, &state)?;
        network.backward(trace, loss.grad, Write::Overwrite, &state)?;
        sgd.step(network.parameters_mut(), &state)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    // The first step takes memory and packs weights.
    times.remove(0);
    times.sort_by(f64::total_cmp);
    println!("step {:.2} ms, {:.2} images/s", times[2], batch as f64 / times[2] * 1e3);
    Ok(())
}
