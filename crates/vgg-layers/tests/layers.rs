//! Layers by name: shapes, limits, initial weights, activations, times, parameters in and out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::sync::Arc;

use vgg_layers::{
    Config, DropoutRun, Error, Init, LayerKind, NamedArray, Network, NetworkSpec, Pass, PoolRounding,
    Stopwatch, TransferMap,
};
use vgg_tensor::ops::{conv2d, linear, max_pool2d, softmax_cross_entropy};
use vgg_tensor::{Device, StepState, Tensor, Write};
use vgg_testkit::{assert_close, hashed};

fn device() -> Device {
    Device::cpu(1).unwrap()
}

fn small(config: Config) -> NetworkSpec {
    NetworkSpec { width: 1.0 / 64.0, classes: 5, head: [24, 16], crop: 64, ..NetworkSpec::paper(config) }
}

fn network(config: Config) -> Network {
    Network::random(small(config), Init::He, 3, &device()).unwrap()
}

fn images(n: usize, h: usize, w: usize) -> Tensor {
    Tensor::from_slice(&hashed("image", 1.0, n * h * w * 3), [n, h, w, 3], &device()).unwrap()
}

#[test]
fn configurations_have_the_papers_names_and_kernels() {
    // Names of convolutions whose kernels are not 3x3, and the layers of each block.
    let expected: [(&str, &[usize]); 7] = [
        ("A", &[1, 1, 2, 2, 2]),
        ("A-LRN", &[1, 1, 2, 2, 2]),
        ("B", &[2, 2, 2, 2, 2]),
        ("B-5x5", &[1, 1, 1, 1, 1]),
        ("C", &[2, 2, 3, 3, 3]),
        ("D", &[2, 2, 3, 3, 3]),
        ("E", &[2, 2, 4, 4, 4]),
    ];
    for (config, (name, blocks)) in Config::all().zip(expected) {
        assert_eq!(
            (config.name(), config.to_string(), name.to_lowercase().parse().unwrap()),
            (name, name.to_owned(), config)
        );
        let mut layers = Vec::new();
        for (block, convolutions) in blocks.iter().enumerate() {
            for number in 1..=*convolutions {
                let kernel = match (name, number) {
                    ("B-5x5", _) => 5,
                    ("C", 3) => 1,
                    _ => 3,
                };
                layers.push((format!("conv{}_{number}", block + 1), LayerKind::Conv { kernel }));
                if name == "A-LRN" && block == 0 {
                    layers.push(("lrn1".into(), LayerKind::Lrn));
                }
            }
            layers.push((format!("pool{}", block + 1), LayerKind::MaxPool));
        }
        for (fc, drop, relu) in [("fc6", "drop6", true), ("fc7", "drop7", true), ("fc8", "", false)] {
            layers.push((fc.into(), LayerKind::Linear { relu }));
            if !drop.is_empty() {
                layers.push((drop.into(), LayerKind::Dropout));
            }
        }
        let ours: Vec<_> =
            NetworkSpec::paper(config).layers().unwrap().into_iter().map(|l| (l.name, l.kind)).collect();
        assert_eq!(ours, layers, "{name}");
    }
    let error = "F".parse::<Config>().unwrap_err().to_string();
    assert_eq!(error, "there is no configuration F; it is one of A, A-LRN, B, B-5x5, C, D, E");
}

