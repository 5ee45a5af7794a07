//! Parameters of a network: initialisation, loading, copying, gradients.

mod common;

use common::{device, images, network, small};
use vgg_layers::{Config, DropoutSeed, Error, Init, LayerSelection, NamedTensor, Network, NetworkSpec};
use vgg_tensor::ops::softmax_cross_entropy;
use vgg_tensor::{GradMode, StepState, Tensor};
use vgg_testkit::{assert_close, pseudo_random};

#[test]
fn initial_weights_have_the_variance_of_their_layer() {
    // Wide enough for a standard error of at most 2.2 %.
    let spec =
        NetworkSpec { width: 0.25, classes: 40, head: [300, 200], crop: 64, ..NetworkSpec::paper(Config::C) };
    let variance = |init: Init, name: &str| {
        let network = Network::random(spec.clone(), init, 5, &device()).unwrap();
        let array =
            network.state_dict().into_iter().find(|array| array.name == format!("{name}.weight")).unwrap();
        array.values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / array.values.len() as f64
    };
    // conv3_3 is 1x1 from 64 to 64 channels, conv4_1 3x3 from 64 to 128, and fc7 fully connected from 300 to
    // 200.
    for (init, expected) in [
        (Init::He, [2.0 / 64.0, 2.0 / 576.0, 2.0 / 300.0]),
        (Init::HeFanOut, [2.0 / 64.0, 2.0 / 1152.0, 1e-4]),
        (Init::GlorotNormal, [2.0 / 128.0, 2.0 / 1728.0, 2.0 / 500.0]),
        (Init::GlorotUniform, [2.0 / 128.0, 2.0 / 1728.0, 2.0 / 500.0]),
        (Init::Gaussian001, [1e-4; 3]),
        (Init::PaperVariance, [1e-2; 3]),
    ] {
        for (name, expected) in ["conv3_3", "conv4_1", "fc7"].into_iter().zip(expected) {
            let ratio = variance(init, name) / expected;
            // Five standard errors of the variance of 4,096 normal values.
            assert!((ratio - 1.0).abs() < 5.0 * (2.0f64 / 4096.0).sqrt(), "{}, {name}: {ratio}", init.name());
        }
    }
    let uniform = Network::random(spec, Init::GlorotUniform, 5, &device()).unwrap().state_dict();
    let bound = (6.0f64 / 500.0).sqrt() as f32;
    let fc7 = &uniform.iter().find(|a| a.name == "fc7.weight").unwrap().values;
    assert!(fc7.iter().all(|value| value.is_finite()));
    let largest = fc7.iter().fold(0f32, |a, b| a.max(b.abs()));
    assert!(largest <= bound && largest > 0.999 * bound);
    assert!(uniform.iter().filter(|a| a.name.ends_with("bias")).all(|a| a.values.iter().all(|v| *v == 0.0)));
}

#[test]
fn initial_weights_depend_on_the_layer_name_and_not_on_the_network() {
    let of = |config, seed, name: &str| {
        let network = Network::random(small(config), Init::He, seed, &device()).unwrap();
        network.state_dict().into_iter().find(|array| array.name == name).unwrap().values
    };
    assert_eq!(of(Config::A, 1, "conv4_2.weight"), of(Config::E, 1, "conv4_2.weight"));
    assert_ne!(of(Config::A, 1, "conv4_2.weight"), of(Config::A, 2, "conv4_2.weight"));
    // conv4_1 and conv4_2 have the same shape at this width.
    assert_ne!(of(Config::A, 1, "conv4_2.weight"), of(Config::A, 1, "conv4_1.weight"));
    // Values are drawn in pairs; an odd number drops the last one.
    let odd = |classes| {
        Network::random(NetworkSpec { classes, head: [3, 5], ..small(Config::A) }, Init::He, 1, &device())
            .unwrap()
            .state_dict()
    };
    let (five, six) = (odd(5), odd(6));
    let last =
        |arrays: &[NamedTensor]| arrays.iter().find(|a| a.name == "fc8.weight").unwrap().values.clone();
    assert_eq!((last(&five).len(), &last(&six)[..25]), (25, last(&five).as_slice()));
}

#[test]
fn reinitialize_changes_only_its_layers_and_clears_their_biases() {
    let mut network = network(Config::A);
    let bias = NamedTensor { name: "fc7.bias".into(), shape: vec![16], values: vec![0.5; 16] };
    network.load_tensor(&bias).unwrap();
    let before = network.state_dict();
    network.reinitialize(&["fc7".into(), "conv1_1".into()], Init::GlorotNormal, 9).unwrap();
    for (old, new) in before.iter().zip(network.state_dict()) {
        let drawn = ["fc7.weight", "fc7.bias", "conv1_1.weight"].contains(&old.name.as_str());
        assert_eq!(*old != new, drawn, "{}", old.name);
    }
    assert!(network.state_dict().iter().filter(|a| a.name == "fc7.bias").all(|a| a.values == [0.0; 16]));
    assert!(matches!(network.reinitialize(&["pool1".into()], Init::He, 1), Err(Error::UnknownLayer { .. })));
}

