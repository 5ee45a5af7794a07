//! Networks with dropout: gradients against finite differences, and the dependence of masks on step, sample
//! and layer.

use vgg_layers::{Config, DropoutSeed, Init, NamedTensor, Network, NetworkSpec};
use vgg_tensor::ops::{dropout, linear, softmax_cross_entropy};
use vgg_tensor::{Device, GradMode, StepState, Tensor};
use vgg_testkit::{assert_close, pseudo_random};

const RUN: DropoutSeed = DropoutSeed { seed: 7, step: 3, first_sample: 0 };
const TARGETS: [u32; 6] = [0, 3, 1, 4, 2, 3];

fn spec(config: Config, dropout: f32) -> NetworkSpec {
    NetworkSpec {
        width: 1.0 / 64.0,
        classes: 5,
        head: [42, 30],
        crop: 32,
        dropout,
        ..NetworkSpec::paper(config)
    }
}

fn network(config: Config, rate: f32) -> Network {
    Network::random(spec(config, rate), Init::He, 4, &Device::cpu(1).unwrap()).unwrap()
}

fn images(n: usize) -> Tensor {
    let values = pseudo_random("image", 1.5, n * 32 * 32 * 3);
    Tensor::from_slice(&values, [n, 32, 32, 3], &Device::cpu(1).unwrap()).unwrap()
}

/// The mean loss of six images, in f64.
fn loss(network: &Network, run: DropoutSeed) -> f64 {
    let state = StepState::new(network.device()).unwrap();
    let (logits, _) = network.forward(images(6), run).unwrap();
    let loss = softmax_cross_entropy(&logits, &TARGETS, 1.0 / 6.0, &state).unwrap();
    loss.per_sample.to_vec().into_iter().map(f64::from).sum::<f64>() / 6.0
}

fn gradients(network: &mut Network, run: DropoutSeed) -> Vec<NamedTensor> {
    let state = StepState::new(network.device()).unwrap();
    let (logits, trace) = network.forward(images(6), run).unwrap();
    let loss = softmax_cross_entropy(&logits, &TARGETS, 1.0 / 6.0, &state).unwrap();
    network.backward(trace, loss.grad, GradMode::Overwrite, &state).unwrap();
    network.gradients()
}

/// Moves every parameter from `start` by `distance` times its direction.
fn moved(network: &mut Network, start: &[NamedTensor], direction: &[Vec<f32>], distance: f32) {
    for (array, direction) in start.iter().zip(direction) {
        let values = array.values.iter().zip(direction).map(|(v, d)| v + distance * d).collect();
        network.load_tensor(&NamedTensor { values, ..array.clone() }).unwrap();
    }
}

#[test]
fn gradients_with_dropout_match_finite_differences() {
    for (config, rate) in [(Config::A, 0.3), (Config::ALrn, 0.7), (Config::C, 0.1), (Config::B5x5, 0.85)] {
        let mut network = network(config.clone(), rate);
        let gradients = gradients(&mut network, RUN);
        let start = network.state_dict();
        assert!(gradients.iter().map(|g| &g.name).eq(start.iter().map(|w| &w.name)));
        // One parameter at a time, so that layers with small gradients count as much as layers with large
        // ones.
        for (number, gradient) in gradients.iter().enumerate() {
            let norm = gradient.values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            assert!(norm > 1e-4, "{config}, {}: gradient norm {norm} is too small to test", gradient.name);
            // The directional derivative along the gradient is its norm.
            let along = |g: &NamedTensor| g.values.iter().map(|v| (f64::from(*v) / norm) as f32).collect();
            let direction: Vec<Vec<f32>> = gradients
                .iter()
                .enumerate()
                .map(|(i, g)| if i == number { along(g) } else { vec![0.0; g.values.len()] })
                .collect();
            // A kink of ReLU or max pooling between the two points distorts the slope; rounding of the loss
            // distorts small distances.
            let slopes = [4e-3, 1e-3, 2.5e-4].map(|distance| {
                moved(&mut network, &start, &direction, distance);
                let above = loss(&network, RUN);
                moved(&mut network, &start, &direction, -distance);
                (above - loss(&network, RUN)) / (2.0 * f64::from(distance))
            });
            // The truncation error (third power of the distance) and rounding of the loss (2e-7 over twice
            // the distance) are below 2 % at one of the distances. A wrong mask or a missing factor is off by
            // 10 % or more.
            let close = slopes.iter().any(|slope| (slope / norm - 1.0).abs() < 0.02);
            assert!(close, "{config} {rate}, {}: slopes {slopes:?}, norm {norm}", gradient.name);
        }
    }
}

