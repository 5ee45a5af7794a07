use std::time::Instant;
use vgg_tensor::ops::conv2d::{self, Conv2d};
use vgg_tensor::*;
fn main() -> Result<()> {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let g = |i: usize| a[i].parse::<usize>().unwrap();
    let (pass, n, h, c, k, th) = (a[0].as_str(), g(1), g(2), g(3), g(4), g(5));
    let conv = ConvChoice::ALL.into_iter().find(|(n, _)| *n == a[6]).unwrap().1;
    let device = Device::open(&DeviceConfig { threads: th, conv, ..DeviceConfig::default() })?;
    let values = |n: usize| (0..n).map(|i| (i % 17) as f32 / 16.0 - 0.5).collect::<Vec<_>>();
    let x = Tensor::from_slice(&values(n * h * h * c), [n, h, h, c], &device)?;
    let dz = Tensor::from_slice(&values(n * h * h * k), [n, h, h, k], &device)?;
    let weight = Weight::new(Tensor::from_slice(&values(k * 9 * c), [k, 3, 3, c], &device)?);
    let bias = Weight::new(Tensor::zeros([k], &device));
    let mut dw = Tensor::zeros([k, 3, 3, c], &device);
    let (config, state) = (Conv2d { pad: 1, relu: true }, StepState::new());
    let mut t = vec![];
    for _ in 0..g(7) {
        let s = Instant::now();
        match pass {
            "f" => drop(conv2d::forward(&x, &weight, &bias, config)?),
            "p" => {
                drop(conv2d::forward_pooled(&x, &weight, &bias, config, ops::max_pool2d::Rounding::Floor)?)
            }
            "d" => drop(conv2d::backward_data(&dz, &weight, config, Gate { y: &x, scale: 1.0 })?),
            _ => conv2d::backward_filter(&x, &dz, config, &mut dw, Write::Overwrite, &state)?,
        }
        t.push(s.elapsed().as_secs_f64() * 1e3);
    }
    t.sort_by(f64::total_cmp);
    println!("{pass} {h} {c}->{k} {} median {:.2} min {:.2} ms", a[6], t[t.len() / 2], t[0]);
    Ok(())
}
