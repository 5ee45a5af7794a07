//! The `finite` flag of a step: a single NaN or infinity anywhere clears it, finite values never do.

mod common;
mod instruction_sets;

use ndarray::{Array2, Array4};
use vgg_tensor::ops::conv2d::{self, Conv2d};
use vgg_tensor::ops::{euclidean_loss, linear, softmax_cross_entropy, softmax_cross_entropy_staged};
use vgg_tensor::{AsyncReadback, GradMode, StagedBatch, StepState, Tensor};
use vgg_testkit::pseudo_random;

use common::TestDevice;
use instruction_sets::{all_devices, all_devices_for_filters_of, is_gpu};

const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// A step state whose flag is read after one operation.
struct Flag(StepState);

impl Flag {
    fn new(on: &TestDevice) -> Flag {
        Flag(StepState::new(&on.device).unwrap())
    }

    /// Begins a step, runs `op` and returns the flag.
    fn after(&self, op: impl FnOnce(&StepState)) -> bool {
        self.0.begin(0, 0.1).unwrap();
        assert!(self.0.finite().unwrap(), "a step begins with the flag set");
        op(&self.0);
        self.0.finite().unwrap()
    }
}

/// The positions to test: all of `0..len` on a CPU, about `most` of them on an emulated GPU, which is slow.
///
/// The step shares no factor with the row lengths used here, so that all columns and all thread blocks are
/// reached.
fn positions(on: &TestDevice, len: usize, most: usize) -> Vec<usize> {
    let prime_to_lengths = |step: &usize| [2, 3, 5, 7].iter().all(|factor| !step.is_multiple_of(*factor));
    let step = if is_gpu(on) && len > 2 * most { (len / most..).find(prime_to_lengths) } else { Some(1) };
    let mut positions: Vec<usize> = (0..len).step_by(step.unwrap()).collect();
    if positions.last() != Some(&(len - 1)) {
        positions.push(len - 1);
    }
    positions
}

/// The first, a middle and the last of `0..len`.
fn three(len: usize) -> [usize; 3] {
    [0, len / 2, len - 1]
}

#[test]
fn bad_logit_clears_the_flag_unless_the_loss_is_finite() {
    for on in all_devices() {
        // The CPU checks losses in vectors; a GPU sums logits in blocks of 256 threads.
        for (rows, classes) in [(19, 1), (19, 9), (3, 8), (3, 16), (3, 17), (3, 33), (3, 300)] {
            let rows = if is_gpu(&on) { 3 } else { rows };
            let targets: Vec<u32> = (1..=rows).map(|row| (row * 5 % classes) as u32).collect();
            let good = pseudo_random("logits", 3.0, rows * classes);
            let flag = Flag::new(&on);
            let after = |logits: &[f32]| {
                let logits = Tensor::from_slice(logits, [rows, classes], &on.device).unwrap();
                let loss = |state: &StepState| {
                    softmax_cross_entropy(&logits, &targets, 0.1, state).unwrap();
                };
                flag.after(loss)
            };
            assert!(after(&good), "{}: finite logits [{rows}, {classes}]", on.name);
            for (i, position) in positions(&on, rows * classes, 20).into_iter().enumerate() {
                let is_target = targets[position / classes] as usize == position % classes;
                for bad in chosen(&on, i) {
                    let mut logits = good.clone();
                    logits[position] = bad;
                    // exp(-inf) is 0, so the loss is finite unless this class is the target.
                    let finite = bad == f32::NEG_INFINITY && !is_target;
                    let what = format!("{}: {bad} at {position} of [{rows}, {classes}]", on.name);
                    assert_eq!(after(&logits), finite, "{what}");
                }
            }
        }
    }
}

#[test]
fn bad_value_in_a_euclidean_loss_clears_the_flag() {
    for on in all_devices() {
        // A GPU uses one thread block per row.
        let rows = if is_gpu(&on) { 3 } else { 19 };
        let shapes: [&[usize]; 4] = [&[rows, 1], &[rows, 9], &[3, 2, 3, 5], &[2, 300]];
        for shape in shapes {
            let shape = vgg_tensor::Shape::from_slice(shape).unwrap();
            let len = shape.len();
            let good = pseudo_random("values", 3.0, len);
            let flag = Flag::new(&on);
            let after = |x: &[f32], target: &[f32]| {
                let x = Tensor::from_slice(x, shape, &on.device).unwrap();
                let target = Tensor::from_slice(target, shape, &on.device).unwrap();
                let loss = |state: &StepState| {
                    euclidean_loss(&x, &target, 0.1, state).unwrap();
                };
                flag.after(loss)
            };
            assert!(after(&good, &good), "{}: finite values {shape}", on.name);
            // Each squared difference is 1.6e37; their sum stays below the largest float, 3.4e38.
            let far: Vec<f32> = good.iter().map(|_| -2e18).collect();
            let near: Vec<f32> = (0..len).map(|i| if i % 20 == 0 { 2e18 } else { -2e18 }).collect();
            assert!(after(&near, &far), "{}: large finite values {shape}", on.name);
            for (i, position) in positions(&on, len, 20).into_iter().enumerate() {
                for bad in chosen(&on, i) {
                    let mut changed = good.clone();
                    changed[position] = bad;
                    let what = format!("{}: {bad} at {position} of {shape}", on.name);
                    assert!(!after(&changed, &good), "{what}, x");
                    assert!(!after(&good, &changed), "{what}, target");
                }
            }
        }
    }
}