#[test]
fn files_have_the_shapes_of_caffe_and_torch() {
    let shapes = NetworkSpec { classes: 10, ..NetworkSpec::paper(Config::C) }.file_shapes().unwrap();
    let of = |name: &str| shapes.iter().find(|(known, _)| known == name).unwrap().1.clone();
    assert_eq!(shapes.len(), 32);
    assert_eq!(
        shapes[..2],
        [("conv1_1.weight".to_owned(), vec![64, 3, 3, 3]), ("conv1_1.bias".to_owned(), vec![64])]
    );
    assert_eq!(of("conv3_3.weight"), [256, 256, 1, 1]);
    assert_eq!(of("conv4_1.weight"), [512, 256, 3, 3]);
    assert_eq!(of("fc6.weight"), [4096, 25088]);
    assert_eq!((of("fc8.weight"), of("fc8.bias")), (vec![10, 4096], vec![10]));
    let summary = NetworkSpec::paper(Config::ALrn).summary().unwrap();
    let row = |name: &str| summary.layers.iter().find(|row| row.name == name).unwrap();
    assert_eq!(row("conv1_1").macs, 224 * 224 * 64 * 27);
    assert_eq!((row("conv1_1").parameters, row("conv1_1").output), (64 * 27 + 64, [224, 224, 64]));
    assert_eq!((row("fc7").macs, row("fc7").parameters), (4096 * 4096, 4096 * 4096 + 4096));
    assert_eq!((row("pool5").output, row("pool5").parameters, row("pool5").macs), ([7, 7, 512], 0, 0));
    let kinds = ["conv1_1", "lrn1", "pool1", "fc6", "drop6"].map(|name| row(name).kind.as_str());
    assert_eq!(
        kinds,
        ["conv 3x3", "local response normalisation", "max-pool 2x2", "fully connected", "dropout 0.5"]
    );
    // 3 of the first convolution; pooling adds one, and doubles what comes after.
    let fields =
        ["conv1_1", "lrn1", "pool1", "conv2_1", "pool2", "conv3_1"].map(|name| row(name).receptive_field);
    assert_eq!(fields, [3, 3, 4, 8, 10, 18]);
    assert_eq!((summary.config, summary.weight_layers), ("A-LRN", 11));
    // 7.43 million of the fact sheet.
    assert_eq!(summary.conv_activations, 7_426_048);
    assert_eq!(NetworkSpec::paper(Config::A).parameter_count().unwrap(), 132_863_336);
}

#[test]
fn sizes_that_make_no_network_are_refused_at_their_limits() {
    let base = small(Config::A);
    let sound = [
        NetworkSpec { crop: 32, ..base.clone() },
        NetworkSpec { crop: 1024, ..base.clone() },
        NetworkSpec { width: 4.0, ..base.clone() },
        NetworkSpec { width: 1e-9, ..base.clone() },
        NetworkSpec { classes: 1, head: [1, 1 << 20], ..base.clone() },
        NetworkSpec { dropout: 0.0, ..base.clone() },
        NetworkSpec { dropout: 0.999, ..base.clone() },
    ];
    sound.iter().for_each(|spec| drop(spec.layers().unwrap()));
    for (spec, word) in [
        (NetworkSpec { crop: 0, ..base.clone() }, "crop 0"),
        (NetworkSpec { crop: 48, ..base.clone() }, "crop 48"),
        (NetworkSpec { crop: 1056, ..base.clone() }, "crop 1056"),
        (NetworkSpec { width: 0.0, ..base.clone() }, "width 0"),
        (NetworkSpec { width: 4.01, ..base.clone() }, "width 4.01"),
        (NetworkSpec { width: f64::NAN, ..base.clone() }, "width NaN"),
        (NetworkSpec { classes: 0, ..base.clone() }, "classes 0"),
        (NetworkSpec { head: [0, 16], ..base.clone() }, "head [0, 16]"),
        (NetworkSpec { head: [16, (1 << 20) + 1], ..base.clone() }, "1048577"),
        (NetworkSpec { dropout: 1.0, ..base.clone() }, "dropout 1"),
        (NetworkSpec { dropout: -0.1, ..base }, "dropout -0.1"),
    ] {
        let message = spec.layers().unwrap_err().to_string();
        assert!(message.contains(word) && Network::new(spec, &device()).is_err(), "{message}");
    }
}