#[test]
fn a_state_dict_round_trips_and_mismatches_are_rejected() {
    let (mut network, other) = (network(Config::C), network(Config::D));
    let arrays: Vec<NamedTensor> = network
        .state_dict()
        .into_iter()
        .map(|a| NamedTensor { values: pseudo_random(&a.name, 1.0, a.values.len()), ..a })
        .collect();
    arrays.iter().for_each(|array| network.load_tensor(array).unwrap());
    assert_eq!(network.state_dict(), arrays);
    // Memory is channels last: all channels of the first filter's first position come first.
    let weight = network.parameters().find(|p| p.name == "conv3_1.weight").unwrap();
    let file = &arrays.iter().find(|a| a.name == "conv3_1.weight").unwrap().values;
    let channels = weight.weight.shape().last();
    let memory = weight.weight.value().to_vec();
    assert!((0..channels).all(|c| memory[c] == file[c * 9]));
    let array = |name: &str, shape: &[usize]| NamedTensor {
        name: name.into(),
        shape: shape.to_vec(),
        values: vec![0.0; shape.iter().product()],
    };
    for unknown in ["conv9_1.weight", "conv1_1", "conv1_1.scale", "pool1.weight", "fc8"] {
        let error = network.load_tensor(&array(unknown, &[1])).unwrap_err();
        assert!(matches!(error, Error::UnknownParameter { ref name } if name == unknown), "{error}");
    }
    for (name, shape) in
        [("conv1_1.weight", [8, 3, 3, 5].as_slice()), ("fc8.bias", &[6]), ("fc8.weight", &[80])]
    {
        let error = network.load_tensor(&array(name, shape)).unwrap_err();
        assert!(matches!(error, Error::ParameterShape { ref got, .. } if got == shape), "{error}");
    }
    assert_eq!(network.state_dict(), arrays, "no parameter has changed");
    assert_eq!(network.layer_names().count(), 16);
    assert!(network.layer_names().eq(other.layer_names()));
}

#[test]
fn a_layer_selection_is_checked() {
    let (source, target) = (small(Config::A), small(Config::B));
    let map = LayerSelection::Layers(vec!["fc8".into(), "conv2_1".into()]);
    assert_eq!(map.layers(&source, &target).unwrap(), ["fc8", "conv2_1"]);
    let none = LayerSelection::Layers(Vec::new());
    assert!(matches!(none.check(&source, &target), Err(Error::NothingToCopy { from: "A", to: "B" })));
    let missing = LayerSelection::Layers(vec!["conv1_2".into()]);
    let message = missing.check(&source, &target).unwrap_err().to_string();
    assert_eq!(message, "config A has no layer conv1_2");
    let message = missing.check(&target, &source).unwrap_err().to_string();
    assert_eq!(message, "config A has no layer conv1_2");
    let wider = NetworkSpec { classes: 6, ..small(Config::B) };
    assert!(LayerSelection::Paper.check(&source, &wider).is_err());
    assert!(!LayerSelection::AllMatching.layers(&source, &wider).unwrap().contains(&"fc8".to_owned()));
}

#[test]
fn backward_accumulates_by_mode_and_calls_finished_for_each_layer() {
    let mut network = network(Config::A);
    let state = StepState::new(&device()).unwrap();
    let run = DropoutSeed { seed: 0, step: 0, first_sample: 0 };
    let mut done = Vec::new();
    let mut backward = |network: &mut Network, write| {
        let (logits, trace) = network.forward(images(2, 64, 64), run).unwrap();
        let loss = softmax_cross_entropy(&logits, &[1, 2], 0.5, &state).unwrap();
        let finished = &mut |p: &mut vgg_tensor::Parameter| {
            done.push(p.name.clone());
            Ok(())
        };
        network.backward_with(trace, loss.grad, write, &state, finished).unwrap();
        network.gradients()
    };
    let once = backward(&mut network, GradMode::Overwrite);
    assert_eq!(backward(&mut network, GradMode::Overwrite), once);
    let twice = backward(&mut network, GradMode::Accumulate);
    for (once, twice) in once.iter().zip(&twice) {
        let doubled: Vec<f32> = once.values.iter().map(|v| 2.0 * v).collect();
        assert_close(&twice.values, &doubled, 1e-6, &once.name);
    }
    let order: Vec<String> = network.parameters().map(|p| p.name.clone()).collect();
    assert_eq!(done[..22], order.iter().rev().cloned().collect::<Vec<_>>());
    // A forward cache of another network, and a network without trainable parameters.
    let (logits, _) = network.forward(images(2, 64, 64), run).unwrap();
    let (_, other) = Network::random(small(Config::B), Init::He, 1, &device())
        .unwrap()
        .forward(images(2, 64, 64), run)
        .unwrap();
    let loss = softmax_cross_entropy(&logits, &[1, 2], 0.5, &state).unwrap();
    assert!(matches!(
        network.backward(other, loss.grad, GradMode::Overwrite, &state),
        Err(Error::Internal(_))
    ));
    let (logits, trace) = network.forward(images(2, 64, 64), run).unwrap();
    network.parameters_mut().for_each(|p| p.trainable = false);
    let loss = softmax_cross_entropy(&logits, &[0, 0], 9.0, &state).unwrap();
    network.backward(trace, loss.grad, GradMode::Overwrite, &state).unwrap();
    assert_eq!(network.gradients(), twice);
}

#[test]
fn inputs_of_another_shape_are_rejected() {
    let network = network(Config::A);
    let run = DropoutSeed { seed: 0, step: 0, first_sample: 0 };
    let four =
        Tensor::from_slice(&pseudo_random("image", 1.0, 64 * 64 * 4), [1, 64, 64, 4], &device()).unwrap();
    for x in [images(1, 64, 32), images(1, 32, 64), images(1, 96, 96), four] {
        assert!(matches!(network.infer(&x), Err(Error::Input { .. })));
        assert!(matches!(network.forward(x.clone(), run), Err(Error::Input { .. })));
    }
    // A large batch is processed in parts, with the same logits as single images.
    let together = network.infer(&images(9, 64, 64)).unwrap().to_vec();
    let alone: Vec<f32> = (0..9)
        .flat_map(|i| network.infer(&images(9, 64, 64).images(i..i + 1).unwrap()).unwrap().to_vec())
        .collect();
    assert_close(&together, &alone, 1e-5, "nine images");
}
