use std::time::Instant;
use vgg_tensor::ops::*;
use vgg_tensor::*;
fn med(name: &str, bytes: f64, flops: f64, mut f: impl FnMut()) {
    f();
    let mut t = vec![];
    for _ in 0..9 {
        let s = Instant::now();
        f();
        t.push(s.elapsed().as_secs_f64());
    }
    t.sort_by(f64::total_cmp);
    println!(
        "{name:30} {:.2} ms  {:.1} GB/s {:.0} GFLOP/s",
        t[4] * 1e3,
        bytes / t[4] / 1e9,
        flops / t[4] / 1e9
    );
}
fn main() -> Result<()> {
    let th = std::env::args().nth(1).map_or(2, |a| a.parse().unwrap());
    let device = Device::cpu(th)?;
    let values = |n: usize| (0..n).map(|i| (i % 17) as f32 / 16.0 - 0.5).collect::<Vec<_>>();
    for (o, i) in [(4096, 25088), (4096, 4096), (1000, 4096)] {
        let mut weight = Weight::new(Tensor::from_slice(&values(o * i), [o, i], &device)?);
        let bias = Weight::new(Tensor::zeros([o], &device));
        let mut dw = Tensor::zeros([o, i], &device);
        let mut v = Tensor::zeros([o, i], &device);
        let state = StepState::new();
        let wb = 4.0 * (o * i) as f64;
        for n in [1, 2, 8, 16, 32, 64] {
            let x = Tensor::from_slice(&values(n * i), [n, i], &device)?;
            let dz = Tensor::from_slice(&values(n * o), [n, o], &device)?;
            let fl = 2.0 * (n * o * i) as f64;
            med(&format!("fwd {n} {i}->{o}"), wb, fl, || {
                drop(linear::forward(&x, &weight, &bias, linear::Linear { relu: true }).unwrap())
            });
            med(&format!("data {n} {i}->{o}"), wb, fl, || {
                drop(linear::backward_data(&dz, &weight, Gate { y: &x, scale: 1.0 }).unwrap())
            });
            med(&format!("weight {n} {i}->{o}"), wb, fl, || {
                linear::backward_weight(&x, &dz, &mut dw, Write::Overwrite, &state).unwrap()
            });
        }
        med(&format!("sgd {i}->{o}"), 5.0 * wb, 0.0, || {
            sgd_step(
                &mut weight,
                &dw,
                &mut v,
                &state,
                &SgdConfig { form: SgdForm::Caffe, momentum: 0.9, weight_decay: 5e-4, lr_mult: 1.0 },
            )
            .unwrap()
        });
    }
    Ok(())
}
