//! Accuracy of each algorithm against sums in f64, on every VGG layer with non-negative inputs, as after a
//! ReLU, and He-initialised weights: the largest error over the largest value. Run with `--nocapture` to see
//! the table of `docs/numerics.md`.

use vgg_tensor::ops::conv2d::{self, Conv2d};
use vgg_tensor::{
    ConvAlgorithm, Device, DeviceConfig, DeviceKind, GradMode, ReluDropoutMask, StepState, Tensor, Weight,
};
use vgg_testkit::VGG_CONVOLUTIONS;

/// Tolerance of a forward pass. The largest observed error is 1.1e-5 (docs/numerics.md), of Winograd's 6x6
/// outputs; the tolerance is twice that.
const FORWARD: f64 = 2e-5;
/// Tolerance of a gradient. The largest observed error is 1.1e-5; the tolerance is about ten times that,
/// because tiles whose values differ widely lose more.
const GRADIENT: f64 = 1e-4;
/// Number of values of each result that are compared; a tenth of it for grad-weight.
const SAMPLES: usize = 400;

struct Layer {
    n: usize,
    side: usize,
    c: usize,
    k: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    dz: Vec<f32>,
}

/// Sums of four uniform numbers, which are nearly normal, with standard deviation `std`.
fn normal(seed: u64, std: f32, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| (0..4).map(|_| uniform()).sum::<f32>() * std * 0.866).collect()
}

impl Layer {
    fn new(side: usize, c: usize, k: usize) -> Layer {
        let n = if side <= 28 { 2 } else { 1 };
        let pixels = n * side * side;
        Layer {
            n,
            side,
            c,
            k,
            x: normal(1, 1.0, pixels * c).into_iter().map(|v| v.max(0.0)).collect(),
            w: normal(2, (2.0 / (9 * c) as f32).sqrt(), k * 9 * c),
            dz: normal(3, 1.0, pixels * k),
        }
    }

    /// Channel `i` of pixel `(y, x)`, or 0 outside of the image.
    fn at(&self, of: &[f32], channels: usize, image: usize, y: isize, x: isize, i: usize) -> f64 {
        let side = self.side as isize;
        if y < 0 || x < 0 || y >= side || x >= side {
            return 0.0;
        }
        f64::from(of[((image * self.side + y as usize) * self.side + x as usize) * channels + i])
    }

    fn place(&self, sample: usize, channels: usize) -> (usize, isize, isize, usize) {
        let at = sample * 7919;
        let (y, x) = (at % self.side, at * 31 / 7 % self.side);
        (sample % self.n, y as isize, x as isize, sample * 37 % channels)
    }

    fn output(&self, sample: usize) -> (usize, f64) {
        let (image, y, x, k) = self.place(sample, self.k);
        let mut sum = 0.0;
        for tap in 0..9 {
            let (yy, xx) = (y + tap / 3 - 1, x + tap % 3 - 1);
            for c in 0..self.c {
                let w = f64::from(self.w[(k * 9 + tap as usize) * self.c + c]);
                sum += w * self.at(&self.x, self.c, image, yy, xx, c);
            }
        }
        (((image * self.side + y as usize) * self.side + x as usize) * self.k + k, sum)
    }

    fn by_data(&self, sample: usize) -> (usize, f64) {
        let (image, y, x, c) = self.place(sample, self.c);
        let mut sum = 0.0;
        for tap in 0..9 {
            let (yy, xx) = (y - (tap / 3 - 1), x - (tap % 3 - 1));
            for k in 0..self.k {
                let w = f64::from(self.w[(k * 9 + tap as usize) * self.c + c]);
                sum += w * self.at(&self.dz, self.k, image, yy, xx, k);
            }
        }
        let gated = if self.at(&self.x, self.c, image, y, x, c) > 0.0 { sum } else { 0.0 };
        (((image * self.side + y as usize) * self.side + x as usize) * self.c + c, gated)
    }

    fn by_filter(&self, sample: usize) -> (usize, f64) {
        let (k, tap, c) = (sample * 53 % self.k, sample % 9, sample * 37 % self.c);
        let mut sum = 0.0;
        for image in 0..self.n {
            for y in 0..self.side as isize {
                for x in 0..self.side as isize {
                    let (yy, xx) = (y + tap as isize / 3 - 1, x + tap as isize % 3 - 1);
                    sum += self.at(&self.x, self.c, image, yy, xx, c)
                        * self.at(&self.dz, self.k, image, y, x, k);
                }
            }
        }
        ((k * 9 + tap) * self.c + c, sum)
    }

    /// Largest error over the largest value, for forward, grad-input and grad-weight.
    fn errors(&self, device: &Device) -> [f64; 3] {
        let tensor =
            |v: &[f32], last| Tensor::from_slice(v, [self.n, self.side, self.side, last], device).unwrap();
        let (x, dz) = (tensor(&self.x, self.c), tensor(&self.dz, self.k));
        let weight = Weight::new(Tensor::from_slice(&self.w, [self.k, 3, 3, self.c], device).unwrap());
        let bias = Weight::new(Tensor::zeros([self.k], device).unwrap());
        let config = Conv2d { pad: 1, relu: false };
        let y = conv2d::forward(&x, &weight, &bias, config).unwrap();
        let dx =
            conv2d::grad_input(&dz, &weight, config, ReluDropoutMask { y: &x, scale: 1.0 }).unwrap().grad;
        let mut dw = Tensor::zeros([self.k, 3, 3, self.c], device).unwrap();
        conv2d::grad_weight(&x, &dz, config, &mut dw, GradMode::Overwrite, &StepState::new(device).unwrap())
            .unwrap();
        let error = |got: &[f32], samples: usize, expected: &dyn Fn(usize) -> (usize, f64)| {
            assert!(got.iter().all(|v| v.is_finite()));
            let (ours, sums): (Vec<f32>, Vec<f64>) =
                (0..samples).map(expected).map(|sample| (got[sample.0], sample.1)).unzip();
            let apart = ours.iter().zip(&sums).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            apart / sums.iter().fold(0.0, |m: f64, v| m.max(v.abs()))
        };
        [
            error(&y.to_vec(), SAMPLES, &|i| self.output(i)),
            error(&dx.to_vec(), SAMPLES, &|i| self.by_data(i)),
            error(&dw.to_vec(), SAMPLES / 10, &|i| self.by_filter(i)),
        ]
    }
}

#[test]
fn every_algorithm_is_accurate_on_every_layer() {
    println!("| layer | algorithm | forward | grad-input | grad-weight |\n|---|---|---|---|---|");
    for (name, side, c, k) in VGG_CONVOLUTIONS {
        let layer = Layer::new(side, c, k);
        for (algorithm, conv) in ConvAlgorithm::ALL {
            let device =
                Device::open(&DeviceConfig { kind: DeviceKind::Cpu, conv, ..DeviceConfig::default() })
                    .unwrap();
            let [forward, data, filter] = layer.errors(&device);
            println!("| {name} | {algorithm} | {forward:.1e} | {data:.1e} | {filter:.1e} |");
            assert!(forward < FORWARD, "{name} {algorithm}: forward {forward:e}");
            assert!(data < GRADIENT && filter < GRADIENT, "{name} {algorithm}: {data:e} {filter:e}");
        }
    }
}