/// Grad-weight of a convolution of pseudo-random values.
struct FilterGradient {
    input: [usize; 4],
    filters: [usize; 4],
    output: [usize; 4],
    pad: usize,
    x: Vec<f32>,
    dz: Vec<f32>,
}

impl FilterGradient {
    /// Grad-weight for images `[n, h, w, c]` and `k` filters of `r` x `r`.
    fn new([n, h, w, c]: [usize; 4], k: usize, r: usize, pad: usize) -> FilterGradient {
        let output = [n, h + 2 * pad + 1 - r, w + 2 * pad + 1 - r, k];
        FilterGradient {
            input: [n, h, w, c],
            filters: [k, r, r, c],
            output,
            pad,
            x: pseudo_random("x", 1.0, n * h * w * c),
            dz: pseudo_random("dz", 1.0, output.iter().product()),
        }
    }

    fn len(&self) -> usize {
        self.filters.iter().product()
    }

    /// The flag after grad-weight was written to `dw` or added to it.
    fn finite(&self, on: &TestDevice, flag: &Flag, dw: &[f32], write: GradMode) -> bool {
        let x = Tensor::from_slice(&self.x, self.input, &on.device).unwrap();
        let dz = Tensor::from_slice(&self.dz, self.output, &on.device).unwrap();
        let mut dw = Tensor::from_slice(dw, self.filters, &on.device).unwrap();
        let config = Conv2d { pad: self.pad, relu: true };
        flag.after(|state| conv2d::grad_weight(&x, &dz, config, &mut dw, write, state).unwrap())
    }
}

/// Accumulating onto a bad value affects exactly one element of the result; a bad input would affect many.
#[test]
fn bad_element_of_a_filter_gradient_clears_the_flag() {
    let cases = [
        FilterGradient::new([1, 1, 2, 35], 19, 1, 0),
        FilterGradient::new([1, 1, 1, 70], 100, 1, 0),
        FilterGradient::new([1, 2, 3, 19], 7, 3, 1),
        FilterGradient::new([1, 3, 3, 9], 3, 3, 0),
        FilterGradient::new([1, 2, 2, 3], 7, 3, 1),
        FilterGradient::new([1, 2, 3, 8], 8, 3, 1),
        FilterGradient::new([1, 2, 2, 9], 3, 5, 2),
        FilterGradient::new([1, 7, 7, 2], 3, 7, 0),
    ];
    for case in cases {
        for place in all_devices_for_filters_of(case.filters[1]) {
            let on = &place.on;
            let flag = Flag::new(on);
            let what = format!("{}: filters {:?}, pad {}", on.name, case.filters, case.pad);
            let zeros = vec![0.0; case.len()];
            let large = vec![3e38; case.len()];
            assert!(case.finite(on, &flag, &zeros, GradMode::Overwrite), "{what}: finite");
            assert!(case.finite(on, &flag, &large, GradMode::Accumulate), "{what}: large and finite");
            let nan = vec![f32::NAN; case.len()];
            assert!(case.finite(on, &flag, &nan, GradMode::Overwrite), "{what}: an overwritten NaN");
            for (i, position) in positions(on, case.len(), 40).into_iter().enumerate() {
                let mut dw = zeros.clone();
                dw[position] = BAD[i % 3];
                let finite = case.finite(on, &flag, &dw, GradMode::Accumulate);
                assert!(!finite, "{what}: {} in element {position}", dw[position]);
            }
        }
    }
}