#[test]
fn initial_weights_have_the_variance_of_their_layer() {
    // Wide enough for a standard error below 1 %.
    let spec =
        NetworkSpec { width: 0.25, classes: 40, head: [300, 200], crop: 64, ..NetworkSpec::paper(Config::C) };
    let variance = |init: Init, name: &str| {
        let network = Network::random(spec.clone(), init, 5, &device()).unwrap();
        let array =
            network.export().into_iter().find(|array| array.name == format!("{name}.weight")).unwrap();
        array.values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / array.values.len() as f64
    };
    // A 1x1 layer of 64 to 64, a 3x3 of 64 to 128, and a fully connected one of 300 to 200.
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
            // Five standard errors of 4,096 normal values.
            assert!((ratio - 1.0).abs() < 5.0 * (2.0f64 / 4096.0).sqrt(), "{}, {name}: {ratio}", init.name());
        }
    }
    let uniform = Network::random(spec, Init::GlorotUniform, 5, &device()).unwrap().export();
    let bound = (6.0f64 / 500.0).sqrt() as f32;
    let largest = uniform
        .iter()
        .find(|a| a.name == "fc7.weight")
        .unwrap()
        .values
        .iter()
        .fold(0f32, |a, b| a.max(b.abs()));
    assert!(largest <= bound && largest > 0.999 * bound);
    assert!(uniform.iter().filter(|a| a.name.ends_with("bias")).all(|a| a.values.iter().all(|v| *v == 0.0)));
}

#[test]
fn layers_of_one_name_draw_the_same_in_every_network_and_others_do_not() {
    let of = |config, seed, name: &str| {
        let network = Network::random(small(config), Init::He, seed, &device()).unwrap();
        network.export().into_iter().find(|array| array.name == name).unwrap().values
    };
    assert_eq!(of(Config::A, 1, "conv4_2.weight"), of(Config::E, 1, "conv4_2.weight"));
    assert_ne!(of(Config::A, 1, "conv4_2.weight"), of(Config::A, 2, "conv4_2.weight"));
    // conv4_1 and conv4_2 have one shape at this width.
    assert_ne!(of(Config::A, 1, "conv4_2.weight"), of(Config::A, 1, "conv4_1.weight"));
    // An odd number of values drops the last of a pair.
    let odd = |classes| {
        Network::random(NetworkSpec { classes, head: [3, 5], ..small(Config::A) }, Init::He, 1, &device())
            .unwrap()
            .export()
    };
    let (five, six) = (odd(5), odd(6));
    let last = |arrays: &[NamedArray]| arrays.iter().find(|a| a.name == "fc8.weight").unwrap().values.clone();
    assert_eq!((last(&five).len(), &last(&six)[..25]), (25, last(&five).as_slice()));
}

#[test]
fn drawing_layers_anew_leaves_the_others_and_clears_biases() {
    let mut network = network(Config::A);
    let bias = NamedArray { name: "fc7.bias".into(), shape: vec![16], values: vec![0.5; 16] };
    network.import(&bias).unwrap();
    let before = network.export();
    network.draw(&["fc7".into(), "conv1_1".into()], Init::GlorotNormal, 9).unwrap();
    for (old, new) in before.iter().zip(network.export()) {
        let drawn = ["fc7.weight", "fc7.bias", "conv1_1.weight"].contains(&old.name.as_str());
        assert_eq!(*old != new, drawn, "{}", old.name);
    }
    assert!(network.export().iter().filter(|a| a.name == "fc7.bias").all(|a| a.values == [0.0; 16]));
    assert!(matches!(network.draw(&["pool1".into()], Init::He, 1), Err(Error::UnknownLayer { .. })));
}

