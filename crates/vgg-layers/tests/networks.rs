//! Whole networks: the paper's numbers, copied layers, dense against fully connected, gradients.

use vgg_layers::{Config, DropoutSeed, Error, Init, LayerSelection, Network, NetworkSpec, PoolRounding};
use vgg_tensor::ops::{global_avg_pool2d, softmax_cross_entropy};
use vgg_tensor::{Device, Grad, GradMode, Shape, StepState, Tensor};
use vgg_testkit::{assert_close, pseudo_random};

fn device() -> Device {
    Device::cpu(2).unwrap()
}

fn small(config: Config) -> NetworkSpec {
    NetworkSpec { width: 0.125, classes: 5, head: [24, 16], crop: 64, ..NetworkSpec::paper(config) }
}

fn network(config: Config, seed: u64) -> Network {
    Network::random(small(config), Init::He, seed, &device()).unwrap()
}

fn images(n: usize, h: usize, w: usize) -> Tensor {
    Tensor::from_slice(&pseudo_random("image", 1.0, n * h * w * 3), [n, h, w, 3], &device()).unwrap()
}

#[test]
fn table_2_parameters_and_receptive_fields() {
    // Parameters, parameters of convolutions, receptive fields of pool5 and fc6, millions of
    // multiply-accumulates.
    let expected = [
        (Config::A, 132_863_336, 9_220_480, 150, 342, 7609),
        (Config::ALrn, 132_863_336, 9_220_480, 150, 342, 7609),
        (Config::B, 133_047_848, 9_404_992, 156, 348, 11308),
        (Config::B5x5, 134_503_528, 10_860_672, 156, 348, 9356),
        (Config::C, 133_638_952, 9_996_096, 156, 348, 11771),
        (Config::D, 138_357_544, 14_714_688, 212, 404, 15470),
        (Config::E, 143_667_240, 20_024_384, 268, 460, 19632),
    ];
    for (config, parameters, conv, pool5, fc6, mega_macs) in expected {
        let s = NetworkSpec::paper(config.clone()).summary().unwrap();
        assert_eq!((s.parameters, s.conv_parameters), (parameters, conv), "{config}");
        assert_eq!((s.receptive_field_last_pool, s.receptive_field_fc6), (pool5, fc6), "{config}");
        assert_eq!((s.macs + 500_000) / 1_000_000, mega_macs, "{config}");
    }
    let layers: Vec<usize> = Config::all().map(|config| config.weight_layers()).collect();
    assert_eq!(layers, [11, 11, 13, 8, 16, 16, 19]);
}

#[test]
fn width_rounds_to_multiples_of_eight() {
    let spec = NetworkSpec { width: 0.3, ..small(Config::D) };
    let filters: Vec<usize> =
        spec.layers().unwrap().iter().filter(|l| l.name.starts_with("conv")).map(|l| l.output[2]).collect();
    assert_eq!(filters, [16, 16, 40, 40, 80, 80, 80, 152, 152, 152, 152, 152, 152]);
    for bad in [
        NetworkSpec { crop: 100, ..small(Config::A) },
        NetworkSpec { width: 0.0, ..small(Config::A) },
        NetworkSpec { classes: 0, ..small(Config::A) },
        NetworkSpec { dropout: 1.0, ..small(Config::A) },
    ] {
        assert!(matches!(bad.layers(), Err(Error::Spec(_))));
    }
}

fn layers(map: &LayerSelection, from: Config, to: Config) -> Result<Vec<String>, Error> {
    map.layers(&small(from), &small(to))
}

#[test]
fn the_paper_selection_is_four_convolutions_and_the_fully_connected_layers() {
    for config in [Config::B, Config::C, Config::D, Config::E] {
        let copied = layers(&LayerSelection::Paper, Config::A, config).unwrap();
        assert_eq!(copied, ["conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8"]);
    }
}

#[test]
fn networks_grow_by_the_names_of_layers() {
    let new = |from, to: Config| {
        let copied = layers(&LayerSelection::AllMatching, from, to.clone()).unwrap();
        let all = network(to, 2);
        let new = all.layer_names().filter(|name| !copied.iter().any(|copied| copied == name));
        new.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(new(Config::A, Config::B), ["conv1_2", "conv2_2"]);
    assert_eq!(new(Config::B, Config::C), ["conv3_3", "conv4_3", "conv5_3"]);
    assert_eq!(new(Config::C, Config::D), ["conv3_3", "conv4_3", "conv5_3"], "1x1 does not fit 3x3");
    assert_eq!(new(Config::D, Config::E), ["conv3_4", "conv4_4", "conv5_4"]);
}

#[test]
fn a_layer_that_cannot_be_copied_is_named() {
    let error = layers(&LayerSelection::Paper, Config::A, Config::B5x5).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer conv1_1 cannot be copied: its weights have shape [8, 3, 3, 3] in the source \
         and [8, 3, 5, 5] in this network"
    );
    let map = LayerSelection::Layers(vec!["conv3_2".into()]);
    let error = layers(&map, Config::A, Config::B5x5).unwrap_err();
    assert_eq!(error.to_string(), "config B-5x5 has no layer conv3_2");
}

