//! Operations other than convolution, against plain loops in f64 and finite differences; dropout, pixels and
//! SGD by their properties.

mod common;

use ndarray::{Array1, Array2, Array4, ArrayView2, ArrayView4, array};
use vgg_tensor::ops::dropout::DropoutKey;
use vgg_tensor::ops::linear::Linear;
use vgg_tensor::ops::lrn::{Lrn, LrnStyle};
use vgg_tensor::ops::max_pool2d::PoolRounding;
use vgg_tensor::ops::{self, MomentumVariant, SgdConfig};
use vgg_tensor::{Error, GradMode, ReluDropoutMask, StepState, Tensor, Weight};
use vgg_testkit::finite_difference;

use common::every_device;

/// Rounding of short sums in f32.
const TOLERANCE: f64 = 2e-6;

fn wide(t: &Tensor) -> Vec<f64> {
    t.to_vec().into_iter().map(f64::from).collect()
}

fn narrow(v: &[f64]) -> Vec<f32> {
    v.iter().map(|x| *x as f32).collect()
}

#[test]
fn linear_agrees_with_plain_loops() {
    for on in every_device() {
        for (n, inputs, outputs) in [
            (1, 1, 1),
            (3, 50, 17),
            (16, 392, 40),
            (33, 130, 300),
            (5, 1300, 21),
            (2, 9000, 10),
            (50, 600, 9),
        ] {
            let (x, w, b) =
                (on.tensor("x", [n, inputs]), on.tensor("w", [outputs, inputs]), on.tensor("b", [outputs]));
            let dz = on.tensor("dz", [n, outputs]);
            let [xd, wd, dzd] = [(&x, n, inputs), (&w, outputs, inputs), (&dz, n, outputs)]
                .map(|(t, r, c)| Array2::from_shape_vec((r, c), wide(t)).unwrap());
            let y = vgg_testkit::linear(&xd, &wd, &Array1::from(wide(&b)));
            let weight = Weight::new(w);
            let got = ops::linear::forward(&x, &weight, &Weight::new(b), Linear { relu: true }).unwrap();
            let relu: Vec<f64> = y.iter().map(|y| y.max(0.0)).collect();
            on.assert_close(&got.to_vec(), &narrow(&relu), TOLERANCE, "forward");

            let grad = ops::linear::grad_input(&dz, &weight, ReluDropoutMask { y: &x, scale: 2.0 }).unwrap();
            let dx = dzd.dot(&wd);
            let gated: Vec<f64> =
                dx.iter().zip(&xd).map(|(d, x)| if *x > 0.0 { 2.0 * d } else { 0.0 }).collect();
            on.assert_close(&grad.grad.to_vec(), &narrow(&gated), TOLERANCE, "grad-input");
            let sums = ArrayView2::from_shape((n, inputs), &gated).unwrap().sum_axis(ndarray::Axis(0));
            on.assert_close(&grad.bias_grad.to_vec(), &narrow(&sums.to_vec()), 1e-5, "bias gradient");

            let mut dw = Tensor::zeros([outputs, inputs], &on.device).unwrap();
            let state = StepState::new(&on.device).unwrap();
            ops::linear::grad_weight(&x, &dz, &mut dw, GradMode::Overwrite, &state).unwrap();
            ops::linear::grad_weight(&x, &dz, &mut dw, GradMode::Accumulate, &state).unwrap();
            let twice: Vec<f64> = dzd.t().dot(&xd).iter().map(|v| 2.0 * v).collect();
            on.assert_close(&dw.to_vec(), &narrow(&twice), TOLERANCE, "grad-weight");
        }
    }
}

#[test]
fn linear_accepts_maps_and_sums_the_bias_gradient_over_cells() {
    for on in every_device() {
        let (x, w) = (on.tensor("x", [2, 3, 3, 8]), Weight::new(on.tensor("w", [5, 72])));
        let dz = on.tensor("dz", [2, 5]);
        let grad = ops::linear::grad_input(&dz, &w, ReluDropoutMask { y: &x, scale: 1.0 }).unwrap();
        assert_eq!(grad.grad.shape().dims(), [2, 3, 3, 8]);
        let mut sums = [0f32; 8];
        grad.grad.to_vec().chunks(8).for_each(|p| sums.iter_mut().zip(p).for_each(|(s, v)| *s += v));
        on.assert_close(&grad.bias_grad.to_vec(), &sums, TOLERANCE, "bias gradient");
    }
}