#[test]
fn bad_input_or_gradient_of_a_convolution_clears_the_flag() {
    let cases = [
        FilterGradient::new([2, 3, 4, 19], 21, 1, 0),
        FilterGradient::new([2, 5, 4, 19], 21, 3, 1),
        FilterGradient::new([2, 5, 4, 9], 5, 3, 0),
        FilterGradient::new([2, 5, 4, 3], 21, 3, 1),
        FilterGradient::new([2, 5, 4, 8], 8, 3, 1),
        FilterGradient::new([2, 4, 5, 9], 7, 5, 2),
        FilterGradient::new([2, 8, 7, 3], 5, 7, 0),
    ];
    for mut case in cases {
        for place in all_devices_for_filters_of(case.filters[1]) {
            let on = &place.on;
            let flag = Flag::new(on);
            let dw = vec![0.0; case.len()];
            let what = format!("{}: filters {:?}, pad {}", on.name, case.filters, case.pad);
            assert!(case.finite(on, &flag, &dw, GradMode::Overwrite), "{what}: finite");
            let places = |shape: [usize; 4]| -> Vec<usize> {
                let [n, h, w, channels] = shape;
                let lane = move |pixel: usize| (0..channels).map(move |c| pixel * channels + c);
                let all: Vec<usize> = three(n * h * w).into_iter().flat_map(lane).collect();
                // The step shares no factor with a row's length, so that all lanes are reached.
                let step = if is_gpu(on) { 11 } else { 1 };
                all.into_iter().step_by(step).collect()
            };
            for (i, at) in places(case.input).into_iter().enumerate() {
                for bad in chosen(on, i) {
                    let good = std::mem::replace(&mut case.x[at], bad);
                    assert!(!case.finite(on, &flag, &dw, GradMode::Overwrite), "{what}: {bad} at {at} of x");
                    case.x[at] = good;
                }
            }
            for (i, at) in places(case.output).into_iter().enumerate() {
                for bad in chosen(on, i) {
                    let good = std::mem::replace(&mut case.dz[at], bad);
                    assert!(!case.finite(on, &flag, &dw, GradMode::Overwrite), "{what}: {bad} at {at} of dz");
                    case.dz[at] = good;
                }
            }
        }
    }
}

/// All bad values on a CPU; on an emulated GPU, one of them in turn.
fn chosen(on: &TestDevice, i: usize) -> Vec<f32> {
    if is_gpu(on) { vec![BAD[i % 3]] } else { BAD.to_vec() }
}

/// Grad-weight of a fully connected layer.
struct MatrixGradient {
    n: usize,
    inputs: usize,
    outputs: usize,
    x: Vec<f32>,
    dz: Vec<f32>,
}

impl MatrixGradient {
    fn new(n: usize, inputs: usize, outputs: usize) -> MatrixGradient {
        let x = pseudo_random("x", 1.0, n * inputs);
        MatrixGradient { n, inputs, outputs, x, dz: pseudo_random("dz", 1.0, n * outputs) }
    }

    fn finite(&self, on: &TestDevice, flag: &Flag, dw: &[f32], write: GradMode) -> bool {
        let x = Tensor::from_slice(&self.x, [self.n, self.inputs], &on.device).unwrap();
        let dz = Tensor::from_slice(&self.dz, [self.n, self.outputs], &on.device).unwrap();
        let mut dw = Tensor::from_slice(dw, [self.outputs, self.inputs], &on.device).unwrap();
        flag.after(|state| linear::grad_weight(&x, &dz, &mut dw, write, state).unwrap())
    }
}

/// The CPU kernel processes rows six, four or one at a time, 48 per task, and columns sixteen at a time, then
/// singly.
#[test]
fn bad_element_of_a_matrix_gradient_clears_the_flag() {
    for on in all_devices() {
        for (n, inputs, outputs) in [(1, 1, 1), (3, 37, 52), (1, 16, 53), (2, 31, 7), (2, 529, 3)] {
            let case = MatrixGradient::new(n, inputs, outputs);
            let flag = Flag::new(&on);
            let what = format!("{}: [{outputs}, {inputs}]", on.name);
            let zeros = vec![0.0; outputs * inputs];
            let large = vec![3e38; outputs * inputs];
            let nan = vec![f32::NAN; outputs * inputs];
            assert!(case.finite(&on, &flag, &zeros, GradMode::Overwrite), "{what}: finite");
            assert!(case.finite(&on, &flag, &large, GradMode::Accumulate), "{what}: large and finite");
            assert!(case.finite(&on, &flag, &nan, GradMode::Overwrite), "{what}: an overwritten NaN");
            for (i, position) in positions(&on, outputs * inputs, 60).into_iter().enumerate() {
                let mut dw = zeros.clone();
                dw[position] = BAD[i % 3];
                let finite = case.finite(&on, &flag, &dw, GradMode::Accumulate);
                assert!(!finite, "{what}: {} in element {position}", dw[position]);
            }
        }
    }
}

