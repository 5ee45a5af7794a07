//! candle's inference of a VGG network, ready to be timed: for every line on standard input it takes one sample and
//! prints the milliseconds. `candle-peer CONFIG BATCH CROP`; threads by RAYON_NUM_THREADS.

use std::io::BufRead;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv2dConfig, Module, VarBuilder, VarMap, conv2d, linear};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| arguments[i].parse::<usize>().unwrap_or(1);
    let blocks = match arguments[0].as_str() {
        "A" => [1, 1, 2, 2, 2],
        "E" => [2, 2, 4, 4, 4],
        _ => [2, 2, 3, 3, 3],
    };
    let (batch, crop) = (number(1), number(2));
    let device = Device::Cpu;
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &device);
    let config = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
    let mut convolutions = Vec::new();
    let mut channels = 3;
    for (block, (count, width)) in blocks.into_iter().zip([64, 128, 256, 512, 512]).enumerate() {
        for i in 0..count {
            let layer = conv2d(channels, width, 3, config, builder.pp(format!("conv{block}_{i}")))?;
            convolutions.push((layer, i + 1 == count));
            channels = width;
        }
    }
    let side = crop / 32;
    let heads = [
        linear(512 * side * side, 4096, builder.pp("fc6"))?,
        linear(4096, 4096, builder.pp("fc7"))?,
        linear(4096, 1000, builder.pp("fc8"))?,
    ];
    let x = Tensor::randn(0.0f32, 1.0, (batch, 3, crop, crop), &device)?;
    let sample = || -> Result<Tensor> {
        let mut y = x.clone();
        for (layer, pool) in &convolutions {
            y = layer.forward(&y)?.relu()?;
            if *pool {
                y = y.max_pool2d(2)?;
            }
        }
        y = y.flatten_from(1)?;
        for (i, layer) in heads.iter().enumerate() {
            y = layer.forward(&y)?;
            if i < 2 {
                y = y.relu()?;
            }
        }
        Ok(y)
    };
    sample()?;
    for _ in std::io::stdin().lock().lines() {
        let start = Instant::now();
        sample()?;
        println!("{:.3}", start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}