#[test]
fn max_pool_and_its_gradient() {
    for on in every_device() {
        for (rounding, ceil) in [(PoolRounding::Floor, false), (PoolRounding::Ceil, true)] {
            // Integers that bf16 holds exactly; no two values in a window are equal.
            let values: Vec<f32> = (0..2 * 7 * 6 * 11)
                .map(|i| ((i * 7919 % 61) * 4 + (i / 66 % 2) * 2 + i / 11 % 2) as f32 - 120.0)
                .collect();
            let x = Tensor::from_slice(&values, [2, 7, 6, 11], &on.device).unwrap();
            let reference =
                vgg_testkit::max_pool2d(&Array4::from_shape_vec((2, 7, 6, 11), wide(&x)).unwrap(), ceil);
            let (y, index) = ops::max_pool2d::forward(&x, rounding).unwrap();
            assert_eq!(y.to_vec(), narrow(reference.as_slice().unwrap()));
            assert_eq!(ops::max_pool2d::infer(&x, rounding).unwrap().to_vec(), y.to_vec());
            assert_eq!(y.shape().dims()[1], if ceil { 4 } else { 3 });

            let dy = on.grad_of(on.tensor("dy", [2, y.shape().dims()[1], 3, 11]));
            let dx = ops::max_pool2d::backward(&dy, &index).unwrap().grad.to_vec();
            let loss = |x: &[f64]| {
                let y = vgg_testkit::max_pool2d(
                    &Array4::from_shape_vec((2, 7, 6, 11), x.to_vec()).unwrap(),
                    ceil,
                );
                y.iter().zip(wide(&dy.grad)).map(|(y, d)| y * d).sum()
            };
            on.assert_close(&dx, &narrow(&finite_difference(&wide(&x), loss)), 1e-6, "scattered gradient");
        }
        let e = ops::max_pool2d::infer(&on.tensor("x", [1, 1, 4, 2]), PoolRounding::Floor).unwrap_err();
        assert_eq!(e.to_string(), "max_pool2d: x [1, 1, 4, 2] is too small for 2x2 pooling");
    }
}

