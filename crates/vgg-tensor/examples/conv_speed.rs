//! Times every convolution of VGG-16: forward, grad-input, grad-weight.
//!
//! `cargo run --release -p vgg-tensor --example conv_speed [BATCH] [THREADS] [WIDTH_DIVISOR] [SIDE] [ALGORITHM]`

use std::time::Instant;

use vgg_tensor::ops::conv2d::{self, Conv2d};
use vgg_tensor::{
    ConvAlgorithm, Device, DeviceConfig, DeviceKind, GradMode, ReluDropoutMask, Result, StepState, Tensor,
    Weight,
};
use vgg_testkit::VGG_CONVOLUTIONS;

fn main() -> Result<()> {
    let argument =
        |i: usize, default: usize| std::env::args().nth(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (batch, threads, divisor, side) = (argument(1, 16), argument(2, 2), argument(3, 1), argument(4, 224));
    let name = std::env::args().nth(5).unwrap_or_else(|| "auto".into());
    let conv =
        ConvAlgorithm::ALL.into_iter().find(|(n, _)| *n == name).map_or(ConvAlgorithm::Auto, |(_, c)| c);
    let device =
        Device::open(&DeviceConfig { kind: DeviceKind::Cpu, threads, conv, ..DeviceConfig::default() })?;
    println!("batch {batch}, side {side}, {}", device);
    println!("{:8} {:>14} {:>24} {:>24} {:>24}", "layer", "shape", "forward", "grad-input", "grad-weight");
    for (name, full_side, c, k) in VGG_CONVOLUTIONS {
        let (c, k) = (if c == 3 { 3 } else { c / divisor }, k / divisor);
        let side = side * full_side / 224;
        let values = |n: usize| (0..n).map(|i| (i % 17) as f32 / 16.0 - 0.5).collect::<Vec<_>>();
        let x = Tensor::from_slice(&values(batch * side * side * c), [batch, side, side, c], &device)?;
        let dz = Tensor::from_slice(&values(batch * side * side * k), [batch, side, side, k], &device)?;
        let weight = Weight::new(Tensor::from_slice(&values(k * 9 * c), [k, 3, 3, c], &device)?);
        let bias = Weight::new(Tensor::zeros([k], &device)?);
        let mut dw = Tensor::zeros([k, 3, 3, c], &device)?;
        let (config, state) = (Conv2d { pad: 1, relu: true }, StepState::new(&device)?);
        let mask = ReluDropoutMask { y: &x, scale: 1.0 };
        let flops = 2.0 * (batch * side * side * k * 9 * c) as f64;
        let forward = median_ms(|| conv2d::forward(&x, &weight, &bias, config).map(drop))?;
        let data = median_ms(|| conv2d::grad_input(&dz, &weight, config, mask).map(drop))?;
        let filter =
            median_ms(|| conv2d::grad_weight(&x, &dz, config, &mut dw, GradMode::Overwrite, &state))?;
        let show = |ms: f64| format!("{ms:.2} ms {:.0} GFLOP/s", flops / ms / 1e6);
        let shape = format!("{side} {c}->{k}");
        println!("{name:8} {shape:>14} {:>24} {:>24} {:>24}", show(forward), show(data), show(filter));
    }
    Ok(())
}

fn median_ms(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    f()?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[2])
}
