//! The values of files written for Caffe, torchvision and timm.
//!
//! A Caffe model is decoded with message types from caffe.proto and computed from its two files alone, the
//! weights and the prototxt, with plain f64 loops by Caffe's rules.

mod caffe_file;

use std::collections::{BTreeMap, HashSet};

use caffe_file::*;
use ndarray::Array4;
use vgg_files::TensorFile;
use vgg_layers::{Config, LrnStyle, NamedTensor, Network, NetworkSpec, PoolRounding};
use vgg_tensor::{Device, Tensor};
use vgg_testkit::{assert_close, pseudo_random};
use vgg_tests::pseudo_random_network;
use vgg_weights::{ChannelOrder, Target, WeightsMetadata, convert, save};

fn spec(config: Config, lrn_style: LrnStyle, pool_rounding: PoolRounding) -> NetworkSpec {
    NetworkSpec {
        width: 1.0 / 32.0,
        classes: 5,
        head: [12, 10],
        crop: 64,
        dropout: 0.375,
        lrn_style,
        pool_rounding,
        ..NetworkSpec::paper(config)
    }
}

fn metadata(spec: &NetworkSpec) -> WeightsMetadata {
    WeightsMetadata {
        spec: spec.clone(),
        classes: (0..spec.classes).map(|i| format!("class{i}")).collect(),
        channel_order: ChannelOrder::Rgb,
        pixel_scale: 0.25,
        mean_rgb: [123.5, 116.25, 103.75],
        std_rgb: [1.0, 1.5, 2.0],
        train_scale: vec![64, 128],
        geometry: "paper".into(),
    }
}

/// Pixels up to 128 give activations of about 100, for which LRN matters, and biases of the same size.
fn network(spec: &NetworkSpec) -> Network {
    let mut network = pseudo_random_network(spec.clone(), &Device::cpu(1).unwrap());
    for mut array in network.state_dict().into_iter().filter(|array| array.name.ends_with(".bias")) {
        array.values.iter_mut().for_each(|value| *value *= 100.0);
        network.load_tensor(&array).unwrap();
    }
    network
}

/// `[N, H, W, RGB]` as f64 in BGR order.
fn blue_first(pixels: &[f32], shape: [usize; 4]) -> Array4<f64> {
    let [n, h, w, _] = shape;
    Array4::from_shape_fn((n, h, w, 3), |(i, y, x, c)| f64::from(pixels[((i * h + y) * w + x) * 3 + 2 - c]))
}

fn values(map: &Array4<f64>) -> Vec<f32> {
    map.iter().map(|v| *v as f32).collect()
}

/// f32 rounds each of up to 16 layers by about 1e-6 of its largest value, and the errors add up randomly;
/// this is five times that.
const TOLERANCE: f64 = 2e-5;

/// Compares the logits of a crop, and pool5 of an image with odd sides, where pool rounding matters: 75 and
/// 97 become 2 and 3, or 3 and 4.
fn check(config: Config, lrn_style: LrnStyle, pool_rounding: PoolRounding) {
    let network = network(&spec(config.clone(), lrn_style, pool_rounding));
    let deployed = Deployed::of(&network, &metadata(network.spec()));
    let device = network.device().clone();
    let shape = [1, 64, 64, 3];
    let pixels = pseudo_random("crop", 128.0, shape.iter().product());
    let logits = network.infer(&Tensor::from_slice(&pixels, shape, &device).unwrap()).unwrap().to_vec();
    let blobs = deployed.compute(blue_first(&pixels, shape), true);
    assert_close(&values(&blobs["fc8"]), &logits, TOLERANCE, &format!("{config}, fc8"));
    let last = deployed.layers().pop().unwrap();
    let expected = "name: \"prob\" type: \"Softmax\" bottom: \"fc8\" top: \"prob\"";
    assert_eq!(last, Fields::parse(expected));
    assert!((blobs["prob"].sum() - 1.0).abs() < 1e-12);
    let shape = [1, 75, 97, 3];
    let pixels = pseudo_random("image", 128.0, shape.iter().product());
    let dense = network.into_fully_convolutional().unwrap();
    let maps = dense.activations(&Tensor::from_slice(&pixels, shape, &device).unwrap(), "pool5").unwrap();
    let blobs = deployed.compute(blue_first(&pixels, shape), false);
    let (h, w) = if pool_rounding == PoolRounding::Floor { (2, 3) } else { (3, 4) };
    assert_eq!((blobs["pool5"].dim(), maps.shape().dims()), ((1, h, w, 16), [1, h, w, 16].as_slice()));
    assert_close(&values(&blobs["pool5"]), &maps.to_vec(), TOLERANCE, &format!("{config}, pool5"));
}

