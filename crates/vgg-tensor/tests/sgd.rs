//! SGD against the two momentum variants of the literature, by hand and in f64.

mod common;
mod instruction_sets;

use vgg_tensor::ops::{MomentumVariant, SgdConfig, sgd_step, softmax_cross_entropy};
use vgg_tensor::{StepState, Tensor, Weight};

use common::{TestDevice, every_device};
use instruction_sets::{all_devices, assert_within};

/// A weight with its SGD state.
struct Training {
    weight: Weight,
    velocity: Tensor,
    state: StepState,
    config: SgdConfig,
    steps: u64,
}

impl Training {
    fn new(on: &TestDevice, weights: &[f32], config: SgdConfig) -> Training {
        Training {
            weight: Weight::new(Tensor::from_slice(weights, [weights.len()], &on.device).unwrap()),
            velocity: Tensor::zeros([weights.len()], &on.device).unwrap(),
            state: StepState::new(&on.device).unwrap(),
            config,
            steps: 0,
        }
    }

    /// Takes a step; returns weights and velocities.
    fn step(&mut self, lr: f32, grad: &[f32]) -> [Vec<f32>; 2] {
        self.state.begin(self.steps, lr).unwrap();
        self.steps += 1;
        self.update(grad)
    }

    fn update(&mut self, grad: &[f32]) -> [Vec<f32>; 2] {
        let grad = Tensor::from_slice(grad, [grad.len()], self.velocity.device()).unwrap();
        sgd_step(&mut self.weight, &grad, &mut self.velocity, &self.state, &self.config).unwrap();
        [self.weight.value().to_vec(), self.velocity.to_vec()]
    }
}

/// AlexNet's momentum with momentum and weight decay 1/2: `v = v / 2 - lr w / 2 - lr g; w = w + v`. From
/// `w = 1`, with `g = 2` and learning rates 1/2, 1/2 and 1/4, the velocities are -1.25, -1.5625 and
/// -1.0546875. The library's velocity has the opposite sign.
#[test]
fn alexnet_momentum_worked_by_hand() {
    for on in all_devices() {
        let config = SgdConfig {
            momentum_variant: MomentumVariant::Caffe,
            momentum: 0.5,
            weight_decay: 0.5,
            lr_mult: 1.0,
        };
        let mut training = Training::new(&on, &[1.0; 9], config);
        assert_eq!(training.step(0.5, &[2.0; 9]), [[-0.25; 9], [1.25; 9]], "{}", on.name);
        assert_eq!(training.step(0.5, &[2.0; 9]), [[-1.8125; 9], [1.5625; 9]], "{}", on.name);
        let cut = [[-2.867_187_5; 9], [1.054_687_5; 9]];
        assert_eq!(training.step(0.25, &[2.0; 9]), cut, "{}", on.name);
    }
}

/// PyTorch's momentum, `v = v / 2 + g + w / 2; w = w - lr v`: with the same numbers, the weights are the same
/// until the learning rate changes.
#[test]
fn pytorch_momentum_worked_by_hand() {
    for on in all_devices() {
        let config = SgdConfig {
            momentum_variant: MomentumVariant::Torch,
            momentum: 0.5,
            weight_decay: 0.5,
            lr_mult: 1.0,
        };
        let mut training = Training::new(&on, &[1.0; 9], config);
        assert_eq!(training.step(0.5, &[2.0; 9]), [[-0.25; 9], [2.5; 9]], "{}", on.name);
        assert_eq!(training.step(0.5, &[2.0; 9]), [[-1.8125; 9], [3.125; 9]], "{}", on.name);
        let cut = [[-2.476_562_5; 9], [2.656_25; 9]];
        assert_eq!(training.step(0.25, &[2.0; 9]), cut, "{}", on.name);
    }
}