#[test]
fn bad_input_or_gradient_of_a_fully_connected_layer_clears_the_flag() {
    for on in all_devices() {
        for (n, inputs, outputs) in [(1, 1, 1), (5, 37, 13), (3, 16, 53), (2, 33, 6)] {
            let mut case = MatrixGradient::new(n, inputs, outputs);
            let flag = Flag::new(&on);
            let what = format!("{}: n {n}, [{outputs}, {inputs}]", on.name);
            let dw = vec![0.0; outputs * inputs];
            for (i, at) in positions(&on, n * inputs, 30).into_iter().enumerate() {
                for bad in chosen(&on, i) {
                    let good = std::mem::replace(&mut case.x[at], bad);
                    assert!(!case.finite(&on, &flag, &dw, GradMode::Overwrite), "{what}: {bad} at {at} of x");
                    case.x[at] = good;
                }
            }
            for (i, at) in positions(&on, n * outputs, 30).into_iter().enumerate() {
                for bad in chosen(&on, i) {
                    let good = std::mem::replace(&mut case.dz[at], bad);
                    assert!(
                        !case.finite(&on, &flag, &dw, GradMode::Overwrite),
                        "{what}: {bad} at {at} of dz"
                    );
                    case.dz[at] = good;
                }
            }
        }
    }
}

#[test]
fn gradient_that_overflows_clears_the_flag() {
    for on in all_devices() {
        let flag = Flag::new(&on);
        // Powers of two, which are exact in every precision: 2^127 is finite, the sum of two is not.
        let mut case = MatrixGradient::new(1, 19, 7);
        case.x.fill(2f32.powi(63));
        case.dz.fill(2f32.powi(64));
        let zeros = vec![0.0; 19 * 7];
        assert!(case.finite(&on, &flag, &zeros, GradMode::Overwrite), "{}: one large product", on.name);
        let products = vec![2f32.powi(127); 19 * 7];
        assert!(!case.finite(&on, &flag, &products, GradMode::Accumulate), "{}: two large products", on.name);
    }
}

#[test]
fn flag_stays_clear_until_the_next_step_begins() {
    for on in all_devices() {
        let state = StepState::new(&on.device).unwrap();
        let loss = |logits: [f32; 2]| {
            let logits = Tensor::from_slice(&logits, [1, 2], &on.device).unwrap();
            softmax_cross_entropy(&logits, &[0], 1.0, &state).unwrap().per_sample
        };
        let mut readback = AsyncReadback::new(&on.device);
        let mut read = |losses: &Tensor| {
            readback.start(std::iter::once(losses), &state).unwrap();
            let result = readback.wait().unwrap();
            (result.0.to_vec(), result.1)
        };
        let good = read(&loss([2.0, 2.0]));
        assert!((good.0[0] - 2f32.ln()).abs() < 1e-6, "{}: {good:?}", on.name);
        assert!(good.1, "{}: a good loss", on.name);
        let bad = read(&loss([2.0, f32::NAN]));
        assert!(bad.0[0].is_nan() && !bad.1, "{}: {bad:?}", on.name);
        // A later micro-batch of the same step does not set the flag again.
        let later = read(&loss([2.0, 2.0]));
        assert!(!later.1 && !state.finite().unwrap(), "{}: a good loss after a bad one", on.name);
        state.begin(1, 0.1).unwrap();
        let next = read(&loss([2.0, 2.0]));
        assert!(next.1 && state.finite().unwrap(), "{}: the next step", on.name);
    }
}

/// The targets of a staged batch are on the device before the number of classes is known.
#[test]
fn invalid_target_is_an_error_or_clears_the_flag() {
    for on in all_devices() {
        let mut upload = StagedBatch::new([2, 4, 4, 3], &on.device).unwrap();
        let logits = Tensor::from_slice(&[0.5; 10], [2, 5], &on.device).unwrap();
        let flag = Flag::new(&on);
        let (pixels, offset) = (Array4::zeros([2, 4, 4, 3]), Array2::zeros([2, 3]));
        for (targets, good) in [([0, 4], true), ([0, 5], false), ([u32::MAX, 1], false)] {
            upload.fill(pixels.view(), offset.view(), &targets).unwrap();
            let mut refused = false;
            let finite = flag.after(|state| {
                let loss = softmax_cross_entropy_staged(&logits, &upload, 0..2, 0.5, state);
                refused = loss.is_err();
            });
            // A CPU checks the targets first; a GPU makes the loss NaN.
            let counts = finite && !refused;
            assert_eq!(counts, good, "{}: {targets:?}", on.name);
        }
    }
}
