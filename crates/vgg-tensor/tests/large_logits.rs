//! Losses and posteriors of logits whose exponentials overflow or underflow.

mod common;
mod instruction_sets;

use vgg_tensor::ops::{self, Loss};
use vgg_tensor::{StepState, Tensor};
use vgg_testkit::pseudo_random;

use common::TestDevice;
use instruction_sets::{all_devices, assert_bias_grad, assert_within};

/// Posteriors of a row in f64.
fn posterior(x: &[f32]) -> Vec<f64> {
    let largest = x.iter().map(|x| f64::from(*x)).fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = x.iter().map(|x| (f64::from(*x) - largest).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|e| e / sum).collect()
}

/// `-ln posterior[target]` in f64.
fn loss(x: &[f32], target: usize) -> f64 {
    let largest = x.iter().map(|x| f64::from(*x)).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = x.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
    sum.ln() + (largest - f64::from(x[target]))
}

/// Rows of logits, with a target for each.
struct Rows {
    classes: usize,
    logits: Vec<f32>,
    targets: Vec<u32>,
}

impl Rows {
    fn run(&self, on: &TestDevice, weight: f32) -> (Loss, Vec<f32>) {
        let logits =
            Tensor::from_slice(&self.logits, [self.targets.len(), self.classes], &on.device).unwrap();
        let state = StepState::new(&on.device).unwrap();
        let loss = ops::softmax_cross_entropy(&logits, &self.targets, weight, &state).unwrap();
        assert!(state.finite().unwrap(), "{}: {} classes: the loss is finite", on.name, self.classes);
        (loss, ops::softmax(&logits).unwrap().to_vec())
    }

    /// Compares loss, gradient and posteriors with f64.
    fn check(&self, on: &TestDevice, what: &str) {
        const WEIGHT: f32 = 0.25;
        let what = format!("{}: {what}, {} classes", on.name, self.classes);
        let (got, posteriors) = self.run(on, WEIGHT);
        let mut losses = Vec::new();
        let mut gradients = Vec::new();
        let mut expected_posteriors = Vec::new();
        for (row, target) in self.logits.chunks_exact(self.classes).zip(&self.targets) {
            losses.push(loss(row, *target as usize));
            let p = posterior(row);
            let gradient = |class: usize| f64::from(WEIGHT) * (p[class] - f64::from(class as u32 == *target));
            gradients.extend((0..self.classes).map(gradient));
            expected_posteriors.extend(p);
        }
        // The losses of one check differ widely; the smallest has its own test.
        let magnitude = self.logits.iter().filter(|x| x.is_finite()).map(|x| f64::from(x.abs()));
        let magnitude = magnitude.fold(1.0, f64::max).max(losses.iter().copied().fold(0.0, f64::max));
        assert_within(
            &got.per_sample.to_vec(),
            &losses,
            magnitude * 2f64.powi(-22),
            &format!("{what}: losses"),
        );
        // exp in f32 is accurate to 2 ulp; sums of up to 1001 terms below 1 add a few more.
        let bound = f64::from(WEIGHT) * on.rounding.max(1e-6);
        assert_within(&got.grad.grad.to_vec(), &gradients, bound, &format!("{what}: gradient"));
        assert_bias_grad(&got.grad, &what);
        assert_within(&posteriors, &expected_posteriors, 1e-6, &format!("{what}: posteriors"));
    }
}

#[test]
fn a_small_loss_among_large_logits_is_not_rounded_away() {
    for on in all_devices() {
        // ln(1 + e^-10) = 4.54e-5; adjacent floats near 10,000 are 1e-3 apart.
        let rows =
            Rows { classes: 2, logits: vec![10_000.0, 9_990.0, -10_000.0, -9_990.0], targets: vec![0, 1] };
        let losses = rows.run(&on, 1.0).0.per_sample.to_vec();
        let expected = f64::from(-10f32).exp().ln_1p();
        assert_within(&losses, &[expected, expected], 1e-3 * expected, &on.name);
    }
}

#[test]
fn logits_of_ten_thousand() {
    for on in all_devices() {
        for classes in [1, 2, 7, 256, 257, 1000, 1001] {
            for bound in [1e4, 80.0] {
                let logits = pseudo_random("logits", bound, 3 * classes);
                let targets = [0, classes as u32 - 1, classes as u32 / 2].to_vec();
                Rows { classes, logits, targets }.check(&on, "between plus and minus a bound");
            }
            // Without subtracting the maximum, all exponentials overflow or underflow.
            for shift in [1e4, -1e4] {
                let logits = pseudo_random("logits", 3.0, 3 * classes).iter().map(|x| x + shift).collect();
                let targets = [0, classes as u32 - 1, classes as u32 / 2].to_vec();
                Rows { classes, logits, targets }.check(&on, "around a large number");
            }
        }
    }
}

