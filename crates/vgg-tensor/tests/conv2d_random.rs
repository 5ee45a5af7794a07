//! Convolutions of random shapes: every algorithm and instruction set against plain loops in f64.
//!
//! Set `PROPTEST_CASES=2000` to test more shapes.

use ndarray::{Array1, Array4, ArrayView4};
use proptest::prelude::*;
use vgg_tensor::ops::conv2d::{self, Conv2d};
use vgg_tensor::ops::max_pool2d::{self, PoolRounding};
use vgg_tensor::{
    ConvAlgorithm, Device, DeviceConfig, DeviceKind, GradMode, ReluDropoutMask, StepState, Tensor, Weight,
};
use vgg_testkit::pseudo_random;

/// Most multiply-adds of a case: larger cases only take longer.
const MOST_WORK: usize = 400_000;

#[derive(Debug, Clone, Copy)]
struct Shape {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    k: usize,
    r: usize,
    pad: usize,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let side = prop_oneof![1..=9usize, 10..=40usize];
    let channels = || prop_oneof![1..=20usize, 21..=70usize];
    let kernel = prop_oneof![5 => Just((3, 1)), 1 => Just((1, 0)), 1 => Just((3, 0)), 1 => Just((5, 2)), 1 => Just((7, 0))];
    (1..=33usize, side.clone(), side, channels(), channels(), kernel)
        .prop_map(|(n, h, w, c, k, (r, pad))| Shape { n, h, w, c, k, r, pad })
        .prop_filter("too small for the filter", |s| s.h + 2 * s.pad >= s.r && s.w + 2 * s.pad >= s.r)
        .prop_filter("too much work", |s| s.n * s.h * s.w * s.c * s.k * s.r * s.r <= MOST_WORK)
}

fn devices() -> &'static [Device] {
    static DEVICES: std::sync::OnceLock<Vec<Device>> = std::sync::OnceLock::new();
    DEVICES.get_or_init(|| {
        let sets = [None, Some("portable".to_owned()), Some("portable-16".to_owned())];
        let open = |conv, instruction_set| {
            let config = DeviceConfig {
                kind: DeviceKind::Cpu,
                threads: 2,
                conv,
                instruction_set,
                ..DeviceConfig::default()
            };
            Device::open(&config).unwrap()
        };
        let all = sets.iter().flat_map(|set| ConvAlgorithm::ALL.map(|(_, conv)| open(conv, set.clone())));
        all.collect()
    })
}

/// Tolerance relative to the largest sum of the magnitudes of a value's terms. A direct sum of 3,430 terms
/// (70 channels, 7 x 7) has a rounding error of about 2^-24 times the root of their number, 4e-6; the
/// transforms of Winograd's 6x6 outputs multiply the rounding of single values by up to 2e2. The largest
/// error of 10,000 cases on three instruction sets was 9.5e-6. A term that is missing or counted twice is
/// 3e-4 of the sum.
const TOLERANCE: f64 = 3e-5;

/// `max |got - expected| / max terms`; infinite if a value is not a number.
fn error_of_terms(got: &[f32], expected: &Array4<f64>, terms: &Array4<f64>) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = terms.iter().fold(0.0, |largest: f64, term| largest.max(*term));
    let error = |(got, expected): (&f32, &f64)| (f64::from(*got) - expected).abs() / largest;
    got.iter()
        .zip(expected)
        .map(error)
        .fold(0.0, |worst, e| if e.is_nan() { f64::INFINITY } else { e.max(worst) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_global_rejects: 1 << 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_algorithm_agrees_with_plain_loops(s in shapes()) {
        let (oh, ow) = (s.h + 2 * s.pad - s.r + 1, s.w + 2 * s.pad - s.r + 1);
        let (xs, ws, ys) = ([s.n, s.h, s.w, s.c], [s.k, s.r, s.r, s.c], [s.n, oh, ow, s.k]);
        let values = |name, shape: [usize; 4]| pseudo_random(name, 1.0, shape.iter().product());
        let (x, w, dz) = (values("x", xs), values("w", ws), values("dz", ys));
        let b = pseudo_random("b", 1.0, s.k);
        let wide = |v: &[f32], shape| ArrayView4::from_shape(shape, v).unwrap().mapv(f64::from);
        let (x64, w64) = (wide(&x, xs), wide(&w, ws));
        let bias = Array1::from_iter(b.iter().map(|b| f64::from(*b)));
        let y = vgg_testkit::conv2d(&x64, &w64, &bias, s.pad).mapv(|y| y.max(0.0));
        let gradients = vgg_testkit::conv2d_gradients(&x64, &w64, &wide(&dz, ys), s.pad);
        let dx = Array4::from_shape_fn(xs, |i| if x64[i] > 0.0 { gradients.dx[i] } else { 0.0 });
        // Sums of the terms' magnitudes, to which rounding is proportional: a value itself may be near zero.
        let (x_size, w_size, dz_size) = (x64.mapv(f64::abs), w64.mapv(f64::abs), wide(&dz, ys).mapv(f64::abs));
        let y_terms = vgg_testkit::conv2d(&x_size, &w_size, &bias.mapv(f64::abs), s.pad);
        let terms = vgg_testkit::conv2d_gradients(&x_size, &w_size, &dz_size, s.pad);
        for device in devices() {
            let tensor = |v: &[f32], shape: [usize; 4]| Tensor::from_slice(v, shape, device).unwrap();
            let weight = Weight::new(tensor(&w, ws));
            let bias = Weight::new(Tensor::from_slice(&b, [s.k], device).unwrap());
            let config = Conv2d { pad: s.pad, relu: true };
            let (x, dz) = (tensor(&x, xs), tensor(&dz, ys));
            let what = format!("{s:?} on {}", device);
            let close = |got: &Tensor, expected: &Array4<f64>, terms: &Array4<f64>, pass| {
                let error = error_of_terms(&got.to_vec(), expected, terms);
                assert!(error <= TOLERANCE, "{pass} {what}: {error:.1e} of the largest sum of magnitudes");
            };
            let got = conv2d::forward(&x, &weight, &bias, config).unwrap();
            close(&got, &y, &y_terms, "forward");
            let mut dw = Tensor::zeros(ws, device).unwrap();
            conv2d::grad_weight(&x, &dz, config, &mut dw, GradMode::Overwrite, &StepState::new(device).unwrap()).unwrap();
            close(&dw, &gradients.dw, &terms.dw, "grad-weight");
            let grad = conv2d::grad_input(&dz, &weight, config, ReluDropoutMask { y: &x, scale: 1.0 }).unwrap();
            close(&grad.grad, &dx, &terms.dx, "grad-input");
            let in_place = conv2d::grad_input_in_place(&dz, &weight, config, x.clone(), 1.0).unwrap();
            prop_assert!(in_place.grad.to_vec() == grad.grad.to_vec());
            if oh > 1 && ow > 1 {
                let fused = conv2d::forward_pooled(&x, &weight, &bias, config, PoolRounding::Floor).unwrap();
                prop_assert!(fused.to_vec() == max_pool2d::infer(&got, PoolRounding::Floor).unwrap().to_vec());
            }
            // The input has no other handle here, so the gradient overwrites it.
            let alone = tensor(&x.to_vec(), xs);
            let in_place = conv2d::grad_input_in_place(&dz, &weight, config, alone, 1.0).unwrap();
            prop_assert!(in_place.grad.to_vec() == grad.grad.to_vec());
        }
    }
}
