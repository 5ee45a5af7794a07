//! Convolution and its gradients against plain loops in f64, for shapes that are difficult for the kernels.

mod common;

use ndarray::{Array1, Array4, ArrayView4};
use vgg_tensor::ops::conv2d::{self, Conv2d};
use vgg_tensor::ops::max_pool2d::{self, PoolRounding};
use vgg_tensor::{
    ConvAlgorithm, Device, DeviceConfig, DeviceKind, Error, GradMode, ReluDropoutMask, StepState, Tensor,
    Weight,
};
use vgg_testkit::assert_close;

use common::{TestDevice, bf16_cpus, every_device};

/// `[n, h, w, c, k, r, pad]`.
const SHAPES: [[usize; 7]; 19] = [
    [1, 1, 1, 1, 1, 1, 0],
    [2, 5, 7, 3, 16, 3, 1],
    [3, 11, 45, 3, 64, 3, 1],
    [1, 9, 9, 3, 5, 3, 1],
    [3, 2, 2, 24, 40, 3, 1],
    [1, 13, 67, 8, 16, 3, 1],
    [7, 4, 4, 16, 24, 3, 1],
    [2, 14, 14, 130, 17, 3, 1],
    [1, 6, 5, 80, 20, 1, 0],
    [2, 3, 3, 72, 100, 1, 0],
    [1, 8, 9, 65, 98, 3, 1],
    [2, 9, 8, 6, 12, 5, 2],
    [2, 8, 9, 16, 30, 7, 0],
    [1, 7, 7, 5, 9, 7, 0],
    [33, 1, 1, 9, 7, 3, 1],
    // The largest supported sizes, and a panorama.
    [1, 1024, 1024, 2, 3, 3, 1],
    [1, 700, 1024, 8, 3, 3, 1],
    [256, 2, 3, 8, 16, 3, 1],
    [1, 9, 3000, 3, 8, 3, 1],
];

/// f32 sums of a few thousand terms near 1, in another order than the reference: a few units in the last
/// place of the largest partial sum.
const TOLERANCE: f64 = 3e-6;

struct Case {
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
    dz: Vec<f32>,
    xs: [usize; 4],
    ws: [usize; 4],
    ys: [usize; 4],
    config: Conv2d,
}

impl Case {
    fn new([n, h, w, c, k, r, pad]: [usize; 7]) -> Case {
        let (oh, ow) = (h + 2 * pad - r + 1, w + 2 * pad - r + 1);
        Case {
            x: TestDevice::values("x", n * h * w * c),
            w: TestDevice::values("w", k * r * r * c),
            b: TestDevice::values("b", k),
            dz: TestDevice::values("dz", n * oh * ow * k),
            xs: [n, h, w, c],
            ws: [k, r, r, c],
            ys: [n, oh, ow, k],
            config: Conv2d { pad, relu: true },
        }
    }

    fn run(&self, device: &Device) -> [Vec<f32>; 4] {
        let tensor = |v: &[f32], s: [usize; 4]| Tensor::from_slice(v, s, device).unwrap();
        let (x, dz) = (tensor(&self.x, self.xs), tensor(&self.dz, self.ys));
        let weight = Weight::new(tensor(&self.w, self.ws));
        let bias = Weight::new(Tensor::from_slice(&self.b, [self.ws[0]], device).unwrap());
        let y = conv2d::forward(&x, &weight, &bias, self.config).unwrap();
        let mask = ReluDropoutMask { y: &x, scale: 2.0 };
        let grad = conv2d::grad_input(&dz, &weight, self.config, mask).unwrap();
        let mut dw = Tensor::zeros(self.ws, device).unwrap();
        let state = StepState::new(device).unwrap();
        conv2d::grad_weight(&x, &dz, self.config, &mut dw, GradMode::Overwrite, &state).unwrap();
        assert!(state.finite().unwrap());
        [y.to_vec(), grad.grad.to_vec(), grad.bias_grad.to_vec(), dw.to_vec()]
    }
}

fn wide(v: &[f32], s: [usize; 4]) -> Array4<f64> {
    ArrayView4::from_shape(s, v).unwrap().mapv(f64::from)
}

fn narrow<'a>(v: impl IntoIterator<Item = &'a f64>) -> Vec<f32> {
    v.into_iter().map(|x| *x as f32).collect()
}

