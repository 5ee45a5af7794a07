//! Lengths that are no multiple of a vector or a thread block, for every kernel except convolutions: each
//! element of a tail is written once, from its own operands.
//!
//! Operands are pseudo-random, so that neighbours differ, and results are written to memory that was full of
//! NaN.

mod common;
mod instruction_sets;

use ndarray::{Array1, Array2, Array3, Array4, Axis};
use vgg_tensor::ops::linear::{self, Linear};
use vgg_tensor::ops::lrn::{self, Lrn, LrnStyle};
use vgg_tensor::ops::max_pool2d::{self, PoolRounding};
use vgg_tensor::ops::{
    MomentumVariant, SgdConfig, euclidean_loss, global_avg_pool2d, normalize, normalize_staged, sgd_step,
    softmax,
};
use vgg_tensor::{ConvAlgorithm, GradMode, ReluDropoutMask, StagedBatch, StepState, Tensor, Weight};

use common::{TestDevice, every_device};
use instruction_sets::{
    LENGTHS, all_devices, assert_bias_grad, assert_within, every_cpu, in_poisoned_memory, instruction_sets,
    is_gpu, largest, wide,
};

/// The rounding of short sums in f32.
const TOLERANCE: f64 = 2e-6;

#[test]
fn every_instruction_set_of_the_processor_is_tested() {
    let sets = instruction_sets();
    assert!(sets.ends_with(&["portable".into(), "portable-16".into()]), "{sets:?}");
    #[cfg(target_arch = "x86_64")]
    {
        let has_avx2 = std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma");
        assert_eq!(sets.contains(&"avx2+fma".to_owned()), has_avx2, "{sets:?}");
        let has_avx512 = has_avx2 && std::is_x86_feature_detected!("avx512f");
        assert_eq!(sets.contains(&"avx512f".to_owned()), has_avx512, "{sets:?}");
    }
    for on in every_cpu(ConvAlgorithm::Auto) {
        assert!(on.name.starts_with(on.device.instruction_set()), "{}", on.name);
    }
}

/// Checks a fully connected layer against products in f64.
fn check_linear(on: &TestDevice, n: usize, inputs: usize, outputs: usize) {
    let what = format!("{}: n {n}, {inputs} inputs, {outputs} outputs", on.name);
    let array = |name: &str, rows: usize, columns: usize| {
        let values = TestDevice::values(name, rows * columns).into_iter().map(f64::from).collect();
        Array2::from_shape_vec((rows, columns), values).unwrap()
    };
    let x = array("x", n, inputs);
    let weight = array("w", outputs, inputs);
    let dz = array("dz", n, outputs);
    let bias = Array1::from_iter(TestDevice::values("b", outputs).into_iter().map(f64::from));
    let run = || {
        let weight = Weight::new(on.tensor("w", [outputs, inputs]));
        let bias = Weight::new(on.tensor("b", [outputs]));
        let x = on.tensor("x", [n, inputs]);
        let dz = on.tensor("dz", [n, outputs]);
        let scores = linear::forward(&x, &weight, &bias, Linear { relu: false }).unwrap();
        let y = linear::forward(&x, &weight, &bias, Linear { relu: true }).unwrap();
        let grad = linear::grad_input(&dz, &weight, ReluDropoutMask { y: &x, scale: 0.5 }).unwrap();
        let mut dw = Tensor::zeros([outputs, inputs], &on.device).unwrap();
        let state = StepState::new(&on.device).unwrap();
        linear::grad_weight(&x, &dz, &mut dw, GradMode::Overwrite, &state).unwrap();
        linear::grad_weight(&x, &dz, &mut dw, GradMode::Accumulate, &state).unwrap();
        (scores, y, grad, dw)
    };
    let (scores, y, grad, dw) = if is_gpu(on) { run() } else { in_poisoned_memory(on, run) };
    let close = |got: &Tensor, expected: Array2<f64>, name: &str| {
        let expected: Vec<f64> = expected.iter().copied().collect();
        let bound = TOLERANCE.max(on.rounding) * largest(&expected);
        assert_within(&got.to_vec(), &expected, bound, &format!("{what}: {name}"));
    };
    let expected = vgg_testkit::linear(&x, &weight, &bias);
    close(&y, expected.mapv(|y| y.max(0.0)), "forward with ReLU");
    close(&scores, expected, "forward");
    let mut dx = dz.dot(&weight);
    dx.zip_mut_with(&x, |dx, x| *dx = if *x > 0.0 { 0.5 * *dx } else { 0.0 });
    close(&grad.grad, dx, "grad-input");
    assert_bias_grad(&grad, &what);
    close(&dw, 2.0 * dz.t().dot(&x), "grad-weight");
}

