//! Tests of `naming`.

use super::*;

#[test]
fn names_of_all_libraries_map_to_layers() {
    for (name, layer) in [
        ("block1_conv2/kernel:0", Some("conv1_2")),
        ("block5_conv3/block5_conv3/bias:0", Some("conv5_3")),
        ("block3_conv1_W_1:0", Some("conv3_1")),
        ("conv4_2_W", Some("conv4_2")),
        ("conv1_1.0", Some("conv1_1")),
        ("fc6_b", Some("fc6")),
        ("fc2/kernel:0", Some("fc7")),
        ("predictions/bias:0", Some("fc8")),
        ("optimizer/iter:0", None),
    ] {
        assert_eq!(layer_of(name).map(|(layer, _)| layer).as_deref(), layer, "{name}");
    }
}

fn entry(name: &str, shape: &[usize]) -> Entry {
    Entry { name: name.into(), shape: shape.to_vec() }
}

fn source(layer: &str, weight: &str, bias: &str, norm: Option<&str>) -> LayerSource {
    LayerSource {
        layer: layer.into(),
        weight: weight.into(),
        bias: bias.into(),
        norm: norm.map(str::to_owned),
    }
}

/// Weights and biases of torchvision's vgg11 or, with batch normalisation, vgg11_bn; no head.
fn vgg11(numbers: [u32; 8]) -> Vec<Entry> {
    let of = |number| {
        let weight = entry(&format!("features.{number}.weight"), &[8, 8, 3, 3]);
        [weight, entry(&format!("features.{number}.bias"), &[8])]
    };
    numbers.into_iter().flat_map(of).collect()
}

const VGG11: [u32; 8] = [0, 3, 6, 8, 11, 13, 16, 18];
const NAMES: [&str; 8] =
    ["conv1_1", "conv2_1", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "conv5_1", "conv5_2"];

fn head(names: [&str; 3]) -> Vec<LayerSource> {
    let of = |(layer, name)| source(layer, &format!("{name}.weight"), &format!("{name}.bias"), None);
    ["fc6", "fc7", "fc8"].into_iter().zip(names).map(of).collect()
}

#[test]
fn sequential_names_are_sorted_by_number() {
    let convolutions = NAMES.into_iter().zip(VGG11).map(|(layer, number)| {
        source(layer, &format!("features.{number}.weight"), &format!("features.{number}.bias"), None)
    });
    let convolutions: Vec<LayerSource> = convolutions.collect();
    for (first_of_head, names, library) in [
        ("classifier.0.weight", ["classifier.0", "classifier.3", "classifier.6"], Library::Torchvision),
        ("classifier.1.weight", ["classifier.1", "classifier.4", "classifier.6"], Library::Torchvision),
        ("pre_logits.fc1.weight", ["pre_logits.fc1", "pre_logits.fc2", "head.fc"], Library::Timm),
    ] {
        // Files have tensors in any order, such as features.11 before features.3.
        let mut entries = vgg11(VGG11);
        entries.push(entry(first_of_head, &[16, 32]));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let layers = [convolutions.clone(), head(names)].concat();
        assert_eq!(recognise(&entries), Some(Recognised { library, layers }), "{first_of_head}");
    }
}

#[test]
fn batch_normalisation_follows_its_convolution() {
    let numbers = [0, 4, 8, 11, 15, 18, 22, 25];
    let mut entries = vgg11(numbers);
    // All convolutions but the last are followed by batch normalisation.
    for number in &numbers[..7] {
        entries.push(entry(&format!("features.{}.running_mean", number + 1), &[8]));
    }
    let recognised = recognise(&entries).unwrap();
    let norms: Vec<Option<&str>> = recognised.layers.iter().map(|l| l.norm.as_deref()).collect();
    let expected = [1, 5, 9, 12, 16, 19, 23].map(|number| Some(format!("features.{number}")));
    let expected: Vec<Option<&str>> = expected.iter().map(|norm| norm.as_deref()).collect();
    assert_eq!(norms[..7], expected);
    assert_eq!(norms[7..], [None; 4]);
}

#[test]
fn unknown_sequences_of_convolutions_are_not_recognised() {
    let mut without_one = vgg11(VGG11);
    without_one.drain(6..8);
    assert_eq!(recognise(&without_one), None);
    // Only tensors of four axes are convolutions.
    let mut entries = vgg11(VGG11);
    entries[2].shape = vec![8, 72];
    assert_eq!(recognise(&entries), None);
    assert_eq!(recognise(&[]), None);
}