/// Devices with their tolerances: every algorithm on the best instruction set and on the portable ones, the CPU in bf16,
/// and the GPU in every precision.
fn devices() -> Vec<(String, f64, Device)> {
    let mut devices = Vec::new();
    for instruction_set in [None, Some("portable".to_owned()), Some("portable-16".to_owned())] {
        for (name, conv) in ConvAlgorithm::ALL {
            let config = DeviceConfig {
                kind: DeviceKind::Cpu,
                threads: 2,
                conv,
                instruction_set: instruction_set.clone(),
                ..DeviceConfig::default()
            };
            let device = Device::open(&config).unwrap();
            devices.push((format!("{name} on {}", device.instruction_set()), tolerance(conv), device));
        }
    }
    let others = every_device().into_iter().filter(|on| on.name != "cpu");
    devices.extend(others.map(|on| (on.name, on.rounding.max(TOLERANCE), on.device)));
    devices
}

/// Tolerance of an algorithm's forward pass and gradients. Winograd transforms lose accuracy: their entries
/// grow with the tile, up to 32 and 1/90 for 6x6 outputs, and the values here are of both signs, not the
/// output of a ReLU.
fn tolerance(conv: ConvAlgorithm) -> f64 {
    match conv {
        ConvAlgorithm::Direct => TOLERANCE,
        ConvAlgorithm::Winograd2 => 1e-5,
        _ => 5e-5,
    }
}

#[test]
fn agrees_with_plain_loops() {
    let devices = devices();
    for shape in SHAPES {
        let case = Case::new(shape);
        let (x, w) = (wide(&case.x, case.xs), wide(&case.w, case.ws));
        let pad = case.config.pad;
        let bias = Array1::from_iter(case.b.iter().map(|b| f64::from(*b)));
        let forward = vgg_testkit::conv2d(&x, &w, &bias, pad).mapv(|y| y.max(0.0));
        let gradients = vgg_testkit::conv2d_gradients(&x, &w, &wide(&case.dz, case.ys), pad);
        let gated = Array4::from_shape_fn(x.dim(), |i| if x[i] > 0.0 { 2.0 * gradients.dx[i] } else { 0.0 });
        let dx_sums: Vec<f64> =
            gated.lanes(ndarray::Axis(3)).into_iter().fold(vec![0.0; case.xs[3]], |mut sums, p| {
                sums.iter_mut().zip(p).for_each(|(s, v)| *s += v);
                sums
            });
        for (name, tolerance, device) in &devices {
            let slow = device.to_string().contains("emulated");
            if slow && shape[0] * shape[1] * shape[2] > 20_000 {
                vgg_testkit::skip(&format!("a real GPU: {shape:?}"), &"an emulated one is too slow");
                continue;
            }
            let [y, dx, sums, dw] = case.run(device);
            let tolerance = *tolerance;
            assert_close(&y, &narrow(&forward), tolerance, &format!("{name}: forward {shape:?}"));
            assert_close(&dx, &narrow(&gated), tolerance, &format!("{name}: grad-input {shape:?}"));
            assert_close(&sums, &narrow(&dx_sums), 10.0 * tolerance, &format!("{name}: bias grad {shape:?}"));
            assert_close(&dw, &narrow(&gradients.dw), tolerance, &format!("{name}: grad-weight {shape:?}"));
        }
    }
}

#[test]
fn results_are_bitwise_identical_for_any_number_of_threads() {
    let shapes = || {
        SHAPES.into_iter().chain([
            [5, 30, 30, 16, 32, 3, 1],
            [3, 64, 64, 3, 16, 3, 1],
            [2, 28, 28, 160, 256, 3, 1],
        ])
    };
    for (name, conv) in ConvAlgorithm::ALL {
        let device = |threads| {
            Device::open(&DeviceConfig { kind: DeviceKind::Cpu, threads, conv, ..DeviceConfig::default() })
                .unwrap()
        };
        let devices = [1, 2, 4].map(device);
        for shape in shapes() {
            let case = Case::new(shape);
            let [one, two, four] = devices.each_ref().map(|d| case.run(d));
            assert!(one == two && one == four, "{name}: {shape:?}");
        }
    }
    let [one, three] = [1, 3].map(bf16_cpus);
    for (one, three) in one.iter().zip(&three) {
        for shape in shapes() {
            let case = Case::new(shape);
            assert!(case.run(&one.device) == case.run(&three.device), "{}: {shape:?}", one.name);
        }
    }
}

#[test]
fn fused_pooling_is_bitwise_identical_to_two_operations() {
    for (name, _, device) in devices() {
        for shape in [
            [2, 5, 7, 3, 16, 3, 1],
            [3, 11, 45, 3, 64, 3, 1],
            [1, 13, 9, 8, 20, 3, 1],
            [3, 2, 2, 24, 40, 3, 1],
            [1, 14, 15, 130, 17, 3, 1],
        ] {
            let case = Case::new(shape);
            let x = Tensor::from_slice(&case.x, case.xs, &device).unwrap();
            let weight = Weight::new(Tensor::from_slice(&case.w, case.ws, &device).unwrap());
            let bias = Weight::new(Tensor::from_slice(&case.b, [case.ws[0]], &device).unwrap());
            for relu in [true, false] {
                let config = Conv2d { relu, ..case.config };
                let whole = conv2d::forward(&x, &weight, &bias, config).unwrap();
                for rounding in [PoolRounding::Floor, PoolRounding::Ceil] {
                    let apart = max_pool2d::infer(&whole, rounding).unwrap();
                    let fused = conv2d::forward_pooled(&x, &weight, &bias, config, rounding).unwrap();
                    assert_eq!(fused.shape(), apart.shape());
                    assert!(fused.to_vec() == apart.to_vec(), "{name}: {shape:?} {rounding:?}, relu {relu}");
                }
            }
        }
    }
}

