//! Writing an ONNX `ModelProto` of the network for crops, or of the fully convolutional one. The outputs are
//! logits, without softmax.

use std::io::{Result, Write};

use vgg_layers::{LayerKind, LayerSpec, LrnStyle, NamedTensor, PoolRounding};

use super::parameters;
use super::protobuf::{Message, Value};
use crate::WeightsMetadata;

/// IR version and operator set, old enough for every runtime of the last years.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 13;
/// Type codes of `TensorProto` and `AttributeProto`.
const FLOAT: i64 = 1;
const ATTRIBUTE_FLOAT: i64 = 1;
const ATTRIBUTE_INT: i64 = 2;
const ATTRIBUTE_INTS: i64 = 7;

pub(super) fn write(
    out: &mut dyn Write,
    layers: &[LayerSpec],
    dense: bool,
    arrays: &[NamedTensor],
    metadata: &WeightsMetadata,
) -> Result<()> {
    let mut graph = Message::new();
    let mut at = "image".to_owned();
    for layer in layers {
        for (node, top) in nodes(layer, &at, dense, metadata) {
            graph = graph.message(1, node);
            at = top;
        }
    }
    graph = graph.text(2, "VGG");
    for layer in layers {
        for array in parameters(arrays, layer) {
            graph = graph.message(5, tensor(array, layer, dense));
        }
    }
    let crop = metadata.spec.crop as i64;
    let side = |name: &str| if dense { Err(name.to_owned()) } else { Ok(crop) };
    let image = [Err("n".to_owned()), Ok(3), side("h"), side("w")];
    let classes = Ok(metadata.spec.classes as i64);
    let mut scores = vec![Err("n".to_owned()), classes];
    if dense {
        scores.extend([Err("map_h".to_owned()), Err("map_w".to_owned())]);
    }
    graph = graph.message(11, value("image", &image)).message(12, value(&at, &scores));
    let mut model = Message::new()
        .number(1, IR_VERSION)
        .text(2, "vgg")
        .text(3, env!("CARGO_PKG_VERSION"))
        .message(7, graph)
        .message(8, Message::new().text(1, "").number(2, OPSET));
    for (key, value) in metadata.to_strings()? {
        model = model.message(14, Message::new().text(1, &key).text(2, &value));
    }
    model.write(out)
}

/// The nodes of a layer, each with the name of its output.
fn nodes(
    layer: &LayerSpec,
    below: &str,
    dense: bool,
    metadata: &WeightsMetadata,
) -> Vec<(Message<'static>, String)> {
    let name = layer.name.as_str();
    let weights = [format!("{name}.weight"), format!("{name}.bias")];
    let own = |kind: &str, inputs: &[&str], attributes: Vec<Message<'static>>| {
        (node(kind, name, inputs, name, attributes), name.to_owned())
    };
    let relu = |(first, top): (Message<'static>, String)| {
        let after = format!("relu_{name}");
        let second = (node("Relu", &after, &[&top], &after, Vec::new()), after);
        vec![(first, top), second]
    };
    let inputs = [below, &weights[0], &weights[1]];
    match layer.kind {
        LayerKind::Conv { kernel } => {
            let pad = (kernel / 2) as i64;
            relu(own(
                "Conv",
                &inputs,
                vec![ints("kernel_shape", &[kernel as i64; 2]), ints("pads", &[pad; 4])],
            ))
        }
        LayerKind::Lrn => {
            // ONNX divides alpha by `size`.
            let alpha = if metadata.spec.lrn_style == LrnStyle::AlexNet { 5e-4 } else { 1e-4 };
            let attributes =
                vec![float("alpha", alpha), float("beta", 0.75), float("bias", 2.0), int("size", 5)];
            vec![own("LRN", &[below], attributes)]
        }
        LayerKind::MaxPool => {
            let ceil = i64::from(metadata.spec.pool_rounding == PoolRounding::Ceil);
            let attributes =
                vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2]), int("ceil_mode", ceil)];
            vec![own("MaxPool", &[below], attributes)]
        }
        // The identity at inference.
        LayerKind::Dropout => Vec::new(),
        LayerKind::Linear { relu: active } => {
            let mut before = Vec::new();
            let mut from = below.to_owned();
            if !dense && name == "fc6" {
                from = "flat".to_owned();
                before.push((node("Flatten", "flat", &[below], "flat", Vec::new()), from.clone()));
            }
            let inputs = [from.as_str(), &weights[0], &weights[1]];
            let own = if dense {
                let [h, w, _] = layer.input;
                own("Conv", &inputs, vec![ints("kernel_shape", &[h as i64, w as i64])])
            } else {
                own("Gemm", &inputs, vec![int("transB", 1)])
            };
            before.extend(if active { relu(own) } else { vec![own] });
            before
        }
    }
}

fn node(
    kind: &str,
    name: &str,
    inputs: &[&str],
    output: &str,
    attributes: Vec<Message<'static>>,
) -> Message<'static> {
    let message = inputs.iter().fold(Message::new(), |m, input| m.text(1, input));
    let message = message.text(2, output).text(3, name).text(4, kind);
    attributes.into_iter().fold(message, |m, attribute| m.message(5, attribute))
}

fn ints(name: &str, values: &[i64]) -> Message<'static> {
    let message = values.iter().fold(Message::new().text(1, name), |m, value| m.number(8, *value));
    message.number(20, ATTRIBUTE_INTS)
}

fn int(name: &str, value: i64) -> Message<'static> {
    Message::new().text(1, name).number(3, value).number(20, ATTRIBUTE_INT)
}

fn float(name: &str, value: f32) -> Message<'static> {
    Message::new().text(1, name).with(2, Value::Float(value)).number(20, ATTRIBUTE_FLOAT)
}

/// A `TensorProto`; the dense form has filters in place of fully connected layers' matrices.
fn tensor<'a>(array: &'a NamedTensor, layer: &LayerSpec, dense: bool) -> Message<'a> {
    let mut shape = array.shape.clone();
    if dense && shape.len() == 2 {
        let [h, w, c] = layer.input;
        shape = vec![shape[0], c, h, w];
    }
    let dims = shape.iter().fold(Message::new(), |m, side| m.number(1, *side as i64));
    dims.number(2, FLOAT).text(8, &array.name).with(9, Value::Floats(&array.values))
}

/// A `ValueInfoProto` of floats; a dimension is a fixed number (`Ok`) or the name of a dynamic one (`Err`).
fn value(name: &str, sides: &[std::result::Result<i64, String>]) -> Message<'static> {
    let shape = sides.iter().fold(Message::new(), |shape, side| {
        shape.message(
            1,
            match side {
                Ok(number) => Message::new().number(1, *number),
                Err(name) => Message::new().text(2, name),
            },
        )
    });
    let tensor = Message::new().number(1, FLOAT).message(2, shape);
    Message::new().text(1, name).message(2, Message::new().message(1, tensor))
}