#[test]
fn caffe_model_with_alexnet_normalisation_matches_the_network() {
    check(Config::ALrn, LrnStyle::AlexNet, PoolRounding::Floor);
}

#[test]
fn caffe_model_with_caffe_normalisation_matches_the_network() {
    check(Config::ALrn, LrnStyle::Caffe, PoolRounding::Ceil);
}

#[test]
fn caffe_models_with_5x5_and_1x1_kernels_match_the_network() {
    check(Config::B5x5, LrnStyle::AlexNet, PoolRounding::Ceil);
    check(Config::C, LrnStyle::AlexNet, PoolRounding::Floor);
}

#[test]
fn prototxt_has_pixel_comment_input_and_unique_layers() {
    let spec = spec(Config::ALrn, LrnStyle::AlexNet, PoolRounding::Floor);
    let deployed = Deployed::of(&network(&spec), &metadata(&spec));
    let comment =
        "# Config A-LRN. Preprocessing: (BGR 0..255 - [103.75, 116.25, 123.5]) * 0.25 / [2.0, 1.5, 1.0].";
    assert_eq!(deployed.comment, comment);
    let layers = deployed.layers();
    let input = "name: \"data\" type: \"Input\" top: \"data\" \
                 input_param { shape { dim: 1 dim: 3 dim: 64 dim: 64 } }";
    assert_eq!(layers[0], Fields::parse(input));
    let line = |mut layer: Fields| {
        let [name, kind, top] = ["name", "type", "top"].map(|field| layer.text(field).unwrap());
        format!("{name} {kind} {} {top}", layer.text("bottom").unwrap_or_default())
    };
    let lines: Vec<String> = layers.into_iter().skip(1).map(line).collect();
    let convolutions = ["2_1", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2"];
    let names: HashSet<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names.len(), lines.len(), "layer names must be unique");
    assert!(convolutions.iter().all(|name| names.contains(format!("conv{name}").as_str())));
    let start = [
        "conv1_1 Convolution data conv1_1",
        "relu1_1 ReLU conv1_1 conv1_1",
        "lrn1 LRN conv1_1 lrn1",
        "pool1 Pooling lrn1 pool1",
        "conv2_1 Convolution pool1 conv2_1",
        "relu2_1 ReLU conv2_1 conv2_1",
        "pool2 Pooling conv2_1 pool2",
    ];
    assert_eq!(lines[..7], start);
    let end = [
        "pool5 Pooling conv5_2 pool5",
        "fc6 InnerProduct pool5 fc6",
        "relu6 ReLU fc6 fc6",
        "drop6 Dropout fc6 fc6",
        "fc7 InnerProduct fc6 fc7",
        "relu7 ReLU fc7 fc7",
        "drop7 Dropout fc7 fc7",
        "fc8 InnerProduct fc7 fc8",
        "prob Softmax fc8 prob",
    ];
    assert_eq!(lines[lines.len() - 9..], end);
    assert_eq!(lines.len(), 2 * 8 + 1 + 5 + 8);
}

