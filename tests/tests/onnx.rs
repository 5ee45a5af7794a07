//! ONNX files written by `convert`, decoded with message types from ONNX's schema (onnx.proto) and computed
//! with plain f64 loops by the formulas of ONNX's operator reference.
//!
//! Values are NCHW here and NHWC in the library, so a wrong order of fc6's inputs cannot cancel out.

mod onnx_file;

use std::collections::{BTreeMap, HashSet};

use onnx_file::*;
use vgg_files::TensorFile;
use vgg_layers::{Config, LrnStyle, NamedTensor, Network, NetworkSpec, PoolRounding};
use vgg_tensor::{Device, Tensor};
use vgg_testkit::{assert_close, pseudo_random};
use vgg_tests::pseudo_random_network;
use vgg_weights::{ChannelOrder, Target, WeightsMetadata, convert, save};

/// A small network: fc6 sees a 2x2 map, and blocks differ in their numbers of filters.
fn spec(config: Config, lrn_style: LrnStyle, pool_rounding: PoolRounding) -> NetworkSpec {
    NetworkSpec {
        width: 1.0 / 32.0,
        classes: 5,
        head: [12, 10],
        crop: 64,
        lrn_style,
        pool_rounding,
        ..NetworkSpec::paper(config)
    }
}

fn metadata(spec: &NetworkSpec) -> WeightsMetadata {
    WeightsMetadata {
        spec: spec.clone(),
        classes: (0..spec.classes).map(|i| format!("class \"{i}\"")).collect(),
        channel_order: ChannelOrder::Rgb,
        pixel_scale: 0.25,
        mean_rgb: [123.5, 116.25, 103.75],
        std_rgb: [1.0, 1.5, 2.0],
        train_scale: vec![64, 128],
        geometry: "paper".into(),
    }
}

/// A network with biases as large as its activations for pixels up to 128, about 100. A missing bias, or an
/// LRN with another constant, then changes the logits in their first digits.
fn network(spec: &NetworkSpec, device: &Device) -> Network {
    let mut network = pseudo_random_network(spec.clone(), device);
    for mut array in network.state_dict().into_iter().filter(|array| array.name.ends_with(".bias")) {
        array.values.iter_mut().for_each(|value| *value *= 100.0);
        network.load_tensor(&array).unwrap();
    }
    network
}

/// The model that `convert` writes for a network.
fn written(network: &Network, target: Target) -> ModelProto {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    assert_eq!(convert(&path, network, &metadata(network.spec()), target).unwrap(), [path.as_path()]);
    decode(&path)
}

/// The largest activations are sums of at most 400 products. f32 rounds each of up to 16 layers by about 1e-6
/// of its largest value (Winograd loses one digit more than direct convolution), and the errors add up
/// randomly; 2e-5 is five times that. Every fault in an attribute exceeds 1e-3.
const TOLERANCE: f64 = 2e-5;

/// Compares the logits of two crops.
fn check_crops(network: &Network) {
    let (device, crop) = (network.device(), network.spec().crop);
    let pixels = pseudo_random("crops", 128.0, 2 * crop * crop * 3);
    let x = Tensor::from_slice(&pixels, [2, crop, crop, 3], device).unwrap();
    let ours = network.infer(&x).unwrap();
    let model = written(network, Target::Onnx);
    let theirs = run(model.graph.as_ref().unwrap(), Array::of_nhwc(&pixels, [2, crop, crop, 3]));
    assert_eq!(theirs.shape, ours.shape().dims());
    let theirs: Vec<f32> = theirs.values.iter().map(|v| *v as f32).collect();
    assert_close(&theirs, &ours.to_vec(), TOLERANCE, &format!("{:?}", network.spec()));
}

/// Compares the score map of an image that is not square and has odd sides. Sides 75 and 97 become 2 and 3
/// with floor pooling, 3 and 4 with ceil pooling; fc6 covers 2x2 of them.
fn check_dense(network: Network) {
    let (device, rounding) = (network.device().clone(), network.spec().pool_rounding);
    let model = written(&network, Target::OnnxDense);
    let dense = network.into_fully_convolutional().unwrap();
    let [h, w] = [75, 97];
    let pixels = pseudo_random("image", 128.0, h * w * 3);
    let ours = dense.score_map(&Tensor::from_slice(&pixels, [1, h, w, 3], &device).unwrap()).unwrap();
    let theirs = run(model.graph.as_ref().unwrap(), Array::of_nhwc(&pixels, [1, h, w, 3]));
    let [map_h, map_w] = if rounding == PoolRounding::Floor { [1, 2] } else { [2, 3] };
    let classes = dense.spec().classes;
    assert_eq!(
        (theirs.nchw(), ours.shape().dims()),
        ([1, classes, map_h, map_w], [1, map_h, map_w, classes].as_slice())
    );
    assert_close(&theirs.to_nhwc(), &ours.to_vec(), TOLERANCE, &format!("{:?}, dense", dense.spec()));
}

