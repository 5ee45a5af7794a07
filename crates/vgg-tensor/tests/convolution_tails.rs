//! Numbers of channels and filters, and sides, that are no multiple of a vector, panel or tile, for every
//! convolution algorithm and its gradients: each element of a tail is written once, from its own operands.
//!
//! Operands are pseudo-random, so that neighbours differ, and results are written to memory that was full of
//! NaN.

mod common;
mod instruction_sets;

use ndarray::{Array1, ArrayView4};
use vgg_tensor::ops::conv2d::{self, Conv2d};
use vgg_tensor::{Grad, GradMode, ReluDropoutMask, StepState, Tensor, Weight};

use common::TestDevice;
use instruction_sets::{
    ConvTestDevice, LENGTHS, all_devices_for_filters_of, assert_bias_grad, assert_within, in_poisoned_memory,
    is_gpu, largest,
};

/// A convolution of pseudo-random values with its reference results.
struct Convolution {
    input: [usize; 4],
    filters: [usize; 4],
    output: [usize; 4],
    config: Conv2d,
    y: Vec<f64>,
    /// Grad-input: twice the gradient where the input is positive, else 0.
    dx: Vec<f64>,
    dw: Vec<f64>,
}

impl Convolution {
    fn new([n, h, w, c]: [usize; 4], k: usize, r: usize, pad: usize) -> Convolution {
        let output = [n, h + 2 * pad + 1 - r, w + 2 * pad + 1 - r, k];
        let (input, filters) = ([n, h, w, c], [k, r, r, c]);
        let array = |name: &str, shape: [usize; 4]| {
            let values = TestDevice::values(name, shape.iter().product());
            ArrayView4::from_shape(shape, &values).unwrap().mapv(f64::from)
        };
        let x = array("x", input);
        let weight = array("w", filters);
        let bias = Array1::from_iter(TestDevice::values("b", k).into_iter().map(f64::from));
        let y = vgg_testkit::conv2d(&x, &weight, &bias, pad);
        let gradients = vgg_testkit::conv2d_gradients(&x, &weight, &array("dz", output), pad);
        let dx = x.iter().zip(&gradients.dx).map(|(x, dx)| if *x > 0.0 { 2.0 * dx } else { 0.0 });
        Convolution {
            input,
            filters,
            output,
            config: Conv2d { pad, relu: true },
            y: y.iter().map(|y| y.max(0.0)).collect(),
            dx: dx.collect(),
            dw: gradients.dw.iter().copied().collect(),
        }
    }

    /// Returns the output, grad-input, and twice grad-weight: overwritten once, accumulated once.
    fn run(&self, on: &TestDevice) -> (Tensor, Grad, Tensor) {
        let x = on.tensor("x", self.input);
        let dz = on.tensor("dz", self.output);
        let weight = Weight::new(on.tensor("w", self.filters));
        let bias = Weight::new(on.tensor("b", [self.filters[0]]));
        let y = conv2d::forward(&x, &weight, &bias, self.config).unwrap();
        let grad =
            conv2d::grad_input(&dz, &weight, self.config, ReluDropoutMask { y: &x, scale: 2.0 }).unwrap();
        let mut dw = Tensor::zeros(self.filters, &on.device).unwrap();
        let state = StepState::new(&on.device).unwrap();
        conv2d::grad_weight(&x, &dz, self.config, &mut dw, GradMode::Overwrite, &state).unwrap();
        conv2d::grad_weight(&x, &dz, self.config, &mut dw, GradMode::Accumulate, &state).unwrap();
        assert!(state.finite().unwrap());
        (y, grad, dw)
    }

    fn check(&self, place: &ConvTestDevice) {
        let on = &place.on;
        let what = format!("{}: {:?} by {:?}", on.name, self.input, self.filters);
        // Poisoning is slow on an emulated GPU; its memory holds results of other shapes, which are wrong as
        // well.
        let (y, grad, dw) = if is_gpu(on) { self.run(on) } else { in_poisoned_memory(on, || self.run(on)) };
        let close = |got: &Tensor, expected: &[f64], name: &str| {
            let bound = place.tolerance * largest(expected);
            assert_within(&got.to_vec(), expected, bound, &format!("{what}: {name}"));
        };
        close(&y, &self.y, "forward");
        close(&grad.grad, &self.dx, "grad-input");
        assert_bias_grad(&grad, &what);
        let twice: Vec<f64> = self.dw.iter().map(|dw| 2.0 * dw).collect();
        close(&dw, &twice, "grad-weight");
    }
}

/// Checks `r` x `r` filters for every number of channels and every number of filters in [`LENGTHS`].
fn check_depths([h, w]: [usize; 2], r: usize, pad: usize) {
    let places = all_devices_for_filters_of(r);
    for (i, c) in LENGTHS.into_iter().enumerate() {
        let k = LENGTHS[(5 * i + 7) % LENGTHS.len()];
        let case = Convolution::new([2, h, w, c], k, r, pad);
        places.iter().for_each(|place| case.check(place));
    }
}

#[test]
fn depths_of_1x1_convolutions() {
    check_depths([2, 3], 1, 0);
}

#[test]
fn depths_of_3x3_convolutions() {
    check_depths([4, 3], 3, 1);
}

#[test]
fn depths_of_valid_3x3_convolutions() {
    check_depths([4, 5], 3, 0);
}

#[test]
fn depths_of_5x5_convolutions() {
    check_depths([3, 4], 5, 2);
}

#[test]
fn depths_of_valid_7x7_convolutions() {
    check_depths([7, 8], 7, 0);
}

/// More than a kernel sums in one pass: 256 channels in Winograd's products, 320 window values in the direct
/// algorithm, and tiles of 64 channels by 96 filters in direct grad-weight.
#[test]
fn depths_of_several_stretches() {
    for [c, k] in [[257, 3], [273, 17], [107, 5], [72, 97], [65, 193], [3, 99]] {
        let case = Convolution::new([1, 3, 4, c], k, 3, 1);
        all_devices_for_filters_of(3).iter().for_each(|place| case.check(place));
        let case = Convolution::new([1, 3, 4, c], k, 1, 0);
        all_devices_for_filters_of(1).iter().for_each(|place| case.check(place));
    }
}

/// Sides that are no multiple of a tile of 2, 4 or 6 outputs, of a group of 6 or 12 tiles, or of six pixels.
#[test]
fn sides_of_convolutions() {
    let places = all_devices_for_filters_of(3);
    for h in 1..=9 {
        for (n, w) in [(1, 10 - h), (3, (h * 4) % 9 + 5)] {
            let case = Convolution::new([n, h, w, 9], 5, 3, 1);
            places.iter().for_each(|place| case.check(place));
        }
    }
    // Several blocks of the direct algorithm.
    for [h, w] in [[1, 131], [67, 2], [13, 65]] {
        let case = Convolution::new([1, h, w, 9], 5, 3, 1);
        places.iter().filter(|place| !is_gpu(&place.on)).for_each(|place| case.check(place));
    }
}
