//! Fused operations: pooling after a convolution, the ReLU and dropout mask of the layer below in backward
//! passes, and bias gradients.

mod common;
mod instruction_sets;

use ndarray::{Array1, Array4, ArrayView4};
use vgg_tensor::ops::conv2d::{self, Conv2d};
use vgg_tensor::ops::linear;
use vgg_tensor::ops::lrn::{self, Lrn, LrnStyle};
use vgg_tensor::ops::max_pool2d::{self, PoolRounding};
use vgg_tensor::ops::{euclidean_loss, softmax_cross_entropy};
use vgg_tensor::{ConvAlgorithm, Error, Grad, ReluDropoutMask, StepState, Tensor, Weight};

use common::TestDevice;
use instruction_sets::{
    ConvTestDevice, all_devices, all_devices_for_filters_of, assert_bias_grad, assert_within, every_cpu,
    in_poisoned_memory, is_gpu, largest,
};

/// A convolution followed by pooling, of pseudo-random values.
struct Pooled {
    input: [usize; 4],
    filters: [usize; 4],
    config: Conv2d,
    rounding: PoolRounding,
    /// Added to the bias; if it is far below zero, all outputs are negative.
    shift: f32,
}

impl Pooled {
    /// Convolution, ReLU and pooling one after the other in f64, and the largest value before pooling.
    fn reference(&self) -> (Vec<f64>, f64) {
        let array = |name: &str, shape: [usize; 4]| {
            let values = TestDevice::values(name, shape.iter().product());
            ArrayView4::from_shape(shape, &values).unwrap().mapv(f64::from)
        };
        let bias = self.bias().into_iter().map(f64::from);
        let (x, w) = (array("x", self.input), array("w", self.filters));
        let mut y = vgg_testkit::conv2d(&x, &w, &Array1::from_iter(bias), self.config.pad);
        if self.config.relu {
            y.mapv_inplace(|y| y.max(0.0));
        }
        let all: Vec<f64> = y.iter().copied().collect();
        let pooled = vgg_testkit::max_pool2d(&y, self.rounding == PoolRounding::Ceil);
        (pooled.iter().copied().collect(), largest(&all))
    }

    /// Multiples of one half, which bf16 holds exactly even after adding `shift`.
    fn bias(&self) -> Vec<f32> {
        TestDevice::values("b", self.filters[0])
            .iter()
            .map(|b| (2.0 * b).floor() / 2.0 + self.shift)
            .collect()
    }

    fn run(&self, on: &TestDevice) -> vgg_tensor::Result<Tensor> {
        let weight = Weight::new(on.tensor("w", self.filters));
        let bias = Weight::new(Tensor::from_slice(&self.bias(), [self.filters[0]], &on.device)?);
        conv2d::forward_pooled(&on.tensor("x", self.input), &weight, &bias, self.config, self.rounding)
    }

    fn check(&self, place: &ConvTestDevice) {
        let on = &place.on;
        let Pooled { input, filters, config, rounding, shift } = self;
        let what = format!("{}: {input:?} by {filters:?}, {config:?}, {rounding:?}, shift {shift}", on.name);
        let [_, h, w, _] = *input;
        let shrunk = filters[1] - 1 - 2 * config.pad;
        if rounding.pooled(h - shrunk) * rounding.pooled(w - shrunk) == 0 {
            let error = self.run(on).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{what}: {error}");
            return;
        }
        let (expected, before) = self.reference();
        let run = || self.run(on).unwrap().to_vec();
        let got = if is_gpu(on) { run() } else { in_poisoned_memory(on, run) };
        assert_within(&got, &expected, place.tolerance * before, &what);
    }
}

/// Checks all small sides, both pool roundings, and outputs that are all positive or all negative.
fn check_pooled(channels: [usize; 2], r: usize, pad: usize) {
    let places = all_devices_for_filters_of(r);
    let least = r - 2 * pad;
    for h in least..least + 5 {
        for w in least..least + 5 {
            for rounding in [PoolRounding::Floor, PoolRounding::Ceil] {
                for (relu, shift) in [(true, 0.0), (false, 0.0), (false, -64.0)] {
                    let [c, k] = channels;
                    let input = [2, h, w, c];
                    let config = Conv2d { pad, relu };
                    let case = Pooled { input, filters: [k, r, r, c], config, rounding, shift };
                    // A GPU runs the operations one after the other, so a few sides suffice.
                    places
                        .iter()
                        .filter(|place| !is_gpu(&place.on) || (h + w) % 4 == 1)
                        .for_each(|place| case.check(place));
                }
            }
        }
    }
}