fn check(config: Config, lrn_style: LrnStyle, pool_rounding: PoolRounding) {
    let network = network(&spec(config, lrn_style, pool_rounding), &Device::cpu(1).unwrap());
    check_crops(&network);
    check_dense(network);
}

#[test]
fn a_lrn_with_alexnet_normalisation_matches_the_network() {
    check(Config::ALrn, LrnStyle::AlexNet, PoolRounding::Floor);
}

#[test]
fn a_lrn_with_caffe_normalisation_matches_the_network() {
    check(Config::ALrn, LrnStyle::Caffe, PoolRounding::Ceil);
}

#[test]
fn b_matches_the_network() {
    check(Config::B, LrnStyle::AlexNet, PoolRounding::Floor);
}

#[test]
fn b_with_5x5_kernels_matches_the_network() {
    check(Config::B5x5, LrnStyle::AlexNet, PoolRounding::Ceil);
}

#[test]
fn c_with_either_pool_rounding_matches_the_network() {
    check(Config::C, LrnStyle::AlexNet, PoolRounding::Floor);
    check(Config::C, LrnStyle::AlexNet, PoolRounding::Ceil);
}

/// Name and dimensions of a graph input or output; a dynamic dimension is given by its name.
fn value_info(info: &ValueInfoProto) -> (String, Vec<String>) {
    let tensor = info.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
    assert_eq!(tensor.elem_type, Some(FLOAT));
    let side = |dim: &DimensionProto| match (dim.dim_value, &dim.dim_param) {
        (Some(number), None) => number.to_string(),
        (None, Some(name)) => name.clone(),
        both => panic!("a side is {both:?}"),
    };
    (info.name().to_owned(), tensor.shape.as_ref().unwrap().dim.iter().map(side).collect())
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

#[test]
fn versions_inputs_and_outputs() {
    let network = network(&spec(Config::A, LrnStyle::AlexNet, PoolRounding::Floor), &Device::cpu(1).unwrap());
    for (target, image, scores) in [
        (Target::Onnx, strings(["n", "3", "64", "64"]), strings(["n", "5"])),
        (Target::OnnxDense, strings(["n", "3", "h", "w"]), strings(["n", "5", "map_h", "map_w"])),
    ] {
        let model = written(&network, target);
        // `onnx_file::compute` implements opset 13; vgg writes IR version 8, which is valid with it.
        assert_eq!(model.ir_version, Some(8));
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(13) };
        assert_eq!(model.opset_import, [opset]);
        assert_eq!(model.producer_name(), "vgg");
        assert_eq!(model.producer_version(), "0.1.0");
        let graph = model.graph.unwrap();
        assert_eq!(graph.name(), "VGG");
        let inputs: Vec<_> = graph.input.iter().map(value_info).collect();
        assert_eq!(inputs, [("image".to_owned(), image)]);
        let outputs: Vec<_> = graph.output.iter().map(value_info).collect();
        assert_eq!(outputs, [("fc8".to_owned(), scores)]);
    }
}

/// The nodes of a graph, each as `name: operator(inputs) -> outputs`.
fn lines(graph: &GraphProto) -> Vec<String> {
    let line = |node: &NodeProto| {
        let (inputs, outputs) = (node.input.join(", "), node.output.join(", "));
        format!("{}: {}({inputs}) -> {outputs}", node.name(), node.op_type())
    };
    graph.node.iter().map(line).collect()
}