fn logits(rate: f32, run: DropoutSeed) -> Vec<f32> {
    network(Config::A, rate).forward(images(6), run).unwrap().0.to_vec()
}

#[test]
fn dropout_masks_of_fc6_and_fc7_depend_on_their_keys() {
    let device = Device::cpu(1).unwrap();
    let rate = 0.35;
    let network = network(Config::A, rate);
    // The fully connected layers, computed by hand from the pool5 features.
    let dense = Network::random(spec(Config::A, rate), Init::He, 4, &device)
        .unwrap()
        .into_fully_convolutional()
        .unwrap();
    let pooled = dense.activations(&images(6), "pool5").unwrap();
    let mut x = Tensor::from_slice(&pooled.to_vec(), [6, pooled.shape().len() / 6], &device).unwrap();
    let parameter = |name: &str| network.parameters().find(|p| p.name == name).unwrap();
    let fc = |x: &Tensor, name: &str, relu| {
        let (weight, bias) = (parameter(&format!("{name}.weight")), parameter(&format!("{name}.bias")));
        linear::forward(x, &weight.weight, &bias.weight, linear::Linear { relu }).unwrap()
    };
    for (layer, name) in ["fc6", "fc7"].into_iter().enumerate() {
        let key = dropout::DropoutKey { seed: 7, step: 3, layer: layer as u32, first_sample: 0 };
        x = dropout::forward(&fc(&x, name, true), rate, key).unwrap();
    }
    let logits = network.forward(images(6), RUN).unwrap().0;
    // The same operations, but the convolutions may use other tiles.
    assert_close(&logits.to_vec(), &fc(&x, "fc8", false).to_vec(), 1e-5, "logits");
}

#[test]
fn masks_differ_by_step_seed_and_position_in_the_batch() {
    let base = logits(0.5, RUN);
    assert_eq!(base, logits(0.5, RUN));
    let other = [
        DropoutSeed { step: 4, ..RUN },
        DropoutSeed { seed: 8, ..RUN },
        DropoutSeed { first_sample: 6, ..RUN },
        DropoutSeed { step: 3 + (1 << 32), ..RUN },
        DropoutSeed { seed: 7 + (1 << 32), ..RUN },
    ];
    for run in other {
        let differ = base.chunks(5).zip(logits(0.5, run).chunks(5)).filter(|(a, b)| a != b).count();
        assert_eq!(differ, 6, "{run:?}: every image has a different mask");
    }
    // Equal images get different masks, and a micro-batch gets the masks of its position in the batch.
    let device = Device::cpu(1).unwrap();
    let one = pseudo_random("image", 1.5, 32 * 32 * 3);
    let same = Tensor::from_slice(&one.repeat(6), [6, 32, 32, 3], &device).unwrap();
    let network = network(Config::A, 0.5);
    let logits = network.forward(same.clone(), RUN).unwrap().0.to_vec();
    let rows: Vec<&[f32]> = logits.chunks(5).collect();
    assert!((0..6).all(|i| (0..i).all(|j| rows[i] != rows[j])), "{rows:?}");
    let part = same.images(4..6).unwrap();
    let part = network.forward(part, DropoutSeed { first_sample: 4, ..RUN }).unwrap().0.to_vec();
    assert_close(&part, &logits[4 * 5..], 1e-5, "the last two of six");
}

#[test]
fn dropout_rate_0_equals_inference_and_inference_has_no_dropout() {
    let free = network(Config::A, 0.0);
    let inferred = free.infer(&images(6)).unwrap().to_vec();
    assert_close(&free.forward(images(6), RUN).unwrap().0.to_vec(), &inferred, 1e-6, "rate 0");
    let dropped = network(Config::A, 0.6);
    assert_eq!(dropped.infer(&images(6)).unwrap().to_vec(), inferred);
    assert_ne!(dropped.forward(images(6), RUN).unwrap().0.to_vec(), inferred);
}