#[test]
fn max_pool_gradient_of_equal_values_goes_to_the_first() {
    for on in every_device() {
        let x = Tensor::from_slice(&[1.0; 4], [1, 2, 2, 1], &on.device).unwrap();
        let (_, index) = ops::max_pool2d::forward(&x, PoolRounding::Floor).unwrap();
        let dy = on.grad_of(Tensor::from_slice(&[3.0], [1, 1, 1, 1], &on.device).unwrap());
        assert_eq!(ops::max_pool2d::backward(&dy, &index).unwrap().grad.to_vec(), [3.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn lrn_and_its_gradient() {
    for on in every_device() {
        for (style, divisor) in [(LrnStyle::AlexNet, 1.0), (LrnStyle::Caffe, 5.0)] {
            // A large alpha, so that the normalisation matters.
            let config = Lrn { alpha: 0.5, ..Lrn::alexnet(style) };
            let x = on.tensor("x", [2, 3, 2, 9]);
            let reference = |x: &[f64]| {
                vgg_testkit::lrn(
                    &Array4::from_shape_vec((2, 3, 2, 9), x.to_vec()).unwrap(),
                    5,
                    0.5 / divisor,
                    0.75,
                    2.0,
                )
            };
            let (y, base) = ops::lrn::forward(&x, config).unwrap();
            on.assert_close(
                &y.to_vec(),
                &narrow(reference(&wide(&x)).as_slice().unwrap()),
                TOLERANCE,
                "forward",
            );
            let dy = on.tensor("dy", [2, 3, 2, 9]);
            let grad = ops::lrn::backward(&dy, ReluDropoutMask { y: &x, scale: 1.0 }, &base, config).unwrap();
            let loss = |x: &[f64]| reference(x).iter().zip(wide(&dy)).map(|(y, d)| y * d).sum();
            let mut dx = finite_difference(&wide(&x), loss);
            dx.iter_mut().zip(wide(&x)).for_each(|(d, x)| *d = if x > 0.0 { *d } else { 0.0 });
            on.assert_close(&grad.grad.to_vec(), &narrow(&dx), 1e-6, "gradient");
        }
    }
}

#[test]
fn softmax_cross_entropy_and_its_gradient() {
    for on in every_device() {
        let x = on.tensor("x", [5, 7]);
        let targets = [0, 6, 3, 3, 1];
        let state = StepState::new(&on.device).unwrap();
        let loss = ops::softmax_cross_entropy(&x, &targets, 0.25, &state).unwrap();
        let of = |x: &[f64]| {
            vgg_testkit::softmax_cross_entropy(&Array2::from_shape_vec((5, 7), x.to_vec()).unwrap(), &targets)
        };
        on.assert_close(&loss.per_sample.to_vec(), &narrow(&of(&wide(&x))), TOLERANCE, "losses");
        let dz = finite_difference(&wide(&x), |x| 0.25 * of(x).iter().sum::<f64>());
        on.assert_close(&loss.grad.grad.to_vec(), &narrow(&dz), 1e-6, "gradient");
        assert!(state.finite().unwrap());

        let e = ops::softmax_cross_entropy(&x, &[0, 7, 3, 3, 1], 1.0, &state).unwrap_err();
        assert!(matches!(e, Error::Target { target: 7, sample: 1, classes: 7, .. }));
        let bad = Tensor::from_slice(&[f32::NAN, 1.0], [1, 2], &on.device).unwrap();
        ops::softmax_cross_entropy(&bad, &[0], 1.0, &state).unwrap();
        assert!(!state.finite().unwrap());
    }
}

#[test]
fn softmax_survives_large_logits() {
    for on in every_device() {
        let x = Tensor::from_array(array![[1000.0, 1000.0], [-1000.0, 0.0]].view(), &on.device).unwrap();
        assert_eq!(ops::softmax(&x).unwrap().to_vec(), [0.5, 0.5, 0.0, 1.0]);
    }
}

#[test]
fn global_avg_pool2d_agrees_with_ndarray() {
    for on in every_device() {
        let map = on.tensor("x", [3, 2, 5, 4]);
        let view = ArrayView4::from_shape((3, 2, 5, 4), map.to_vec().leak()).unwrap().mapv(f64::from);
        let mean = view.mean_axis(ndarray::Axis(1)).unwrap().mean_axis(ndarray::Axis(1)).unwrap();
        on.assert_close(
            &ops::global_avg_pool2d(&map).unwrap().to_vec(),
            &narrow(&mean.into_raw_vec_and_offset().0),
            1e-7,
            "mean",
        );
    }
}

#[test]
fn euclidean_loss_and_its_gradient() {
    for on in every_device() {
        let (x, t) = (on.tensor("x", [2, 4]), on.tensor("t", [2, 4]));
        let loss = ops::euclidean_loss(&x, &t, 0.5, &StepState::new(&on.device).unwrap()).unwrap();
        let d: Vec<f64> = wide(&x).iter().zip(wide(&t)).map(|(x, t)| x - t).collect();
        let losses: Vec<f64> = d.chunks(4).map(|d| 0.5 * d.iter().map(|d| d * d).sum::<f64>()).collect();
        on.assert_close(&loss.per_sample.to_vec(), &narrow(&losses), TOLERANCE, "losses");
        on.assert_close(
            &loss.grad.grad.to_vec(),
            &narrow(&d.iter().map(|d| 0.5 * d).collect::<Vec<_>>()),
            TOLERANCE,
            "dz",
        );
    }
}

#[test]
fn dropout_keeps_the_mean_and_does_not_depend_on_the_split() {
    for on in every_device() {
        let x = Tensor::from_slice(&[1.0; 64 * 1000], [64, 1000], &on.device).unwrap();
        let key = DropoutKey { seed: 7, step: 3, layer: 1, first_sample: 0 };
        let y = ops::dropout::forward(&x, 0.5, key).unwrap().to_vec();
        assert!(y.iter().all(|y| *y == 0.0 || *y == 2.0));
        let mean = y.iter().sum::<f32>() / y.len() as f32;
        assert!((mean - 1.0).abs() < 0.02, "five standard deviations: {mean}");
        let second = DropoutKey { first_sample: 40, ..key };
        let part = ops::dropout::forward(&x.images(40..64).unwrap(), 0.5, second).unwrap().to_vec();
        assert_eq!(part, y[40 * 1000..]);
        for other in
            [DropoutKey { seed: 8, ..key }, DropoutKey { step: 4, ..key }, DropoutKey { layer: 2, ..key }]
        {
            let z = ops::dropout::forward(&x, 0.5, other).unwrap().to_vec();
            let agree = y.iter().zip(&z).filter(|(y, z)| y == z).count() as f32 / y.len() as f32;
            assert!((agree - 0.5).abs() < 0.02, "independent of the other key: {agree}");
        }
        assert!(ops::dropout::forward(&x, 1.0, key).is_err());
    }
}

#[test]
fn normalize_adds_the_offset_then_scales() {
    for on in every_device() {
        let pixels = Array4::from_shape_fn((2, 1, 2, 3), |(n, _, x, c)| (100 * n + 10 * x + c) as u8);
        let offset = array![[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]];
        let y = ops::normalize(pixels.view(), offset.view(), [1.0, 0.5, 2.0], &on.device).unwrap();
        let expected = [1.0, 1.5, 10.0, 11.0, 6.5, 30.0, 99.0, 49.5, 198.0, 109.0, 54.5, 218.0];
        assert_eq!(y.to_vec(), expected);
    }
}

#[test]
fn momentum_variants_differ_only_after_a_learning_rate_cut() {
    for on in every_device() {
        let run = |variant, lrs: &[f32]| {
            let mut w = Weight::new(on.tensor("w", [100]));
            let (g, mut v) = (on.tensor("g", [100]), Tensor::zeros([100], &on.device).unwrap());
            let config =
                SgdConfig { momentum_variant: variant, momentum: 0.9, weight_decay: 0.1, lr_mult: 1.0 };
            let state = StepState::new(&on.device).unwrap();
            for (step, lr) in lrs.iter().enumerate() {
                state.begin(step as u64, *lr).unwrap();
                ops::sgd_step(&mut w, &g, &mut v, &state, &config).unwrap();
            }
            w.value().to_vec()
        };
        let variants = [MomentumVariant::Caffe, MomentumVariant::Torch];
        let [caffe, torch] = variants.map(|variant| run(variant, &[0.1; 4]));
        on.assert_close(&caffe, &torch, 1e-6, "a constant learning rate");
        let [caffe, torch] = variants.map(|variant| run(variant, &[0.1, 0.1, 0.01, 0.01]));
        let apart = vgg_testkit::relative_error(&caffe, &torch);
        assert!(apart > 0.01 && apart.is_finite(), "{apart}");
    }
}

#[test]
fn sgd_step_changes_nothing_after_a_non_finite_loss() {
    for on in every_device() {
        let mut w = Weight::new(on.tensor("w", [10]));
        let (g, mut v) = (on.tensor("g", [10]), Tensor::zeros([10], &on.device).unwrap());
        let state = StepState::new(&on.device).unwrap();
        state.begin(0, 1.0).unwrap();
        let bad = Tensor::from_slice(&[f32::INFINITY, 1.0], [1, 2], &on.device).unwrap();
        ops::softmax_cross_entropy(&bad, &[0], 1.0, &state).unwrap();
        let config = SgdConfig {
            momentum_variant: MomentumVariant::Torch,
            momentum: 0.9,
            weight_decay: 0.0,
            lr_mult: 1.0,
        };
        ops::sgd_step(&mut w, &g, &mut v, &state, &config).unwrap();
        assert_eq!(w.value().to_vec(), on.tensor("w", [10]).to_vec());
    }
}