#[test]
fn lengths_of_fully_connected_layers() {
    for on in all_devices() {
        for (i, len) in LENGTHS.into_iter().enumerate() {
            check_linear(&on, 5, len, LENGTHS[(5 * i + 7) % LENGTHS.len()]);
            // Rows are processed in groups of six, 48 per block.
            check_linear(&on, len, 19, 9);
        }
    }
}

/// Longer than a kernel sums in one pass: 512 inputs, or 8192 for up to three rows; 64 outputs; 512 gradient
/// columns.
#[test]
fn fully_connected_layers_of_several_stretches() {
    for on in all_devices() {
        for [n, inputs, outputs] in [
            [4, 511, 3],
            [4, 513, 3],
            [7, 1041, 5],
            [3, 8193, 2],
            [2, 8209, 3],
            [5, 19, 65],
            [6, 33, 129],
            [49, 17, 7],
            [97, 9, 5],
            [2, 1600, 50],
        ] {
            check_linear(&on, n, inputs, outputs);
        }
    }
}

/// The position of the largest value of a 2x2 window; the first in row-major order among equal ones.
fn place_of_largest(x: &Array4<f64>, [i, y, q, channel]: [usize; 4]) -> [usize; 2] {
    let [_, h, w, _] = *x.shape() else { unreachable!("images have four axes") };
    let mut best = [2 * y, 2 * q];
    for row in 2 * y..(2 * y + 2).min(h) {
        for column in 2 * q..(2 * q + 2).min(w) {
            if x[[i, row, column, channel]] > x[[i, best[0], best[1], channel]] {
                best = [row, column];
            }
        }
    }
    best
}

fn check_max_pool(on: &TestDevice, shape: [usize; 4], rounding: PoolRounding) {
    let [n, h, w, c] = shape;
    let what = format!("{}: {shape:?} {rounding:?}", on.name);
    // Few distinct values, so that there are ties.
    let values: Vec<f32> = TestDevice::values("x", n * h * w * c).iter().map(|v| (v * 4.0).floor()).collect();
    let x = Array4::from_shape_vec(shape, values.iter().copied().map(f64::from).collect()).unwrap();
    let [ph, pw] = [rounding.pooled(h), rounding.pooled(w)];
    let dy = TestDevice::values("dy", n * ph * pw * c);
    let mut expected_y = Array4::<f64>::zeros([n, ph, pw, c]);
    let mut expected_dx = Array4::<f64>::zeros(shape);
    for (at, dy) in ndarray::indices([n, ph, pw, c]).into_iter().zip(&dy) {
        let (i, row, column, channel) = at;
        let from = place_of_largest(&x, [i, row, column, channel]);
        expected_y[at] = x[[i, from[0], from[1], channel]];
        expected_dx[[i, from[0], from[1], channel]] = f64::from(*dy);
    }
    let run = || {
        let x = Tensor::from_slice(&values, shape, &on.device).unwrap();
        let dy = on.grad_of(Tensor::from_slice(&dy, [n, ph, pw, c], &on.device).unwrap());
        let (y, index) = max_pool2d::forward(&x, rounding).unwrap();
        let dx = max_pool2d::backward(&dy, &index).unwrap().grad;
        (y, max_pool2d::infer(&x, rounding).unwrap(), dx)
    };
    let (y, inferred, dx) = if is_gpu(on) { run() } else { in_poisoned_memory(on, run) };
    // Values are only copied, so nothing is rounded.
    let exact = |got: &Tensor, expected: &Array4<f64>, name: &str| {
        assert_within(&got.to_vec(), expected.as_slice().unwrap(), 0.0, &format!("{what}: {name}"));
    };
    exact(&y, &expected_y, "forward");
    exact(&inferred, &expected_y, "forward without an index");
    exact(&dx, &expected_dx, "gradient");
}

