//! Writing a `.caffemodel`: a `NetParameter` with one `LayerParameter` for each layer with weights. Caffe
//! matches layers by name and ignores vgg's metadata.

use std::io::{Result, Write};

use vgg_layers::{LayerKind, LayerSpec, NamedTensor};

use super::parameters;
use super::protobuf::{Message, Value};
use crate::WeightsMetadata;
use crate::axes::reversed_channels;
use crate::source::METADATA_FIELD;

/// Field numbers of `NetParameter`, `LayerParameter`, `BlobProto` and `BlobShape`.
const NET_NAME: u32 = 1;
const NET_LAYER: u32 = 100;
const LAYER_NAME: u32 = 1;
const LAYER_TYPE: u32 = 2;
const LAYER_BLOBS: u32 = 7;
const BLOB_DATA: u32 = 5;
const BLOB_SHAPE: u32 = 7;
const SHAPE_DIM: u32 = 1;

pub(super) fn write(
    out: &mut dyn Write,
    layers: &[LayerSpec],
    arrays: &[NamedTensor],
    metadata: &WeightsMetadata,
) -> Result<()> {
    // Caffe's convention is BGR.
    let first = arrays.iter().find(|a| a.name == "conv1_1.weight");
    let first = first.map(|a| reversed_channels(&a.values, &a.shape)).unwrap_or_default();
    let ours = serde_json::to_string(&metadata.to_strings()?)?;
    let mut net = Message::new().text(NET_NAME, "VGG").text(METADATA_FIELD, &ours);
    for layer in layers.iter().filter(|layer| layer.weight_shape().is_some()) {
        let kind = if matches!(layer.kind, LayerKind::Conv { .. }) { "Convolution" } else { "InnerProduct" };
        let mut message = Message::new().text(LAYER_NAME, &layer.name).text(LAYER_TYPE, kind);
        for array in parameters(arrays, layer) {
            let values = if array.name == "conv1_1.weight" { &first } else { &array.values };
            let shape = array.shape.iter().fold(Message::new(), |m, side| m.number(SHAPE_DIM, *side as i64));
            let blob = Message::new().with(BLOB_DATA, Value::Floats(values)).message(BLOB_SHAPE, shape);
            message = message.message(LAYER_BLOBS, blob);
        }
        net = net.message(NET_LAYER, message);
    }
    net.write(out)
}