#[test]
fn pooled_3x3_convolution_is_convolution_and_pooling() {
    check_pooled([9, 19], 3, 1);
}

#[test]
fn pooled_3x3_convolution_of_images_is_convolution_and_pooling() {
    check_pooled([3, 19], 3, 1);
}

#[test]
fn pooled_valid_3x3_convolution_is_convolution_and_pooling() {
    check_pooled([8, 5], 3, 0);
}

#[test]
fn pooled_1x1_convolution_is_convolution_and_pooling() {
    check_pooled([9, 19], 1, 0);
}

#[test]
fn pooled_5x5_convolution_is_convolution_and_pooling() {
    check_pooled([2, 9], 5, 2);
}

/// Saved outputs at the edge of the mask: the gradient passes where the output is above zero, however small.
const EDGES: [f32; 8] =
    [0.0, -0.0, f32::MIN_POSITIVE, -f32::MIN_POSITIVE, f32::INFINITY, f32::NEG_INFINITY, 1.0, -1.0];

/// Repeats [`EDGES`], shifted from row to row, so that each value occurs in each lane of a vector and in the
/// tail.
fn edges(channels: usize, rows: usize) -> Vec<f32> {
    (0..rows).flat_map(|row| (0..channels).map(move |c| EDGES[(c + row) % EDGES.len()])).collect()
}

/// Asserts that a gradient is `scale` times the expected one where `saved` is above zero, and exactly 0
/// elsewhere.
fn assert_gated(grad: &Grad, saved: &[f32], ungated: &[f64], scale: f64, tolerance: f64, what: &str) {
    let mask = |i: usize| if saved[i] > 0.0 { scale * ungated[i] } else { 0.0 };
    let expected: Vec<f64> = (0..saved.len()).map(mask).collect();
    let got = grad.grad.to_vec();
    assert_within(&got, &expected, tolerance * scale * largest(ungated), what);
    for (i, saved) in saved.iter().enumerate() {
        assert!(*saved > 0.0 || got[i] == 0.0, "{what}: {} passes the mask of {saved}", got[i]);
    }
}

/// Checks `grad_input` and `grad_input_in_place` of a convolution.
fn check_gate(place: &ConvTestDevice, [c, k]: [usize; 2], r: usize, pad: usize) {
    let on = &place.on;
    let [n, h, w] = [2, 5, 4];
    let output = [n, h + 2 * pad + 1 - r, w + 2 * pad + 1 - r, k];
    let saved = edges(c, n * h * w);
    let wide = |values: Vec<f32>, shape: [usize; 4]| {
        Array4::from_shape_vec(shape, values.into_iter().map(f64::from).collect()).unwrap()
    };
    let dz = wide(TestDevice::values("dz", output.iter().product()), output);
    let weight = wide(TestDevice::values("w", k * r * r * c), [k, r, r, c]);
    let dx = vgg_testkit::conv2d_gradients(&Array4::zeros([n, h, w, c]), &weight, &dz, pad).dx;
    let ungated: Vec<f64> = dx.iter().copied().collect();
    for scale in [1.0, 4.0, 2.5] {
        let what = format!("{}: {r}x{r} filters, {c} channels, scale {scale}", on.name);
        let weight = Weight::new(on.tensor("w", [k, r, r, c]));
        let dz = on.tensor("dz", output);
        let config = Conv2d { pad, relu: true };
        let input = || Tensor::from_slice(&saved, [n, h, w, c], &on.device).unwrap();
        let apart =
            || conv2d::grad_input(&dz, &weight, config, ReluDropoutMask { y: &input(), scale }).unwrap();
        let in_place = || conv2d::grad_input_in_place(&dz, &weight, config, input(), scale).unwrap();
        // An input that is shared with another handle must not change.
        let kept = input();
        let shared = conv2d::grad_input_in_place(&dz, &weight, config, kept.clone(), scale).unwrap();
        assert_eq!(kept.to_vec(), input().to_vec(), "{what}: the shared input");
        let grads = if is_gpu(on) {
            [apart(), in_place(), shared]
        } else {
            [in_poisoned_memory(on, apart), in_poisoned_memory(on, in_place), shared]
        };
        for grad in &grads {
            assert_gated(grad, &saved, &ungated, f64::from(scale), place.tolerance, &what);
            // On a GPU, other scales round after the sums are taken.
            if scale != 2.5 || !is_gpu(on) {
                assert_bias_grad(grad, &what);
            }
        }
    }
}