#[test]
fn lengths_of_max_pooling() {
    for on in all_devices() {
        for rounding in [PoolRounding::Floor, PoolRounding::Ceil] {
            for c in LENGTHS {
                check_max_pool(&on, [2, 3, 4, c], rounding);
            }
            for h in 1..=5 {
                for w in 1..=5 {
                    // With `Floor`, a side of one pixel is an error.
                    if rounding.pooled(h) * rounding.pooled(w) > 0 {
                        check_max_pool(&on, [2, h, w, 9], rounding);
                    }
                }
            }
        }
    }
}

/// The gradient of `sum(dy * y)` with `y = x (k + a sum x^2)^-beta`, by the chain rule, for one pixel.
fn lrn_gradient(x: &[f64], dy: &[f64], half: usize, [a, beta, k]: [f64; 3]) -> Vec<f64> {
    let c = x.len();
    let base = |j: usize| {
        let window = j.saturating_sub(half)..(j + half + 1).min(c);
        k + a * window.map(|at| x[at] * x[at]).sum::<f64>()
    };
    let by = |i: usize| {
        let others = (0..c).filter(|j| j.abs_diff(i) <= half);
        let through = others.map(|j| dy[j] * x[j] * base(j).powf(-beta - 1.0)).sum::<f64>();
        dy[i] * base(i).powf(-beta) - 2.0 * a * beta * x[i] * through
    };
    (0..c).map(by).collect()
}

#[test]
fn lengths_of_local_response_normalisation() {
    for on in all_devices() {
        for c in LENGTHS {
            for (size, beta) in [(1, 0.75), (3, 0.5), (5, 0.75), (7, 1.25), (9, 0.75)] {
                let config = Lrn { size, alpha: 0.5, beta, k: 2.0, style: LrnStyle::AlexNet };
                let what = format!("{}: {c} channels, window of {size}, beta {beta}", on.name);
                let run = || {
                    let x = on.tensor("x", [3, 1, 2, c]);
                    let dy = on.tensor("dy", [3, 1, 2, c]);
                    let (y, base) = lrn::forward(&x, config).unwrap();
                    let grad =
                        lrn::backward(&dy, ReluDropoutMask { y: &x, scale: 2.0 }, &base, config).unwrap();
                    (y, grad)
                };
                let (y, grad) = if is_gpu(&on) { run() } else { in_poisoned_memory(&on, run) };
                let x = wide(&on.tensor("x", [3, 1, 2, c]));
                let dy = wide(&on.tensor("dy", [3, 1, 2, c]));
                let parameters = [0.5, f64::from(beta), 2.0];
                let images = Array4::from_shape_vec((3, 1, 2, c), x.clone()).unwrap();
                let expected = vgg_testkit::lrn(&images, size, 0.5, f64::from(beta), 2.0);
                let bound = TOLERANCE.max(on.rounding);
                let expected = expected.as_slice().unwrap();
                assert_within(&y.to_vec(), expected, bound * largest(expected), &what);
                let pixels = x.chunks_exact(c).zip(dy.chunks_exact(c));
                let gradient = pixels.flat_map(|(x, dy)| lrn_gradient(x, dy, size / 2, parameters));
                let gated = gradient.zip(&x).map(|(dx, x)| if *x > 0.0 { 2.0 * dx } else { 0.0 });
                let expected: Vec<f64> = gated.collect();
                assert_within(&grad.grad.to_vec(), &expected, bound * largest(&expected), &what);
                assert_bias_grad(&grad, &what);
            }
        }
    }
}

