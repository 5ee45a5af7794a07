//! Layers: names, shapes, limits of sizes, activations, rounding of pooling, and timing.

mod common;

use std::sync::Arc;

use common::{device, images, network, small};
use vgg_layers::{
    Config, DropoutSeed, Error, Init, LayerKind, Network, NetworkSpec, Pass, PoolRounding, Stopwatch,
};
use vgg_tensor::ops::{conv2d, linear, max_pool2d, softmax_cross_entropy};
use vgg_tensor::{GradMode, StepState, Tensor};
use vgg_testkit::assert_close;

#[test]
fn configurations_have_the_papers_names_and_kernels() {
    // Name, and number of convolutions of each block.
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
            (name, name.to_owned(), config.clone())
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
    assert_eq!(error, "unknown configuration F; it must be one of A, A-LRN, B, B-5x5, C, D, E");
}

#[test]
fn file_shapes_match_caffe_and_pytorch() {
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
    // The first convolution has 3. Pooling adds its stride and doubles the stride of later layers.
    let fields =
        ["conv1_1", "lrn1", "pool1", "conv2_1", "pool2", "conv3_1"].map(|name| row(name).receptive_field);
    assert_eq!(fields, [3, 3, 4, 8, 10, 18]);
    assert_eq!((summary.config, summary.weight_layers), ("A-LRN", 11));
    // 7.43 million.
    assert_eq!(summary.conv_activations, 7_426_048);
    assert_eq!(NetworkSpec::paper(Config::A).parameter_count().unwrap(), 132_863_336);
}

#[test]
fn sizes_beyond_their_limits_are_rejected() {
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
fn activations_match_the_layers_run_one_by_one() {
    let config = Config::ALrn;
    let fully_connected = network(config.clone());
    let dense = network(config).into_fully_convolutional().unwrap();
    let parameter = |name: &str| fully_connected.parameters().find(|p| p.name == name).unwrap();
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
    let pool1 = max_pool2d::infer(&lrn1, PoolRounding::Floor).unwrap();
    close("pool1", &pool1);
    close("conv2_1", &conv(&pool1, "conv2_1"));
    // fc7 and fc8 are matrix products at each position of the fc6 map.
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
fn a_dense_network_keeps_the_rounding_of_training_until_it_is_set() {
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
    let run = DropoutSeed { seed: 0, step: 0, first_sample: 0 };
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
    network.backward(trace, loss.grad, GradMode::Overwrite, &state).unwrap();
    let backward = stopwatch.take();
    let of = |pass| {
        backward.iter().filter(|time| time.pass == pass).map(|time| time.layer.as_str()).collect::<Vec<_>>()
    };
    let with_weights = [
        "fc8", "fc7", "fc6", "conv5_2", "conv5_1", "conv4_2", "conv4_1", "conv3_2", "conv3_1", "conv2_1",
        "conv1_1",
    ];
    assert_eq!(of(Pass::GradWeight), with_weights);
    // The gradient of the images is not computed, and dropout has no backward pass of its own.
    let through = [
        "fc8", "fc7", "fc6", "pool5", "conv5_2", "conv5_1", "pool4", "conv4_2", "conv4_1", "pool3",
        "conv3_2", "conv3_1", "pool2", "conv2_1", "pool1", "lrn1",
    ];
    assert_eq!(of(Pass::GradInput), through);
    network.set_stopwatch(None);
    network.infer(&images(1, 64, 64)).unwrap();
    assert_eq!(stopwatch.take(), []);
    // The time of fused pooling counts for the convolution.
    let mut dense = network.into_fully_convolutional().unwrap();
    dense.set_stopwatch(Some(stopwatch.clone()));
    dense.score_map(&images(1, 64, 64)).unwrap();
    let layers: Vec<String> = stopwatch.take().into_iter().map(|time| time.layer).collect();
    assert!(layers.contains(&"pool1".to_owned()) && !layers.contains(&"pool2".to_owned()), "{layers:?}");
}
