//! SGD against its formulas in f64, parameters that it must not change, and restored velocities.

use vgg_optim::{Error, MomentumVariant, Sgd, SgdOptions};
use vgg_tensor::{Device, GradMode, Parameter, ParameterKind, StepState, Tensor, ops};

const RATES: [f32; 3] = [0.5, 0.5, 0.125];

fn device() -> Device {
    Device::cpu(1).unwrap()
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, [values.len()], &device()).unwrap()
}

fn parameter(name: &str, kind: ParameterKind, values: &[f32]) -> Parameter {
    Parameter::new(name.into(), kind, tensor(values))
}

/// The gradient of a step: every value is different.
fn gradient(step: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 + 1.0) * [1.0, -0.5, 0.25][step]).collect()
}

/// Runs three steps on a weight and a bias; returns both and the optimiser.
fn stepped(options: SgdOptions) -> (Vec<Parameter>, Sgd) {
    let mut parameters = vec![
        parameter("fc8.weight", ParameterKind::Weight, &[1.0, -2.0, 3.0]),
        parameter("fc8.bias", ParameterKind::Bias, &[0.5, -4.0]),
    ];
    let mut sgd = Sgd::new(options).unwrap();
    let state = StepState::new(&device()).unwrap();
    for (step, rate) in RATES.into_iter().enumerate() {
        state.begin(step as u64, rate).unwrap();
        for p in &mut parameters {
            let gradient = tensor(&gradient(step, p.weight.shape().len()));
            p.write_grad(&gradient, GradMode::Overwrite).unwrap();
        }
        sgd.step(parameters.iter_mut(), &state).unwrap();
    }
    (parameters, sgd)
}

/// The same steps by the formulas of Krizhevsky et al. and of PyTorch's documentation.
fn by_hand(start: &[f64], options: &SgdOptions, decay: f64, rate_factor: f64) -> Vec<f64> {
    let mut values = start.to_vec();
    let momentum = f64::from(options.momentum);
    for (i, value) in values.iter_mut().enumerate() {
        let mut velocity = 0.0;
        for (step, rate) in RATES.into_iter().enumerate() {
            let rate = f64::from(rate) * rate_factor;
            let gradient = f64::from(gradient(step, start.len())[i]) + decay * *value;
            match options.momentum_variant {
                MomentumVariant::Caffe => {
                    velocity = momentum * velocity - rate * gradient;
                    *value += velocity;
                }
                MomentumVariant::Torch => {
                    velocity = momentum * velocity + gradient;
                    *value -= rate * velocity;
                }
            }
        }
    }
    values
}

fn assert_values(parameter: &Parameter, expected: &[f64], what: &str) {
    let ours = parameter.weight.value().to_vec();
    assert_eq!(ours.len(), expected.len());
    for (a, b) in ours.iter().zip(expected) {
        // The error of a dozen roundings of values below 16.
        assert!((f64::from(*a) - b).abs() < 1e-5, "{what}: {ours:?}, expected {expected:?}");
    }
}

#[test]
fn three_steps_match_the_formulas() {
    for momentum_variant in [MomentumVariant::Caffe, MomentumVariant::Torch] {
        for decay_biases in [false, true] {
            let options = SgdOptions {
                momentum_variant,
                momentum: 0.75,
                weight_decay: 0.25,
                decay_biases,
                bias_lr_mult: 2.0,
            };
            let (parameters, sgd) = stepped(options);
            let what = format!("{options:?}");
            assert_values(&parameters[0], &by_hand(&[1.0, -2.0, 3.0], &options, 0.25, 1.0), &what);
            let decay = if decay_biases { 0.25 } else { 0.0 };
            assert_values(&parameters[1], &by_hand(&[0.5, -4.0], &options, decay, 2.0), &what);
            let names: Vec<&str> = sgd.velocities().keys().map(String::as_str).collect();
            assert_eq!(names, ["fc8.bias", "fc8.weight"]);
        }
    }
}

#[test]
fn paper_options_have_the_values_of_the_paper() {
    let SgdOptions { momentum_variant, momentum, weight_decay, decay_biases, bias_lr_mult } =
        SgdOptions::PAPER;
    assert_eq!(
        (momentum_variant, momentum, weight_decay, decay_biases, bias_lr_mult),
        (MomentumVariant::Caffe, 0.9, 5e-4, false, 1.0)
    );
}