#[test]
fn mask_of_3x3_convolutions() {
    for place in all_devices_for_filters_of(3) {
        check_gate(&place, [19, 9], 3, 1);
        check_gate(&place, [9, 17], 3, 1);
        check_gate(&place, [8, 8], 3, 0);
        check_gate(&place, [3, 9], 3, 1);
    }
}

#[test]
fn mask_of_1x1_convolutions() {
    for place in all_devices_for_filters_of(1) {
        check_gate(&place, [19, 9], 1, 0);
    }
}

#[test]
fn mask_of_5x5_convolutions() {
    for place in all_devices_for_filters_of(5) {
        check_gate(&place, [9, 3], 5, 2);
    }
}

/// Denormal floats. bf16 does not hold the smallest ones, so this test uses the CPU only.
#[test]
fn mask_passes_the_smallest_positive_float() {
    let smallest = f32::from_bits(1);
    for on in every_cpu(ConvAlgorithm::Auto).into_iter().chain(every_cpu(ConvAlgorithm::Direct)) {
        let dz = Tensor::from_slice(&[1.0; 4 * 9], [1, 2, 2, 9], &on.device).unwrap();
        let weight = Weight::new(Tensor::from_slice(&[1.0; 9 * 9], [9, 1, 1, 9], &on.device).unwrap());
        let saved: Vec<f32> = (0..4 * 9).map(|i| if i % 2 == 0 { smallest } else { -smallest }).collect();
        let y = Tensor::from_slice(&saved, [1, 2, 2, 9], &on.device).unwrap();
        let config = Conv2d { pad: 0, relu: true };
        let dx = conv2d::grad_input_in_place(&dz, &weight, config, y, 1.0).unwrap().grad.to_vec();
        let expected: Vec<f32> = (0..4 * 9).map(|i| if i % 2 == 0 { 9.0 } else { 0.0 }).collect();
        assert_eq!(dx, expected, "{}", on.name);
    }
}

#[test]
fn mask_of_fully_connected_layers() {
    for on in all_devices() {
        for [rows, h, w, c] in [[5, 1, 1, 19], [2, 3, 2, 9], [3, 2, 2, 8], [2, 1, 1, 2061]] {
            let inputs = h * w * c;
            let outputs = 7;
            let saved = edges(c, rows * h * w);
            let dz = TestDevice::values("dz", rows * outputs);
            let weight = TestDevice::values("w", outputs * inputs);
            let product = |at: usize| -> f64 {
                let (row, input) = (at / inputs, at % inputs);
                let term =
                    |o: usize| f64::from(dz[row * outputs + o]) * f64::from(weight[o * inputs + input]);
                (0..outputs).map(term).sum()
            };
            let ungated: Vec<f64> = (0..rows * inputs).map(product).collect();
            let weight = Weight::new(on.tensor("w", [outputs, inputs]));
            let y = Tensor::from_slice(&saved, [rows, h, w, c], &on.device).unwrap();
            for scale in [1.0, 4.0, 2.5] {
                let what = format!("{}: [{rows}, {h}, {w}, {c}], scale {scale}", on.name);
                let mask = ReluDropoutMask { y: &y, scale };
                let grad = linear::grad_input(&on.tensor("dz", [rows, outputs]), &weight, mask).unwrap();
                assert_gated(&grad, &saved, &ungated, f64::from(scale), on.rounding.max(2e-6), &what);
                if scale != 2.5 || !is_gpu(&on) {
                    assert_bias_grad(&grad, &what);
                }
            }
        }
    }
}