#[test]
fn caffemodel_has_every_layer_and_bgr_filters() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(Config::C, LrnStyle::AlexNet, PoolRounding::Ceil);
    let network = network(&spec);
    let weights = Deployed::of(&network, &metadata(network.spec())).weights;
    assert_eq!(weights.name(), "VGG");
    let arrays = network.state_dict();
    assert_eq!(2 * weights.layer.len(), arrays.len());
    for (layer, parameters) in weights.layer.iter().zip(arrays.chunks_exact(2)) {
        let kind = if layer.name().starts_with("conv") { "Convolution" } else { "InnerProduct" };
        assert_eq!(layer.r#type(), kind);
        assert_eq!(layer.blobs.len(), 2);
        for (blob, NamedTensor { name, shape, values }) in layer.blobs.iter().zip(parameters) {
            assert_eq!(blob.dims(), *shape, "{name}");
            assert!(name.strip_prefix(layer.name()).is_some_and(|rest| [".weight", ".bias"].contains(&rest)));
            // Value i of conv1_1's weight is at position i % 9 of channel i / 9 % 3 of filter i / 27.
            let blue_first = |i: usize| i / 27 * 27 + (2 - i / 9 % 3) * 9 + i % 9;
            let from = |i: usize| if name == "conv1_1.weight" { blue_first(i) } else { i };
            let expected: Vec<f32> = (0..values.len()).map(|i| values[from(i)]).collect();
            assert_eq!(blob.data, expected, "{name}");
        }
    }
    let native = dir.path().join("native.safetensors");
    save(&native, &network, &metadata(&spec)).unwrap();
    let ours: BTreeMap<String, String> = serde_json::from_str(weights.metadata()).unwrap();
    assert_eq!(ours, TensorFile::open(&native).unwrap().metadata());
}

/// Indices of the convolutions in `features` of torchvision's `models.vgg11` to `vgg19`.
const FEATURES: [(Config, &[usize]); 5] = [
    (Config::A, &[0, 3, 6, 8, 11, 13, 16, 18]),
    // LRN is a module as well.
    (Config::ALrn, &[0, 4, 7, 9, 12, 14, 17, 19]),
    (Config::B, &[0, 2, 5, 7, 10, 12, 15, 17, 20, 22]),
    (Config::D, &[0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]),
    (Config::E, &[0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]),
];

#[test]
fn torchvision_and_timm_files_have_their_names_and_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    for (config, numbers) in FEATURES {
        let network = network(&spec(config, LrnStyle::AlexNet, PoolRounding::Floor));
        let arrays = network.state_dict();
        for (target, head) in [
            (Target::Torchvision, ["classifier.0", "classifier.3", "classifier.6"]),
            (Target::Timm, ["pre_logits.fc1", "pre_logits.fc2", "head.fc"]),
        ] {
            let files = convert(&path, &network, &metadata(network.spec()), target).unwrap();
            assert_eq!(files, [path.as_path()]);
            let mut file = TensorFile::open(&path).unwrap();
            let features = numbers.iter().map(|number| format!("features.{number}"));
            let names = features.chain(head.map(str::to_owned));
            let names: Vec<String> =
                names.flat_map(|name| [format!("{name}.weight"), format!("{name}.bias")]).collect();
            assert_eq!(file.names().into_iter().collect::<HashSet<_>>(), names.iter().cloned().collect());
            assert_eq!(names.len(), arrays.len());
            for (name, array) in names.iter().zip(&arrays) {
                let shape = match name.as_str() {
                    "pre_logits.fc1.weight" => vec![12, 16, 2, 2],
                    "pre_logits.fc2.weight" => vec![10, 12, 1, 1],
                    _ => array.shape.clone(),
                };
                assert_eq!(file.shape(name).unwrap(), shape, "{name}");
                assert_eq!(file.read_f32(name).unwrap(), array.values, "{name}");
            }
            let native = dir.path().join("native.safetensors");
            save(&native, &network, &metadata(network.spec())).unwrap();
            assert_eq!(file.metadata(), TensorFile::open(&native).unwrap().metadata());
        }
    }
}

#[test]
fn targets_have_names_and_files() {
    let path = std::path::Path::new("folder/model.bin");
    for (name, target) in [
        ("native", Target::Native),
        ("torchvision", Target::Torchvision),
        ("timm", Target::Timm),
        ("caffe", Target::Caffe),
        ("onnx", Target::Onnx),
        ("onnx-dense", Target::OnnxDense),
    ] {
        assert!(Target::ALL.contains(&(name, target)), "{name}");
        let text = std::path::Path::new("folder/model.prototxt");
        let files: &[&std::path::Path] = if target == Target::Caffe { &[path, text] } else { &[path] };
        assert_eq!(target.files(path), files, "{name}");
    }
}