#[test]
fn frozen_parameters_missing_gradients_and_non_finite_steps_change_nothing() {
    let mut frozen = parameter("a.weight", ParameterKind::Weight, &[1.0]);
    frozen.write_grad(&tensor(&[1.0]), GradMode::Overwrite).unwrap();
    frozen.trainable = false;
    let without_grad = parameter("b.weight", ParameterKind::Weight, &[1.0]);
    let mut moved = parameter("c.weight", ParameterKind::Weight, &[1.0]);
    moved.write_grad(&tensor(&[1.0]), GradMode::Overwrite).unwrap();
    let mut parameters = [frozen, without_grad, moved];
    let mut sgd = Sgd::new(SgdOptions { weight_decay: 0.0, ..SgdOptions::PAPER }).unwrap();
    let state = StepState::new(&device()).unwrap();
    state.begin(0, 0.5).unwrap();
    let values = |parameters: &[Parameter]| -> Vec<f32> {
        parameters.iter().flat_map(|p| p.weight.value().to_vec()).collect()
    };
    sgd.step(parameters.iter_mut(), &state).unwrap();
    assert_eq!(values(&parameters), [1.0, 1.0, 0.5]);
    assert_eq!(sgd.velocities().len(), 1);
    // A loss that is not finite clears the flag of the step.
    state.begin(1, 0.5).unwrap();
    let bad = Tensor::from_slice(&[f32::NAN, 0.0], [1, 2], &device()).unwrap();
    ops::softmax_cross_entropy(&bad, &[0], 1.0, &state).unwrap();
    sgd.step(parameters.iter_mut(), &state).unwrap();
    assert_eq!(values(&parameters), [1.0, 1.0, 0.5]);
}

#[test]
fn restored_velocities_continue_and_mismatches_are_rejected() {
    let options = SgdOptions { weight_decay: 0.0, ..SgdOptions::PAPER };
    let (mut parameters, sgd) = stepped(options);
    let velocities = sgd.velocities().clone();
    let known: Vec<&Parameter> = parameters.iter().collect();
    let mut resumed = Sgd::new(options).unwrap();
    let velocity = velocities["fc8.weight"].to_vec();
    drop(sgd);
    resumed.restore(velocities, &known).unwrap();
    let before = parameters[0].weight.value().to_vec();
    let state = StepState::new(&device()).unwrap();
    state.begin(3, 0.25).unwrap();
    parameters[0].write_grad(&tensor(&[1.0, 2.0, 3.0]), GradMode::Overwrite).unwrap();
    resumed.step(parameters.iter_mut(), &state).unwrap();
    for (i, value) in parameters[0].weight.value().to_vec().into_iter().enumerate() {
        let expected = before[i] - (0.9 * velocity[i] + 0.25 * (i as f32 + 1.0));
        assert!((value - expected).abs() < 1e-6, "{value}, expected {expected}");
    }

    let known: Vec<&Parameter> = parameters.iter().collect();
    let refused = |name: &str, values: &[f32]| {
        let mut sgd = Sgd::new(options).unwrap();
        let wrong = [(name.to_owned(), tensor(values))].into();
        let error = sgd.restore(wrong, &known).unwrap_err();
        assert!(matches!(error, Error::Velocity { .. }) && sgd.velocities().is_empty());
        error.to_string()
    };
    assert_eq!(refused("fc9.weight", &[1.0]), "the velocity of fc9.weight matches no parameter");
    assert_eq!(
        refused("fc8.weight", &[1.0, 2.0]),
        "the velocity of fc8.weight has a shape different from its parameter"
    );
}

#[test]
fn options_out_of_range_are_rejected() {
    let refused = |momentum, weight_decay, bias_lr_mult| {
        let options = SgdOptions { momentum, weight_decay, bias_lr_mult, ..SgdOptions::PAPER };
        Sgd::new(options).err().map(|error| error.to_string())
    };
    assert_eq!((refused(0.0, 0.0, 0.0), refused(0.999, 10.0, 10.0)), (None, None));
    for (momentum, weight_decay, bias_lr_mult, message) in [
        (2.0, -1.0, 1.0, "momentum 2 must be at least 0 and below 1"),
        (1.0, 0.0, 1.0, "momentum 1 must be at least 0 and below 1"),
        (-0.5, 0.0, 1.0, "momentum -0.5 must be at least 0 and below 1"),
        (f32::NAN, 0.0, 1.0, "momentum NaN must be at least 0 and below 1"),
        (0.9, -1.0, 1.0, "weight_decay -1 must be finite and not negative"),
        (0.9, -1e-9, 1.0, "weight_decay -0.000000001 must be finite and not negative"),
        (0.9, f32::INFINITY, 1.0, "weight_decay inf must be finite and not negative"),
        (0.9, f32::NAN, 1.0, "weight_decay NaN must be finite and not negative"),
        (0.9, 0.0, -1e-9, "bias_lr_mult -0.000000001 must be finite and not negative"),
        (0.9, 0.0, f32::INFINITY, "bias_lr_mult inf must be finite and not negative"),
    ] {
        assert_eq!(refused(momentum, weight_decay, bias_lr_mult).as_deref(), Some(message));
    }
}