#[test]
fn lengths_of_global_avg_pool2d() {
    for on in all_devices() {
        for (i, classes) in LENGTHS.into_iter().enumerate() {
            let [h, w] = [i % 4 + 1, i % 3 + 1];
            let what = format!("{}: {h}x{w} cells of {classes} classes", on.name);
            let shape = [3, h * w, classes];
            let run = || global_avg_pool2d(&on.tensor("map", [3, h, w, classes])).unwrap();
            let mean = if is_gpu(&on) { run() } else { in_poisoned_memory(&on, run) };
            let map = TestDevice::values("map", 3 * h * w * classes).into_iter().map(f64::from).collect();
            let map = Array3::from_shape_vec(shape, map).unwrap();
            let expected = map.mean_axis(Axis(1)).unwrap();
            assert_within(&mean.to_vec(), expected.as_slice().unwrap(), 1e-7, &what);
        }
    }
}

#[test]
fn lengths_of_softmax() {
    for on in all_devices() {
        for classes in LENGTHS.into_iter().chain([255, 257]) {
            let what = format!("{}: {classes} classes", on.name);
            // A score map: softmax is over the last axis.
            let run = || softmax(&on.tensor("x", [1, 2, 1, classes])).unwrap();
            let y = if is_gpu(&on) { run() } else { in_poisoned_memory(&on, run) };
            let mut expected = Vec::new();
            for x in TestDevice::values("x", 2 * classes).chunks_exact(classes) {
                let exponentials: Vec<f64> = x.iter().map(|x| f64::from(*x).exp()).collect();
                let sum: f64 = exponentials.iter().sum();
                expected.extend(exponentials.iter().map(|e| e / sum));
            }
            assert_within(&y.to_vec(), &expected, 1e-6 * largest(&expected), &what);
        }
    }
}

#[test]
fn lengths_of_euclidean_loss() {
    for on in all_devices() {
        for c in LENGTHS {
            let what = format!("{}: {c} values of each cell", on.name);
            let run = || {
                let x = on.tensor("x", [2, 3, 1, c]);
                let target = on.tensor("t", [2, 3, 1, c]);
                let state = StepState::new(&on.device).unwrap();
                euclidean_loss(&x, &target, 0.25, &state).unwrap()
            };
            let loss = if is_gpu(&on) { run() } else { in_poisoned_memory(&on, run) };
            let [x, target] = ["x", "t"].map(|name| TestDevice::values(name, 6 * c));
            let difference = |i: usize| f64::from(x[i]) - f64::from(target[i]);
            let sample = |n: usize| (3 * c * n..3 * c * (n + 1)).map(|i| 0.5 * difference(i).powi(2)).sum();
            let expected: Vec<f64> = (0..2).map(sample).collect();
            let bound = TOLERANCE * largest(&expected);
            assert_within(&loss.per_sample.to_vec(), &expected, bound, &format!("{what}: losses"));
            let expected: Vec<f64> = (0..6 * c).map(|i| 0.25 * difference(i)).collect();
            // A quarter of a difference below 2.
            let bound = 0.5 * on.rounding.max(1e-6);
            assert_within(&loss.grad.grad.to_vec(), &expected, bound, &format!("{what}: gradient"));
            assert_bias_grad(&loss.grad, &what);
        }
    }
}