/// The largest logit at each position, more than a hundred above the others.
#[test]
fn one_class_far_above_the_others() {
    for on in all_devices() {
        for classes in [2, 9, 33, 300] {
            let mut logits = Vec::new();
            let mut targets = Vec::new();
            // With many classes, at least one position in each warp of a block of 256 threads.
            for best in (0..classes).step_by(if classes > 33 { 27 } else { 1 }) {
                logits.extend((0..classes).map(|class| if class == best { 150.0 } else { 10.0 }));
                targets.push(((best * 5 + 1) % classes) as u32);
            }
            Rows { classes, logits, targets }.check(&on, "one far above");
        }
    }
}

#[test]
fn losses_and_gradients_worked_by_hand() {
    for on in all_devices() {
        // exp(-200) is negligible beside 1, so losses are differences of logits.
        let rows = Rows { classes: 3, logits: [200.0, 0.0, -200.0].repeat(3), targets: vec![0, 1, 2] };
        let (loss, posteriors) = rows.run(&on, 1.0);
        assert_eq!(loss.per_sample.to_vec(), [0.0, 200.0, 400.0], "{}", on.name);
        let expected = [0.0, 0.0, 0.0, 1.0, -1.0, 0.0, 1.0, 0.0, -1.0];
        assert_eq!(loss.grad.grad.to_vec(), expected, "{}", on.name);
        assert_eq!(posteriors, [1.0, 0.0, 0.0].repeat(3), "{}", on.name);
        // A single class has posterior 1.
        let rows = Rows { classes: 1, logits: vec![1e4, -1e4, 0.0], targets: vec![0, 0, 0] };
        let (loss, posteriors) = rows.run(&on, 1.0);
        assert_eq!(loss.per_sample.to_vec(), [0.0; 3], "{}", on.name);
        assert_eq!(loss.grad.grad.to_vec(), [0.0; 3], "{}", on.name);
        assert_eq!(posteriors, [1.0; 3], "{}", on.name);
    }
}

/// `K` equal logits have a loss of `ln K` and a posterior of `1 / K` each, whatever their value.
#[test]
fn equal_logits_share_the_posterior() {
    for on in all_devices() {
        for classes in [2, 8, 10, 1000, 1001] {
            let values = [0.0, 88.5, -1e4, 1e4];
            let logits = values.iter().flat_map(|value| vec![*value; classes]).collect();
            let targets = vec![0, classes as u32 - 1, 1, classes as u32 / 2];
            let rows = Rows { classes, logits, targets };
            rows.check(&on, "equal logits");
            let (_, posteriors) = rows.run(&on, 1.0);
            let share = 1.0 / classes as f64;
            assert_within(&posteriors, &vec![share; 4 * classes], 1e-6 * share, &on.name);
        }
        // Two logits share the maximum.
        let rows = Rows { classes: 3, logits: [500.0, -500.0, 500.0].repeat(2), targets: vec![2, 1] };
        let (loss, posteriors) = rows.run(&on, 1.0);
        let losses = [2f64.ln(), 1000.0 + 2f64.ln()];
        assert_within(&loss.per_sample.to_vec(), &losses, 1e-4, &on.name);
        assert_eq!(posteriors, [0.5, 0.0, 0.5, 0.5, 0.0, 0.5], "{}", on.name);
        assert_eq!(loss.grad.grad.to_vec(), [0.5, 0.0, -0.5, 0.5, -1.0, 0.5], "{}", on.name);
    }
}

/// A class with logit minus infinity has no influence, at any position.
#[test]
fn logit_of_minus_infinity_has_posterior_zero() {
    for on in all_devices() {
        for classes in [2, 9, 17, 300] {
            let mut logits = pseudo_random("logits", 3.0, 4 * classes);
            let targets = vec![1, 0, classes as u32 - 1, 0];
            logits[0] = f32::NEG_INFINITY;
            logits[2 * classes - 1] = f32::NEG_INFINITY;
            logits[2 * classes + (classes - 1) / 2] = f32::NEG_INFINITY;
            // All logits except the target's.
            logits[3 * classes + 1..].fill(f32::NEG_INFINITY);
            let rows = Rows { classes, logits, targets };
            rows.check(&on, "minus infinity");
            let (loss, posteriors) = rows.run(&on, 1.0);
            let dz = loss.grad.grad.to_vec();
            for (i, logit) in rows.logits.iter().enumerate() {
                if *logit == f32::NEG_INFINITY {
                    assert!(posteriors[i] == 0.0 && dz[i] == 0.0, "{}: {classes} classes, {i}", on.name);
                }
            }
        }
    }
}

/// The gradient is of `weight` times the sum of losses; the returned losses are not weighted.
#[test]
fn weight_scales_only_the_gradient() {
    for on in all_devices() {
        let rows =
            Rows { classes: 19, logits: pseudo_random("logits", 5.0, 4 * 19), targets: vec![18, 0, 7, 3] };
        let (one, _) = rows.run(&on, 1.0);
        let (quarter, _) = rows.run(&on, 0.25);
        assert_eq!(one.per_sample.to_vec(), quarter.per_sample.to_vec(), "{}", on.name);
        let scaled: Vec<f32> = one.grad.grad.to_vec().iter().map(|dz| 0.25 * dz).collect();
        assert_eq!(quarter.grad.grad.to_vec(), scaled, "{}: a power of two does not round", on.name);
    }
}