#[test]
fn dense_on_a_crop_equals_the_fully_connected_network() {
    for config in Config::all() {
        let network = network(config.clone(), 3);
        let x = images(2, 64, 64);
        let logits = network.infer(&x).unwrap().to_vec();
        let dense = network.into_fully_convolutional().unwrap();
        let map = dense.score_map(&x).unwrap();
        assert_eq!(map.shape().dims(), [2, 1, 1, 5]);
        // The same f32 sums in two orders.
        assert_close(&global_avg_pool2d(&map).unwrap().to_vec(), &logits, 1e-5, config.name());
    }
}

#[test]
fn the_size_of_a_dense_map_follows_the_image_and_the_rounding() {
    let mut dense = network(Config::A, 3).into_fully_convolutional().unwrap();
    let size = |d: &vgg_layers::DenseNetwork, h, w| {
        d.score_map(&images(1, h, w)).unwrap().shape().dims()[1..3].to_vec()
    };
    // 159 columns are 4 after pool5 if pooling rounds down, and 5 if it rounds up.
    assert_eq!(size(&dense, 96, 159), [2, 3]);
    dense.set_pool_rounding(PoolRounding::Ceil);
    assert_eq!(size(&dense, 96, 159), [2, 4]);
    let error = dense.score_map(&images(1, 63, 100)).unwrap_err();
    assert!(error.to_string().contains("at least 64"), "{error}");
}

#[test]
fn frozen_layers_get_no_gradient() {
    let mut network = network(Config::B, 4);
    network.train_only(&["fc7".into(), "fc8".into()]).unwrap();
    let run = DropoutSeed { seed: 0, step: 0, first_sample: 0 };
    let (logits, trace) = network.forward(images(2, 64, 64), run).unwrap();
    let state = StepState::new(&device()).unwrap();
    let loss = softmax_cross_entropy(&logits, &[1, 2], 0.5, &state).unwrap();
    network.backward(trace, loss.grad, GradMode::Overwrite, &state).unwrap();
    let with: Vec<&str> =
        network.parameters().filter(|p| p.grad().is_some()).map(|p| p.name.as_str()).collect();
    assert_eq!(with, ["fc7.weight", "fc7.bias", "fc8.weight", "fc8.bias"]);
    assert!(network.train_only(&["fc9".into()]).is_err());
}

#[test]
fn micro_batches_accumulate_the_gradient_of_the_batch() {
    let state = StepState::new(&device()).unwrap();
    let targets = [0, 4, 2, 1, 3];
    let gradients = |split: &[usize]| {
        let mut network = network(Config::ALrn, 5);
        let x = images(5, 64, 64);
        let mut first = 0;
        for (i, n) in split.iter().enumerate() {
            let run = DropoutSeed { seed: 9, step: 2, first_sample: first };
            let (logits, trace) = network.forward(x.images(first..first + n).unwrap(), run).unwrap();
            let loss = softmax_cross_entropy(&logits, &targets[first..first + n], 0.2, &state).unwrap();
            let write = if i == 0 { GradMode::Overwrite } else { GradMode::Accumulate };
            network.backward(trace, loss.grad, write, &state).unwrap();
            first += n;
        }
        network.gradients()
    };
    let whole = gradients(&[5]);
    let parts = gradients(&[2, 2, 1]);
    assert!(parts.iter().map(|array| &array.name).eq(whole.iter().map(|array| &array.name)));
    for (part, whole) in parts.iter().zip(&whole) {
        // The single image uses other convolution tiles, which changes a few units in the last place.
        assert_close(&part.values, &whole.values, 5e-6, &whole.name);
    }
    assert_eq!(gradients(&[2, 2, 1]), gradients(&[2, 2, 1]));
}

#[test]
fn gradients_are_bitwise_identical_for_any_number_of_threads() {
    let gradients = |threads| {
        let device = Device::cpu(threads).unwrap();
        let mut network = Network::random(small(Config::C), Init::He, 6, &device).unwrap();
        let x = Tensor::from_slice(&pseudo_random("image", 1.0, 6 * 64 * 64 * 3), [6, 64, 64, 3], &device)
            .unwrap();
        let run = DropoutSeed { seed: 1, step: 1, first_sample: 0 };
        let (logits, trace) = network.forward(x, run).unwrap();
        let state = StepState::new(&device).unwrap();
        let loss = softmax_cross_entropy(&logits, &[0, 1, 2, 3, 4, 0], 1.0, &state).unwrap();
        network.backward(trace, loss.grad, GradMode::Overwrite, &state).unwrap();
        network.gradients()
    };
    let one = gradients(1);
    assert!(one.len() == 32 && one == gradients(2) && one == gradients(4));
}

#[test]
fn a_wrong_input_is_rejected_with_both_shapes() {
    let error = network(Config::A, 1).infer(&images(1, 32, 64)).unwrap_err();
    assert_eq!(error.to_string(), "the network takes images of shape [N, 64, 64, 3], but got [1, 32, 64, 3]");
}

#[test]
fn an_error_names_its_layer() {
    let mut network = network(Config::B, 1);
    let run = DropoutSeed { seed: 0, step: 0, first_sample: 0 };
    let (_, trace) = network.forward(images(1, 64, 64), run).unwrap();
    // The gradient of three images for the forward cache of one.
    let zeros = |dims: &[usize]| Tensor::zeros(Shape::from_slice(dims).unwrap(), &device()).unwrap();
    let wrong = Grad { grad: zeros(&[3, 5]), bias_grad: zeros(&[5]) };
    let error =
        network.backward(trace, wrong, GradMode::Overwrite, &StepState::new(&device()).unwrap()).unwrap_err();
    assert!(error.to_string().starts_with("layer fc8: "), "{error}");
}