/// Pixels, offsets and scales have few bits, so that no precision rounds.
#[test]
fn widths_of_images() {
    let scale = [0.5, 1.0, 2.0];
    let pixel = |at: usize| (at * 37 % 101) as u8;
    let offset = |image: usize, channel: usize| -((10 * image + channel) as f32);
    for on in every_device() {
        for w in LENGTHS {
            let shape = [3, 2, w, 3];
            let expected = |images: std::ops::Range<usize>| -> Vec<f64> {
                let per_image = 2 * w * 3;
                let value = |at: usize| {
                    let (image, channel) = (at / per_image, at % 3);
                    f64::from((f32::from(pixel(at)) + offset(image, channel)) * scale[channel])
                };
                (images.start * per_image..images.end * per_image).map(value).collect()
            };
            let pixels = Array4::from_shape_vec(shape, (0..shape.iter().product()).map(pixel).collect());
            let pixels = pixels.unwrap();
            let offsets = Array2::from_shape_fn((3, 3), |at| offset(at.0, at.1));
            let what = format!("{}: {w} columns", on.name);
            let run = || normalize(pixels.view(), offsets.view(), scale, &on.device).unwrap();
            let y = if is_gpu(&on) { run() } else { in_poisoned_memory(&on, run) };
            assert_within(&y.to_vec(), &expected(0..3), 0.0, &what);
            let mut upload = StagedBatch::new(shape, &on.device).unwrap();
            upload.fill(pixels.view(), offsets.view(), &[0, 1, 2]).unwrap();
            for images in [0..3, 1..3, 2..3] {
                let y = normalize_staged(&upload, images.clone(), scale).unwrap();
                let what = format!("{what}, images {images:?}");
                assert_within(&y.to_vec(), &expected(images), 0.0, &what);
            }
        }
    }
}

/// On a GPU the step also updates the padded copy of the weights that matrix products read, which may be in
/// bf16.
#[test]
fn lengths_of_sgd_steps() {
    let config = SgdConfig {
        momentum_variant: MomentumVariant::Torch,
        momentum: 0.5,
        weight_decay: 0.25,
        lr_mult: 2.0,
    };
    for on in every_device() {
        for [outputs, inputs] in LENGTHS.map(|len| [5, len]).into_iter().chain([[3, 65_537], [2, 8], [8, 16]])
        {
            let what = format!("{}: {inputs} inputs, {outputs} outputs", on.name);
            let mut weight = Weight::new(on.tensor("w", [outputs, inputs]));
            let mut velocity = on.tensor("v", [outputs, inputs]);
            let bias = Weight::new(Tensor::zeros([outputs], &on.device).unwrap());
            let x = on.tensor("x", [2, inputs]);
            linear::forward(&x, &weight, &bias, Linear { relu: true }).unwrap();
            let state = StepState::new(&on.device).unwrap();
            state.begin(0, 0.25).unwrap();
            let grad = on.tensor("g", [outputs, inputs]);
            sgd_step(&mut weight, &grad, &mut velocity, &state, &config).unwrap();
            let [w, g, v] = ["w", "g", "v"].map(|name| TestDevice::values(name, outputs * inputs));
            let updated = |i: usize| 0.5 * f64::from(v[i]) + f64::from(g[i]) + 0.25 * f64::from(w[i]);
            let expected_v: Vec<f64> = (0..w.len()).map(updated).collect();
            let moved = |i: usize| f64::from(w[i]) - 0.5 * expected_v[i];
            let expected_w: Vec<f64> = (0..w.len()).map(moved).collect();
            assert_within(&velocity.to_vec(), &expected_v, 1e-6, &format!("{what}: velocity"));
            assert_within(&weight.value().to_vec(), &expected_w, 1e-6, &format!("{what}: weight"));
            let expected_w = Array2::from_shape_vec((outputs, inputs), expected_w).unwrap();
            let x = Array2::from_shape_vec((2, inputs), wide(&x)).unwrap();
            let expected: Vec<f64> = x.dot(&expected_w.t()).iter().map(|y| y.max(0.0)).collect();
            let y =
                linear::forward(&on.tensor("x", [2, inputs]), &weight, &bias, Linear { relu: true }).unwrap();
            // Sums of up to 65537 products of values up to 2, in f32.
            let bound = on.rounding.max(1e-5) * largest(&expected).max(1.0);
            assert_within(&y.to_vec(), &expected, bound, &format!("{what}: product with the new weight"));
        }
    }
}