/// With a window of one channel, `b = 2 + x^2 / 2` and `beta = 1`, the gradient is `g (2 - x^2 / 2) / b^2`:
/// `g / 2` at `x = 0` and `6 g / 25` at `x = 1`.
#[test]
fn mask_of_local_response_normalisation() {
    let config = Lrn { size: 1, alpha: 0.5, beta: 1.0, k: 2.0, style: LrnStyle::AlexNet };
    for on in all_devices() {
        let mut saved = edges(19, 6);
        saved.iter_mut().filter(|x| x.is_infinite()).for_each(|x| *x = x.signum());
        let x = Tensor::from_slice(&saved, [2, 3, 1, 19], &on.device).unwrap();
        let dy = TestDevice::values("dy", 6 * 19);
        let by_x = |i: usize| f64::from(dy[i]) * if saved[i].abs() == 1.0 { 0.24 } else { 0.5 };
        let ungated: Vec<f64> = (0..saved.len()).map(by_x).collect();
        let (_, base) = lrn::forward(&x, config).unwrap();
        for scale in [1.0, 4.0, 2.5] {
            let what = format!("{}: scale {scale}", on.name);
            let mask = ReluDropoutMask { y: &x, scale };
            let grad = lrn::backward(&on.tensor("dy", [2, 3, 1, 19]), mask, &base, config).unwrap();
            assert_gated(&grad, &saved, &ungated, f64::from(scale), on.rounding.max(1e-6), &what);
            if scale != 2.5 || !is_gpu(&on) {
                assert_bias_grad(&grad, &what);
            }
        }
    }
}

/// More rows than one thread block sums, and more channels than one thread block covers.
#[test]
fn bias_gradients_over_many_rows() {
    for on in all_devices() {
        for [n, c] in [[1, 1], [3, 9], [300, 9], [131, 35], [40, 257]] {
            let what = format!("{}: {n} rows of {c}", on.name);
            let state = StepState::new(&on.device).unwrap();
            let x = on.tensor("x", [n, c]);
            let n_of_each = if is_gpu(&on) { n.min(20) } else { n };
            let few = x.images(0..n_of_each).unwrap();
            let targets: Vec<u32> = (0..n_of_each).map(|row| (row * 7 % c) as u32).collect();
            let loss = softmax_cross_entropy(&few, &targets, 0.5, &state).unwrap();
            assert_bias_grad(&loss.grad, &format!("{what}: cross-entropy"));
            let few_targets = on.tensor("t", [n, c]).images(0..n_of_each).unwrap();
            let loss = euclidean_loss(&few, &few_targets, 0.5, &state).unwrap();
            assert_bias_grad(&loss.grad, &format!("{what}: Euclidean loss"));
            let weight = Weight::new(on.tensor("w", [3, c]));
            let grad =
                linear::grad_input(&on.tensor("dz", [n, 3]), &weight, ReluDropoutMask { y: &x, scale: 1.0 })
                    .unwrap();
            assert_bias_grad(&grad, &format!("{what}: fully connected"));
            let weight = Weight::new(on.tensor("w", [3, 3, 3, c]));
            let x = on.tensor("x", [1, n, 1, c]);
            let mask = ReluDropoutMask { y: &x, scale: 1.0 };
            let config = Conv2d { pad: 1, relu: true };
            let grad = conv2d::grad_input(&on.tensor("dz", [1, n, 1, 3]), &weight, config, mask).unwrap();
            assert_bias_grad(&grad, &format!("{what}: convolution"));
        }
    }
}

/// Each pooled gradient is copied to one position, so the sums per channel do not change.
#[test]
fn max_pooling_keeps_the_bias_gradient() {
    for on in all_devices() {
        for rounding in [PoolRounding::Floor, PoolRounding::Ceil] {
            let x = on.tensor("x", [2, 5, 3, 11]);
            let (y, index) = max_pool2d::forward(&x, rounding).unwrap();
            let [n, h, w, c] = *y.shape().dims() else { unreachable!("a map has four axes") };
            // A gradient with a correct bias gradient.
            let weight = Weight::new(on.tensor("w", [3, 3, 3, c]));
            let config = Conv2d { pad: 1, relu: true };
            let mask = ReluDropoutMask { y: &y, scale: 1.0 };
            let dz = on.tensor("dz", [n, h, w, 3]);
            let pooled = conv2d::grad_input(&dz, &weight, config, mask).unwrap();
            let grad = max_pool2d::backward(&pooled, &index).unwrap();
            assert_bias_grad(&grad, &format!("{}: {rounding:?}", on.name));
        }
    }
}