/// `lr_mult` 2 at half the learning rate gives the same steps.
#[test]
fn lr_mult_multiplies_the_learning_rate() {
    for on in all_devices() {
        let config = |variant, lr_mult| SgdConfig {
            momentum_variant: variant,
            momentum: 0.5,
            weight_decay: 0.5,
            lr_mult,
        };
        let mut caffe = Training::new(&on, &[1.0; 3], config(MomentumVariant::Caffe, 2.0));
        assert_eq!(caffe.step(0.25, &[2.0; 3]), [[-0.25; 3], [1.25; 3]], "{}", on.name);
        assert_eq!(caffe.step(0.25, &[2.0; 3]), [[-1.8125; 3], [1.5625; 3]], "{}", on.name);
        let mut torch = Training::new(&on, &[1.0; 3], config(MomentumVariant::Torch, 2.0));
        assert_eq!(torch.step(0.25, &[2.0; 3]), [[-0.25; 3], [2.5; 3]], "{}", on.name);
        assert_eq!(torch.step(0.25, &[2.0; 3]), [[-1.8125; 3], [3.125; 3]], "{}", on.name);
        // With a factor of 0 the weights do not change.
        let mut frozen = Training::new(&on, &[1.0; 3], config(MomentumVariant::Torch, 0.0));
        assert_eq!(frozen.step(0.5, &[2.0; 3]), [[1.0; 3], [2.5; 3]], "{}", on.name);
    }
}

#[test]
fn five_steps_of_the_papers_hyperparameters() {
    const LEN: usize = 37;
    // f32, so that the f64 reference uses the same values.
    let rates = [1e-2f32, 1e-2, 1e-2, 1e-3, 1e-3];
    let momentum = 0.9f32;
    let decay = 5e-4f32;
    for on in all_devices() {
        for variant in [MomentumVariant::Caffe, MomentumVariant::Torch] {
            let config = SgdConfig { momentum_variant: variant, momentum, weight_decay: decay, lr_mult: 2.0 };
            let start = TestDevice::values("w", LEN);
            let mut training = Training::new(&on, &start, config);
            let mut w: Vec<f64> = start.iter().map(|w| f64::from(*w)).collect();
            let mut v = vec![0.0f64; LEN];
            for (step, lr) in rates.into_iter().enumerate() {
                let grad = TestDevice::values(&format!("g{step}"), LEN);
                let got = training.step(lr, &grad);
                let rate = 2.0 * f64::from(lr);
                for i in 0..LEN {
                    let g = f64::from(grad[i]);
                    match variant {
                        MomentumVariant::Caffe => {
                            v[i] = f64::from(momentum) * v[i] - f64::from(decay) * rate * w[i] - rate * g;
                            w[i] += v[i];
                        }
                        MomentumVariant::Torch => {
                            v[i] = f64::from(momentum) * v[i] + (g + f64::from(decay) * w[i]);
                            w[i] -= rate * v[i];
                        }
                    }
                }
                let what = format!("{}: {variant:?}, step {step}", on.name);
                // A few roundings per step of weights up to 1 and velocities up to 5.
                assert_within(&got[0], &w, 1e-6, &format!("{what}, weights"));
                let sign = if variant == MomentumVariant::Caffe { -1.0 } else { 1.0 };
                let velocities: Vec<f64> = v.iter().map(|v| sign * v).collect();
                assert_within(&got[1], &velocities, 2e-6, &format!("{what}, velocities"));
            }
        }
    }
}

#[test]
fn step_that_is_not_finite_changes_neither_weight_nor_velocity() {
    for on in every_device() {
        for variant in [MomentumVariant::Caffe, MomentumVariant::Torch] {
            let config =
                SgdConfig { momentum_variant: variant, momentum: 0.5, weight_decay: 0.5, lr_mult: 1.0 };
            let mut training = Training::new(&on, &[1.0; 19], config);
            let before = training.step(0.5, &[2.0; 19]);
            training.state.begin(1, 0.5).unwrap();
            let bad = Tensor::from_slice(&[f32::NAN, 0.0], [1, 2], &on.device).unwrap();
            softmax_cross_entropy(&bad, &[0], 1.0, &training.state).unwrap();
            assert_eq!(training.update(&[2.0; 19]), before, "{}: {variant:?}", on.name);
            let next = training.step(0.5, &[2.0; 19]);
            assert_eq!(next[0], [-1.8125; 19], "{}: {variant:?}, the next step", on.name);
        }
    }
}