#[test]
fn activations_are_those_of_the_layers_one_by_one() {
    let config = Config::ALrn;
    let classic = network(config);
    let dense = network(config).into_fully_convolutional().unwrap();
    let parameter = |name: &str| classic.parameters().find(|p| p.name == name).unwrap();
    let conv = |x: &Tensor, name: &str| {
        let (weight, bias) = (parameter(&format!("{name}.weight")), parameter(&format!("{name}.bias")));
        conv2d::forward(x, &weight.weight, &bias.weight, conv2d::Conv2d { pad: 1, relu: true }).unwrap()
    };
    let close = |layer: &str, expected: &Tensor| {
        let ours = dense.activations(&images(1, 64, 96), layer).unwrap();
        assert_eq!(ours.shape(), expected.shape(), "{layer}");
        assert_close(&ours.to_vec(), &expected.to_vec(), 2e-6, layer);
        assert_eq!(dense.channels(layer).unwrap(), ours.shape().last());
    };
    let conv1_1 = conv(&images(1, 64, 96), "conv1_1");
    close("conv1_1", &conv1_1);
    let lrn1 = vgg_tensor::ops::lrn::forward(
        &conv1_1,
        vgg_tensor::ops::lrn::Lrn::alexnet(vgg_tensor::ops::lrn::LrnStyle::AlexNet),
    )
    .unwrap()
    .0;
    close("lrn1", &lrn1);
    let pool1 = max_pool2d::infer(&lrn1, max_pool2d::Rounding::Floor).unwrap();
    close("pool1", &pool1);
    close("conv2_1", &conv(&pool1, "conv2_1"));
    // fc7 and fc8 on the map of fc6 are products at each of its cells.
    let fc6 = dense.activations(&images(1, 64, 96), "fc6").unwrap();
    assert_eq!(fc6.shape().dims(), [1, 1, 2, 24]);
    let cells = Tensor::from_slice(&fc6.to_vec(), [2, 24], &device()).unwrap();
    let fc7 = linear::forward(
        &cells,
        &parameter("fc7.weight").weight,
        &parameter("fc7.bias").weight,
        linear::Linear { relu: true },
    )
    .unwrap();
    assert_close(
        &dense.activations(&images(1, 64, 96), "drop7").unwrap().to_vec(),
        &fc7.to_vec(),
        2e-6,
        "drop7",
    );
    assert_close(
        &dense.activations(&images(1, 64, 96), "fc8").unwrap().to_vec(),
        &dense.score_map(&images(1, 64, 96)).unwrap().to_vec(),
        1e-7,
        "fc8",
    );
    assert!(
        dense.score_map(&images(1, 64, 96)).unwrap().to_vec().iter().any(|v| *v < 0.0),
        "no ReLU on scores"
    );
    assert_eq!(
        (dense.channels("fc6").unwrap(), dense.channels("pool5").unwrap(), dense.channels("fc8").unwrap()),
        (24, 8, 5)
    );
    for error in [dense.activations(&images(1, 64, 64), "fc9").unwrap_err(), dense.channels("").unwrap_err()]
    {
        assert!(matches!(error, Error::UnknownLayer { .. }), "{error}");
    }
    let narrow = dense.activations(&images(1, 64, 63), "conv1_1").unwrap_err().to_string();
    assert!(narrow.contains("sides of at least 64") && narrow.contains("[1, 64, 63, 3]"), "{narrow}");
}

#[test]
fn a_trained_rounding_is_the_dense_networks_until_it_is_set() {
    let spec = NetworkSpec { pool_rounding: PoolRounding::Ceil, ..small(Config::A) };
    let mut dense =
        Network::random(spec, Init::He, 3, &device()).unwrap().into_fully_convolutional().unwrap();
    let columns =
        |dense: &vgg_layers::DenseNetwork| dense.score_map(&images(1, 64, 95)).unwrap().shape().dims()[2];
    assert_eq!((columns(&dense), dense.spec().classes), (2, 5));
    dense.set_pool_rounding(PoolRounding::Floor);
    assert_eq!(columns(&dense), 1);
}

