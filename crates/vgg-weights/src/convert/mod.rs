//! Writing networks in the formats of other libraries.

mod caffe;
mod onnx;
mod protobuf;
mod prototxt;

use std::path::{Path, PathBuf};

use vgg_layers::{LayerKind, LayerSpec, NamedTensor, Network};

use crate::naming::{TIMM_HEAD, TORCHVISION_HEAD};
use crate::native::write_named_tensors;
use crate::{Result, WeightsMetadata};

/// A format to write a network in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// vgg's own safetensors.
    Native,
    /// Safetensors for `torchvision.models.vggN().load_state_dict`.
    Torchvision,
    /// Safetensors for `timm.create_model("vggN")`.
    Timm,
    /// A `.caffemodel` in BGR order, and the deploy prototxt beside it.
    Caffe,
    /// ONNX for crops of the training size; the batch size is dynamic.
    Onnx,
    /// ONNX of the fully convolutional network: height and width are dynamic, and the output is a score map.
    OnnxDense,
}

impl Target {
    /// All targets with their names.
    pub const ALL: [(&'static str, Target); 6] = [
        ("native", Target::Native),
        ("torchvision", Target::Torchvision),
        ("timm", Target::Timm),
        ("caffe", Target::Caffe),
        ("onnx", Target::Onnx),
        ("onnx-dense", Target::OnnxDense),
    ];

    /// The usual extension of the format's files.
    pub fn extension(self) -> &'static str {
        match self {
            Target::Native | Target::Torchvision | Target::Timm => "safetensors",
            Target::Caffe => "caffemodel",
            Target::Onnx | Target::OnnxDense => "onnx",
        }
    }

    /// The files that [`convert`] writes for `path`.
    pub fn files(self, path: &Path) -> Vec<PathBuf> {
        let beside = (self == Target::Caffe).then(|| path.with_extension("prototxt"));
        std::iter::once(path.to_owned()).chain(beside).collect()
    }
}

/// Writes a network in the format of `target` to `path`, and returns all files that were written. The
/// conversion does not change the network's outputs; pixels must be preprocessed according to `metadata`,
/// which every format stores.
///
/// # Errors
/// [`crate::Error::File`] if a file cannot be written.
pub fn convert(
    path: &Path,
    network: &Network,
    metadata: &WeightsMetadata,
    target: Target,
) -> Result<Vec<PathBuf>> {
    let layers: Vec<LayerSpec> = network.spec().layers()?;
    let mut arrays = network.state_dict();
    let files = target.files(path);
    match target {
        Target::Native => crate::save(path, network, metadata)?,
        Target::Torchvision | Target::Timm => {
            rename(&mut arrays, &layers, target);
            vgg_files::write_with(path, |out| write_named_tensors(out, &arrays, metadata))?;
        }
        Target::Caffe => {
            vgg_files::write_with(path, |out| caffe::write(out, &layers, &arrays, metadata))?;
            vgg_files::write_bytes(&files[1], prototxt::text(&layers, metadata).as_bytes())?;
        }
        Target::Onnx | Target::OnnxDense => {
            let dense = target == Target::OnnxDense;
            vgg_files::write_with(path, |out| onnx::write(out, &layers, dense, &arrays, metadata))?;
        }
    }
    Ok(files)
}

/// Renames tensors for torchvision or timm, and gives timm's fc6 and fc7 the shapes of convolutions.
fn rename(arrays: &mut [NamedTensor], layers: &[LayerSpec], target: Target) {
    let mut number = 0;
    let mut names = Vec::new();
    for layer in layers {
        match layer.kind {
            // A convolution and its ReLU.
            LayerKind::Conv { .. } => {
                names.push((layer.name.as_str(), format!("features.{number}")));
                number += 2;
            }
            LayerKind::MaxPool | LayerKind::Lrn => number += 1,
            _ => {}
        }
    }
    let heads = if target == Target::Timm { TIMM_HEAD } else { TORCHVISION_HEAD };
    names.extend(["fc6", "fc7", "fc8"].into_iter().zip(heads.map(str::to_owned)));
    for array in arrays {
        let Some((layer, part)) = array.name.split_once('.') else { continue };
        if let (Target::Timm, "weight", Some(spec)) = (target, part, layers.iter().find(|l| l.name == layer))
            && matches!(layer, "fc6" | "fc7")
        {
            let [h, w, c] = spec.input;
            array.shape = vec![spec.output[2], c, h, w];
        }
        if let Some((_, name)) = names.iter().find(|(of, _)| *of == layer) {
            array.name = format!("{name}.{part}");
        }
    }
}

/// Weight and bias of a layer.
fn parameters<'a>(arrays: &'a [NamedTensor], layer: &LayerSpec) -> Vec<&'a NamedTensor> {
    let of = |array: &&NamedTensor| array.name.rsplit_once('.').is_some_and(|(name, _)| name == layer.name);
    arrays.iter().filter(of).collect()
}