#[test]
fn accumulate_adds_to_the_gradient() {
    let device = Device::cpu(1).unwrap();
    let case = Case::new([2, 6, 6, 16, 24, 3, 1]);
    let x = Tensor::from_slice(&case.x, case.xs, &device).unwrap();
    let dz = Tensor::from_slice(&case.dz, case.ys, &device).unwrap();
    let mut dw = Tensor::zeros(case.ws, &device).unwrap();
    let state = StepState::new(&device).unwrap();
    let mut run = |write| conv2d::grad_weight(&x, &dz, case.config, &mut dw, write, &state).unwrap();
    run(GradMode::Overwrite);
    run(GradMode::Accumulate);
    let twice: Vec<f32> = case.run(&device)[3].iter().map(|v| 2.0 * v).collect();
    assert_close(&dw.to_vec(), &twice, 1e-6, "twice the gradient");
}

#[test]
fn changed_weight_is_repacked() {
    let device = Device::cpu(1).unwrap();
    let case = Case::new([1, 4, 4, 8, 16, 3, 1]);
    let x = Tensor::from_slice(&case.x, case.xs, &device).unwrap();
    let bias = Weight::new(Tensor::zeros([16], &device).unwrap());
    let mut weight = Weight::new(Tensor::from_slice(&case.w, case.ws, &device).unwrap());
    let before = conv2d::forward(&x, &weight, &bias, case.config).unwrap().to_vec();
    weight.set(Tensor::zeros(case.ws, &device).unwrap()).unwrap();
    let after = conv2d::forward(&x, &weight, &bias, case.config).unwrap().to_vec();
    assert!(before.iter().any(|v| *v > 0.0) && after.iter().all(|v| *v == 0.0));
}

#[test]
fn non_finite_gradient_clears_the_flag() {
    let device = Device::cpu(1).unwrap();
    let mut case = Case::new([1, 4, 4, 8, 16, 3, 1]);
    case.dz[17] = f32::NAN;
    let x = Tensor::from_slice(&case.x, case.xs, &device).unwrap();
    let dz = Tensor::from_slice(&case.dz, case.ys, &device).unwrap();
    let mut dw = Tensor::zeros(case.ws, &device).unwrap();
    let state = StepState::new(&device).unwrap();
    conv2d::grad_weight(&x, &dz, case.config, &mut dw, GradMode::Overwrite, &state).unwrap();
    assert!(!state.finite().unwrap());
}

#[test]
fn errors_name_the_operands() {
    let device = Device::cpu(1).unwrap();
    let zeros = |s: &[usize]| Tensor::zeros(vgg_tensor::Shape::from_slice(s).unwrap(), &device).unwrap();
    let forward = |x: &[usize], w: &[usize], b: usize, pad| {
        let (w, b) = (Weight::new(zeros(w)), Weight::new(zeros(&[b])));
        conv2d::forward(&zeros(x), &w, &b, Conv2d { pad, relu: false }).unwrap_err()
    };
    let e = forward(&[1, 8, 8, 3], &[16, 3, 3, 4], 16, 1);
    assert_eq!(e.to_string(), "conv2d: weight must have shape [16, 3, 3, 3], but has [16, 3, 3, 4]");
    let e = forward(&[1, 8, 8, 3], &[16, 3, 3, 3], 8, 1);
    assert_eq!(e.to_string(), "conv2d: bias must have shape [16], but has [8]");
    let e = forward(&[1, 6, 6, 3], &[16, 7, 7, 3], 16, 0);
    assert_eq!(e.to_string(), "conv2d: a 6x6 image padded by 0 is smaller than the 7x7 filter");
    assert!(matches!(forward(&[8, 3], &[16, 3, 3, 3], 16, 1), Error::Rank { operand: "x", .. }));
    assert!(matches!(forward(&[1, 8, 8, 3], &[16, 3, 5, 3], 16, 1), Error::Unsupported { .. }));
    assert!(
        forward(&[1, 1025, 1024, 3], &[16, 3, 3, 3], 16, 1).to_string().contains("1 images of 1025x1024")
    );
}