#[test]
fn a_stopwatch_times_each_layer_and_pass_once() {
    let mut network = network(Config::ALrn);
    let stopwatch = Arc::new(Stopwatch::new(&device()));
    network.set_stopwatch(Some(stopwatch.clone()));
    let run = DropoutRun { seed: 0, step: 0, first_sample: 0 };
    let (logits, trace) = network.forward(images(2, 64, 64), run).unwrap();
    let state = StepState::new(&device()).unwrap();
    let loss = softmax_cross_entropy(&logits, &[1, 2], 0.5, &state).unwrap();
    let names: Vec<String> =
        small(Config::ALrn).layers().unwrap().into_iter().map(|layer| layer.name).collect();
    let forward = stopwatch.take();
    assert!(
        forward.iter().all(|time| time.pass == Pass::Forward && time.seconds > 0.0 && time.seconds < 60.0)
    );
    assert_eq!(forward.iter().map(|time| &time.layer).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    network.backward(trace, loss.grad, Write::Overwrite, &state).unwrap();
    let backward = stopwatch.take();
    let of = |pass| {
        backward.iter().filter(|time| time.pass == pass).map(|time| time.layer.as_str()).collect::<Vec<_>>()
    };
    let with_weights = [
        "fc8", "fc7", "fc6", "conv5_2", "conv5_1", "conv4_2", "conv4_1", "conv3_2", "conv3_1", "conv2_1",
        "conv1_1",
    ];
    assert_eq!(of(Pass::BackwardWeights), with_weights);
    // Nothing asks for the gradient of the images; dropout costs nothing.
    let through = [
        "fc8", "fc7", "fc6", "pool5", "conv5_2", "conv5_1", "pool4", "conv4_2", "conv4_1", "pool3",
        "conv3_2", "conv3_1", "pool2", "conv2_1", "pool1", "lrn1",
    ];
    assert_eq!(of(Pass::BackwardData), through);
    network.set_stopwatch(None);
    network.infer(&images(1, 64, 64)).unwrap();
    assert_eq!(stopwatch.take(), []);
    // A pooling that a convolution does itself counts there.
    let mut dense = network.into_fully_convolutional().unwrap();
    dense.set_stopwatch(Some(stopwatch.clone()));
    dense.score_map(&images(1, 64, 64)).unwrap();
    let layers: Vec<String> = stopwatch.take().into_iter().map(|time| time.layer).collect();
    assert!(layers.contains(&"pool1".to_owned()) && !layers.contains(&"pool2".to_owned()), "{layers:?}");
}

#[test]
fn parameters_go_in_as_they_come_out_and_what_does_not_fit_is_refused() {
    let (mut network, other) = (network(Config::C), network(Config::D));
    let arrays: Vec<NamedArray> = network
        .export()
        .into_iter()
        .map(|a| NamedArray { values: hashed(&a.name, 1.0, a.values.len()), ..a })
        .collect();
    arrays.iter().for_each(|array| network.import(array).unwrap());
    assert_eq!(network.export(), arrays);
    // In memory channels come last: the first filter's first pixel, all channels.
    let weight = network.parameters().find(|p| p.name == "conv3_1.weight").unwrap();
    let file = &arrays.iter().find(|a| a.name == "conv3_1.weight").unwrap().values;
    let channels = weight.weight.shape().last();
    let memory = weight.weight.value().to_vec();
    assert!((0..channels).all(|c| memory[c] == file[c * 9]));
    let array = |name: &str, shape: &[usize]| NamedArray {
        name: name.into(),
        shape: shape.to_vec(),
        values: vec![0.0; shape.iter().product()],
    };
    for unknown in ["conv9_1.weight", "conv1_1", "conv1_1.scale", "pool1.weight", "fc8"] {
        let error = network.import(&array(unknown, &[1])).unwrap_err();
        assert!(matches!(error, Error::UnknownParameter { ref name } if name == unknown), "{error}");
    }
    for (name, shape) in
        [("conv1_1.weight", [8, 3, 3, 5].as_slice()), ("fc8.bias", &[6]), ("fc8.weight", &[80])]
    {
        let error = network.import(&array(name, shape)).unwrap_err();
        assert!(matches!(error, Error::ParameterShape { ref got, .. } if got == shape), "{error}");
    }
    assert_eq!(network.export(), arrays, "nothing was changed");
    assert_eq!(network.layer_names().count(), 16);
    assert!(network.layer_names().eq(other.layer_names()));
}

#[test]
fn copies_take_the_named_layers_and_check_them_before() {
    let source = network(Config::A);
    let mut target = Network::random(small(Config::B), Init::He, 8, &device()).unwrap();
    let before = target.export();
    let map = TransferMap::Layers(vec!["fc8".into(), "conv2_1".into()]);
    let report = target.copy_from(&source, &map).unwrap();
    assert_eq!(report.copied, ["conv2_1", "fc8"]);
    assert_eq!(report.drawn.len(), 11);
    let theirs = source.export();
    for (old, new) in before.iter().zip(target.export()) {
        let copied = ["conv2_1.weight", "fc8.weight"].contains(&new.name.as_str());
        assert_eq!(*old != new, copied, "{}", new.name);
        assert!(!copied || theirs.contains(&new));
    }
    let none = TransferMap::Layers(Vec::new());
    assert!(matches!(
        none.check(source.spec(), target.spec()),
        Err(Error::NothingToCopy { from: "A", to: "B" })
    ));
    let missing = TransferMap::Layers(vec!["conv1_2".into()]);
    let message = missing.check(source.spec(), target.spec()).unwrap_err().to_string();
    assert_eq!(message, "config A has no layer conv1_2");
    let message = missing.check(target.spec(), source.spec()).unwrap_err().to_string();
    assert_eq!(message, "config A has no layer conv1_2");
    let wider = NetworkSpec { classes: 6, ..small(Config::B) };
    assert!(TransferMap::Paper.check(source.spec(), &wider).is_err());
    assert!(!TransferMap::AllMatching.layers(source.spec(), &wider).unwrap().contains(&"fc8".to_owned()));
}

#[test]
fn backward_adds_where_it_is_told_and_says_when_each_layer_is_done() {
    let mut network = network(Config::A);
    let state = StepState::new(&device()).unwrap();
    let run = DropoutRun { seed: 0, step: 0, first_sample: 0 };
    let mut done = Vec::new();
    let mut backward = |network: &mut Network, write| {
        let (logits, trace) = network.forward(images(2, 64, 64), run).unwrap();
        let loss = softmax_cross_entropy(&logits, &[1, 2], 0.5, &state).unwrap();
        let finished = &mut |p: &mut vgg_tensor::Parameter| {
            done.push(p.name.clone());
            Ok(())
        };
        network.backward_with(trace, loss.grad, write, &state, finished).unwrap();
        network.export_gradients()
    };
    let once = backward(&mut network, Write::Overwrite);
    assert_eq!(backward(&mut network, Write::Overwrite), once);
    let twice = backward(&mut network, Write::Accumulate);
    for (once, twice) in once.iter().zip(&twice) {
        let doubled: Vec<f32> = once.values.iter().map(|v| 2.0 * v).collect();
        assert_close(&twice.values, &doubled, 1e-6, &once.name);
    }
    let order: Vec<String> = network.parameters().map(|p| p.name.clone()).collect();
    assert_eq!(done[..22], order.iter().rev().cloned().collect::<Vec<_>>());
    // A trace of another network, and a network of which nothing learns.
    let (logits, _) = network.forward(images(2, 64, 64), run).unwrap();
    let (_, other) = Network::random(small(Config::B), Init::He, 1, &device())
        .unwrap()
        .forward(images(2, 64, 64), run)
        .unwrap();
    let loss = softmax_cross_entropy(&logits, &[1, 2], 0.5, &state).unwrap();
    assert!(matches!(network.backward(other, loss.grad, Write::Overwrite, &state), Err(Error::Spec(_))));
    let (logits, trace) = network.forward(images(2, 64, 64), run).unwrap();
    network.parameters_mut().for_each(|p| p.trainable = false);
    let loss = softmax_cross_entropy(&logits, &[0, 0], 9.0, &state).unwrap();
    network.backward(trace, loss.grad, Write::Overwrite, &state).unwrap();
    assert_eq!(network.export_gradients(), twice);
}

#[test]
fn inputs_of_another_shape_are_refused() {
    let network = network(Config::A);
    let run = DropoutRun { seed: 0, step: 0, first_sample: 0 };
    let four = Tensor::from_slice(&hashed("image", 1.0, 64 * 64 * 4), [1, 64, 64, 4], &device()).unwrap();
    for x in [images(1, 64, 32), images(1, 32, 64), images(1, 96, 96), four] {
        assert!(matches!(network.infer(&x), Err(Error::Input { .. })));
        assert!(matches!(network.forward(x.clone(), run), Err(Error::Input { .. })));
    }
    // Many images go through in parts, to the same logits as one by one.
    let together = network.infer(&images(9, 64, 64)).unwrap().to_vec();
    let alone: Vec<f32> = (0..9)
        .flat_map(|i| network.infer(&images(9, 64, 64).images(i..i + 1).unwrap()).unwrap().to_vec())
        .collect();
    assert_close(&together, &alone, 1e-5, "nine images");
}
