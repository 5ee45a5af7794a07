//! Writing the deploy prototxt of a Caffe network.

use std::fmt::Write as _;

use vgg_layers::{LayerKind, LayerSpec, LrnStyle, PoolRounding};

use crate::WeightsMetadata;

/// The network definition that Caffe needs in addition to the weights.
pub(super) fn text(layers: &[LayerSpec], metadata: &WeightsMetadata) -> String {
    let WeightsMetadata { spec, mean_rgb: [r, g, b], pixel_scale, std_rgb, .. } = metadata;
    let mut text = format!(
        "# Config {}. Preprocessing: (BGR 0..255 - [{b}, {g}, {r}]) * {pixel_scale} / {:?}.\n\
         name: \"VGG\"\n\
         layer {{\n  name: \"data\"\n  type: \"Input\"\n  top: \"data\"\n  \
         input_param {{ shape {{ dim: 1 dim: 3 dim: {} dim: {} }} }}\n}}\n",
        spec.config,
        [std_rgb[2], std_rgb[1], std_rgb[0]],
        spec.crop,
        spec.crop
    );
    let mut below = "data".to_owned();
    for layer in layers {
        let name = &layer.name;
        let outputs = layer.output[2];
        let (kind, parameters, in_place, relu) = match layer.kind {
            LayerKind::Conv { kernel } => {
                let pad = kernel / 2;
                let own =
                    format!("convolution_param {{ num_output: {outputs} kernel_size: {kernel} pad: {pad} }}");
                ("Convolution", own, false, true)
            }
            LayerKind::Lrn => {
                // Caffe divides alpha by `local_size`.
                let alpha = if spec.lrn_style == LrnStyle::AlexNet { 5e-4 } else { 1e-4 };
                let own = format!("lrn_param {{ local_size: 5 alpha: {alpha} beta: 0.75 k: 2 }}");
                ("LRN", own, false, false)
            }
            LayerKind::MaxPool => {
                let round = if spec.pool_rounding == PoolRounding::Floor { " round_mode: FLOOR" } else { "" };
                let own = format!("pooling_param {{ pool: MAX kernel_size: 2 stride: 2{round} }}");
                ("Pooling", own, false, false)
            }
            LayerKind::Linear { relu } => {
                ("InnerProduct", format!("inner_product_param {{ num_output: {outputs} }}"), false, relu)
            }
            LayerKind::Dropout => {
                let own = format!("dropout_param {{ dropout_ratio: {} }}", spec.dropout);
                ("Dropout", own, true, false)
            }
        };
        let top = if in_place { below.clone() } else { name.clone() };
        push(&mut text, name, kind, &below, &top, &parameters);
        if relu {
            push(&mut text, &name.replace("conv", "relu").replace("fc", "relu"), "ReLU", &top, &top, "");
        }
        below = top;
    }
    push(&mut text, "prob", "Softmax", &below, "prob", "");
    text
}

fn push(text: &mut String, name: &str, kind: &str, bottom: &str, top: &str, parameters: &str) {
    let own = if parameters.is_empty() { String::new() } else { format!("  {parameters}\n") };
    // Writing to a `String` cannot fail.
    let _ = write!(
        text,
        "layer {{\n  name: \"{name}\"\n  type: \"{kind}\"\n  bottom: \"{bottom}\"\n  top: \"{top}\"\n{own}}}\n"
    );
}