#[test]
fn nodes_are_named_after_layers_and_topologically_ordered() {
    let network =
        network(&spec(Config::ALrn, LrnStyle::AlexNet, PoolRounding::Floor), &Device::cpu(1).unwrap());
    for target in [Target::Onnx, Target::OnnxDense] {
        let graph = written(&network, target).graph.unwrap();
        let mut known: HashSet<&str> = graph.initializer.iter().map(TensorProto::name).collect();
        assert_eq!(known.len(), graph.initializer.len(), "initializer names must be unique");
        known.extend(graph.input.iter().map(ValueInfoProto::name));
        for node in &graph.node {
            assert!(node.input.iter().all(|name| known.contains(name.as_str())), "{node:?}");
            assert!(node.output.iter().all(|name| known.insert(name)), "{node:?}");
        }
        let lines = lines(&graph);
        let start = [
            "conv1_1: Conv(image, conv1_1.weight, conv1_1.bias) -> conv1_1",
            "relu_conv1_1: Relu(conv1_1) -> relu_conv1_1",
            "lrn1: LRN(relu_conv1_1) -> lrn1",
            "pool1: MaxPool(lrn1) -> pool1",
            "conv2_1: Conv(pool1, conv2_1.weight, conv2_1.bias) -> conv2_1",
        ];
        assert_eq!(lines[..5], start);
        let end: &[&str] = if target == Target::Onnx {
            &[
                "flat: Flatten(pool5) -> flat",
                "fc6: Gemm(flat, fc6.weight, fc6.bias) -> fc6",
                "relu_fc6: Relu(fc6) -> relu_fc6",
                "fc7: Gemm(relu_fc6, fc7.weight, fc7.bias) -> fc7",
                "relu_fc7: Relu(fc7) -> relu_fc7",
                "fc8: Gemm(relu_fc7, fc8.weight, fc8.bias) -> fc8",
            ]
        } else {
            &[
                "fc6: Conv(pool5, fc6.weight, fc6.bias) -> fc6",
                "relu_fc6: Relu(fc6) -> relu_fc6",
                "fc7: Conv(relu_fc6, fc7.weight, fc7.bias) -> fc7",
                "relu_fc7: Relu(fc7) -> relu_fc7",
                "fc8: Conv(relu_fc7, fc8.weight, fc8.bias) -> fc8",
            ]
        };
        // Eight convolutions with ReLU, five pools, LRN, and the head; no dropout.
        assert_eq!(lines.len(), 2 * 8 + 5 + 1 + end.len());
        assert_eq!(lines[lines.len() - end.len()..], *end);
    }
}

#[test]
fn initializers_have_the_shapes_and_values_of_the_network() {
    let network = network(&spec(Config::C, LrnStyle::AlexNet, PoolRounding::Floor), &Device::cpu(1).unwrap());
    for target in [Target::Onnx, Target::OnnxDense] {
        let graph = written(&network, target).graph.unwrap();
        let arrays: Vec<NamedTensor> = network.state_dict();
        assert_eq!(graph.initializer.len(), arrays.len());
        for (tensor, array) in graph.initializer.iter().zip(&arrays) {
            assert_eq!(tensor.name(), array.name);
            let values = Array::of_tensor(tensor);
            let shape = match (target, array.name.as_str()) {
                (Target::OnnxDense, "fc6.weight") => vec![12, 16, 2, 2],
                (Target::OnnxDense, "fc7.weight") => vec![10, 12, 1, 1],
                (Target::OnnxDense, "fc8.weight") => vec![5, 10, 1, 1],
                _ => array.shape.clone(),
            };
            assert_eq!(values.shape, shape, "{}", array.name);
            assert!(
                values.values.iter().copied().eq(array.values.iter().map(|v| f64::from(*v))),
                "{}",
                array.name
            );
        }
    }
}

#[test]
fn metadata_entries_equal_those_of_the_weights() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(Config::ALrn, LrnStyle::Caffe, PoolRounding::Ceil);
    let network = network(&spec, &Device::cpu(1).unwrap());
    let native = dir.path().join("native.safetensors");
    save(&native, &network, &metadata(&spec)).unwrap();
    let expected = TensorFile::open(&native).unwrap().metadata();
    for target in [Target::Onnx, Target::OnnxDense] {
        let model = written(&network, target);
        let entries = model.metadata_props.iter().map(|p| (p.key().to_owned(), p.value().to_owned()));
        let entries: BTreeMap<String, String> = entries.collect();
        assert_eq!(entries.len(), model.metadata_props.len(), "keys must be unique");
        assert_eq!(entries, expected);
        // Needed to preprocess pixels for ONNX Runtime.
        assert_eq!(entries["mean_rgb"], "[123.5,116.25,103.75]");
        assert_eq!(entries["std_rgb"], "[1.0,1.5,2.0]");
        assert_eq!(entries["pixel_scale"], "0.25");
        assert_eq!(entries["channel_order"], "\"rgb\"");
    }
}