#[test]
fn library_is_detected_from_names_and_conv1_1_axes() {
    for (weight, bias, shape, library) in [
        ("conv1_1.weight", "conv1_1.bias", [64, 3, 5, 5], Library::Native),
        ("conv1_1.0", "conv1_1.1", [64, 3, 5, 5], Library::Caffe),
        ("conv1_1_W", "conv1_1_b", [5, 5, 3, 64], Library::TensorFlow),
        ("block1_conv1/kernel", "block1_conv1/bias", [5, 5, 3, 64], Library::Keras),
    ] {
        let entries = [entry(bias, &[64]), entry(weight, &shape)];
        let layers = vec![source("conv1_1", weight, bias, None)];
        assert_eq!(recognise(&entries), Some(Recognised { library, layers }));
    }
    // Three filters of three channels are taken as [K, C, R, S]; filters that are not square are rejected.
    assert_eq!(recognise(&[entry("conv1_1.weight", &[3, 3, 3, 3])]).unwrap().library, Library::Native);
    assert_eq!(recognise(&[entry("conv1_1.weight", &[64, 3, 3, 5])]), None);
    assert_eq!(recognise(&[entry("conv1_1.weight", &[3, 5, 3, 64])]), None);
    // Keras's names with PyTorch's axis order.
    assert_eq!(recognise(&[entry("block1_conv1/kernel", &[64, 3, 3, 3])]), None);
    assert_eq!(recognise(&[entry("conv1_2.weight", &[64, 3, 3, 3])]), None);
    assert_eq!(recognise(&[entry("conv1_1.bias", &[64, 3, 3, 3])]), None);
}

#[test]
fn named_layers_are_sorted_and_duplicates_ignored() {
    let entries = [
        entry("fc6.weight", &[16, 32]),
        entry("conv2_1.bias", &[8]),
        entry("conv1_1.weight", &[8, 3, 3, 3]),
        entry("other", &[8]),
        entry("conv1_1.weight_copy", &[8, 3, 3, 3]),
    ];
    let layers = recognise(&entries).unwrap().layers;
    let expected = [
        source("conv1_1", "conv1_1.weight", "conv1_1.bias", None),
        source("conv2_1", "", "conv2_1.bias", None),
        source("fc6", "fc6.weight", "fc6.bias", None),
    ];
    assert_eq!(layers, expected);
}

#[test]
fn layers_are_in_network_order_beyond_nine() {
    let names = ["conv1_1", "conv1_2", "conv1_9", "conv1_10", "conv2_1", "conv9_1", "conv10_1", "fc6", "fc7"];
    let of = |name: &&str| entry(&format!("{name}.weight"), &[8, 3, 3, 3]);
    let recognised = recognise(&names.iter().rev().map(of).collect::<Vec<_>>()).unwrap();
    assert_eq!(recognised.layers.iter().map(|source| source.layer.as_str()).collect::<Vec<_>>(), names);
}

#[test]
fn bias_is_detected_by_name_then_by_shape() {
    for (name, shape, bias) in [
        ("conv1_1.bias", &[3, 3][..], true),
        ("conv1_1_b", &[3, 3], true),
        ("conv1_1/biases:0", &[3, 3], true),
        ("conv1_1.1", &[3, 3], true),
        ("conv1_1.weight", &[3], false),
        ("block1_conv1/kernel:0", &[3], false),
        ("conv1_1_W", &[3], false),
        ("conv1_1.0", &[3], false),
        ("conv1_1", &[8], true),
        ("conv1_1", &[1, 1, 1, 8], true),
        ("conv1_1", &[1, 1], true),
        ("conv1_1", &[1, 2, 1, 8], false),
    ] {
        assert_eq!(is_bias(&entry(name, shape)), bias, "{name} {shape:?}");
    }
}

#[test]
fn keras_names_are_detected() {
    for (name, keras) in [
        ("block1_conv2/kernel:0", true),
        ("fc1/kernel:0", true),
        ("fc2/bias:0", true),
        ("predictions/kernel:0", true),
        ("conv1_2_W", false),
        ("conv1_2.0", false),
        ("fc6.weight", false),
        ("fc7_W", false),
        ("fc8.1", false),
    ] {
        assert_eq!(layer_of(name).map(|(_, keras)| keras), Some(keras), "{name}");
    }
    for name in ["block1_pool", "conv1_x", "conv_1", "fc9", "block1_conv", "xconv1_1"] {
        assert_eq!(layer_of(name), None, "{name}");
    }
    assert_eq!(layer_of("fc8.1").unwrap().0, "fc8");
}

#[test]
fn a_gap_in_a_sequence_is_max_pooling() {
    let names = |numbers: &[u32], is_norm: bool| {
        names_in_sequence(&numbers.iter().map(|number| (*number, is_norm)).collect())
    };
    assert_eq!(names(&VGG11, false).unwrap(), NAMES);
    // vgg16 and vgg11_bn of torchvision.
    let vgg16 = names(&[0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28], false).unwrap();
    assert_eq!(vgg16[4..8], ["conv3_1", "conv3_2", "conv3_3", "conv4_1"]);
    assert_eq!(names(&[0, 4, 8, 11, 15, 18, 22, 25], true).unwrap(), NAMES);
    assert_eq!(names(&[0, 2, 5], false).unwrap(), ["conv1_1", "conv1_2", "conv2_1"]);
    for odd in [&[][..], &[1, 3], &[0, 1], &[0, 2, 6], &[3]] {
        assert_eq!(names(odd, false), None, "{odd:?}");
    }
    assert_eq!(names(&[0, 2], true), None);
}

#[test]
fn library_names_and_axis_orders() {
    for (library, name, channels_last) in [
        (Library::Native, "vgg", false),
        (Library::Torchvision, "torchvision", false),
        (Library::Timm, "timm", false),
        (Library::Caffe, "Caffe", false),
        (Library::Keras, "Keras", true),
        (Library::TensorFlow, "TensorFlow", true),
    ] {
        assert_eq!((library.name(), library.channels_last()), (name, channels_last));
    }
}
