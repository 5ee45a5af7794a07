//! Loading networks from weights files of every supported format.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vgg_layers::{LayerSelection, Network};
use vgg_tensor::Device;

use crate::loader::LoadPlan;
use crate::naming::{Library, recognise};
use crate::source::{Source, corrupt};
use crate::{Error, Pixels, Result, WeightsMetadata};

/// A network that was loaded from a file.
pub struct Loaded {
    /// The network.
    pub network: Network,
    /// Metadata of the file, or of its library's conventions if the file has none.
    pub metadata: WeightsMetadata,
    /// The library whose tensor names the file uses.
    pub library: Library,
    /// Messages for the user on a file of another library: what was detected and what was converted.
    pub notes: Vec<String>,
}

/// Which layers were loaded from a file, and which were not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferReport {
    /// Layers that were loaded.
    pub loaded: Vec<String>,
    /// Layers that were not loaded: they keep the values that they had.
    pub not_loaded: Vec<String>,
}

/// Reads the metadata of a file without its weights. Layers may be missing.
///
/// # Errors
/// As [`load`], except for missing layers and [`Error::NotFinite`].
pub fn read_metadata(path: &Path) -> Result<WeightsMetadata> {
    Ok(plan(&Source::open(path)?, path, None, true)?.metadata)
}

/// Loads a network onto a device. The format is detected from the content: safetensors of vgg, torchvision or
/// timm; `.pth` (no code is executed); `.caffemodel`; `.npz` with Keras's or TensorFlow's tensor names; `.onnx`, by the
/// order of its convolutions and fully connected layers.
///
/// # Errors
/// - [`Error::File`] if the file is missing, damaged or of an unknown format.
/// - [`Error::Metadata`] if an entry of the metadata is missing or invalid.
/// - [`Error::Tensors`] with every tensor that is missing, unexpected or of the wrong shape.
/// - [`Error::NotFinite`] if a weight is NaN or infinite.
/// - [`Error::Network`] if the network cannot be built.
pub fn load(path: &Path, device: &Device) -> Result<Loaded> {
    load_with(path, device, None)
}

/// [`load`] with an explicit pixel convention, for a file without metadata.
///
/// # Errors
/// As [`load`]; [`Error::Metadata`] if `pixels` is given and the file has metadata.
pub fn load_with(path: &Path, device: &Device, pixels: Option<Pixels>) -> Result<Loaded> {
    let mut source = Source::open(path)?;
    // Check the shapes first, so that the memory of the network is in proportion to the size of the file.
    let plan = plan(&source, path, pixels, false)?;
    build(plan, &mut source, path, device, &|_| true)
}

/// [`load`] for a network that computes no further than a layer, such as `pool5`. The weights of the layers above are
/// not read, so the file may lack them or have invalid values there; they are 0 in the network.
///
/// # Errors
/// As [`load`]; [`Error::Absent`] with the needed layers that the file lacks.
pub fn load_up_to(path: &Path, layer: &str, device: &Device) -> Result<Loaded> {
    let mut source = Source::open(path)?;
    let plan = plan(&source, path, None, true)?;
    let layers = plan.metadata.spec.layers()?;
    // Without a layer of this name, all layers are loaded; computing the layer reports the error.
    let last = layers.iter().position(|own| own.name == layer).unwrap_or(layers.len() - 1);
    let needed = |name: &str| layers[..=last].iter().any(|own| own.name == name);
    let missing: Vec<String> = plan.missing.iter().filter(|name| needed(name)).cloned().collect();
    if !missing.is_empty() {
        return Err(Error::Absent { path: path.to_owned(), layers: missing });
    }
    build(plan, &mut source, path, device, &needed)
}

/// Builds the planned network with the weights of the `wanted` layers.
fn build(
    plan: LoadPlan,
    source: &mut Source,
    path: &Path,
    device: &Device,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Loaded> {
    let mut network = Network::new(plan.metadata.spec.clone(), device)?;
    plan.read(source, path, wanted, &mut |array| Ok(network.load_tensor(&array)?))?;
    let LoadPlan { metadata, library, notes, .. } = plan;
    Ok(Loaded { network, metadata, library, notes })
}

/// Loads the selected layers of a file into a network. The file may lack other layers.
///
/// # Errors
/// As [`load`]; [`Error::Absent`] with the selected layers that the file lacks; the errors of
/// [`LayerSelection::layers`].
pub fn load_layers(path: &Path, selection: &LayerSelection, network: &mut Network) -> Result<TransferReport> {
    let mut source = Source::open(path)?;
    let plan = plan(&source, path, None, true)?;
    let absent = |layers: Vec<String>| Error::Absent { path: path.to_owned(), layers };
    if let LayerSelection::Layers(names) = selection {
        // The spec may have default sizes for missing layers, so report these before shapes are compared.
        let missing: Vec<String> = names.iter().filter(|name| plan.missing.contains(name)).cloned().collect();
        if !missing.is_empty() {
            return Err(absent(missing));
        }
    }
    let wanted = selection.layers(&plan.metadata.spec, network.spec())?;
    let (missing, there): (Vec<String>, Vec<String>) =
        wanted.into_iter().partition(|layer| plan.missing.contains(layer));
    // `AllMatching` selects what the file has; the other selections require each layer.
    if !missing.is_empty() && *selection != LayerSelection::AllMatching {
        return Err(absent(missing));
    }
    plan.read(&mut source, path, &|layer| there.iter().any(|l| l == layer), &mut |array| {
        Ok(network.load_tensor(&array)?)
    })?;
    let (loaded, not_loaded) =
        network.layer_names().map(str::to_owned).partition(|name| there.contains(name));
    Ok(TransferReport { loaded, not_loaded })
}

/// [`read_metadata`], and messages for the user on a file of another library, such as missing layers.
///
/// # Errors
/// As [`read_metadata`].
pub fn describe(path: &Path) -> Result<(WeightsMetadata, Vec<String>)> {
    let plan = plan(&Source::open(path)?, path, None, true)?;
    Ok((plan.metadata, plan.notes))
}

fn plan(source: &Source, path: &Path, pixels: Option<Pixels>, partial: bool) -> Result<LoadPlan> {
    let mut recognised = recognise(&source.entries());
    if let (true, Some(recognised)) = (source.is_onnx(), &mut recognised) {
        recognised.library = Library::Onnx;
    }
    let strings = source.metadata();
    let has_metadata = strings.contains_key("config");
    if has_metadata && pixels.is_some() {
        let reason = "is stated by the file itself, so the pixel preprocessing cannot be overridden".into();
        return Err(Error::Metadata { path: path.to_owned(), key: "pixel_scale", reason });
    }
    let is_native = recognised.as_ref().is_none_or(|r| r.library == Library::Native);
    let native = if has_metadata || (is_native && pixels.is_none() && source.is_safetensors()) {
        Some(WeightsMetadata::from_strings(&strings, path)?)
    } else {
        None
    };
    let Some(recognised) = recognised else {
        return Err(corrupt(
            path,
            "its tensor names are not those of a VGG network in any supported library",
        ));
    };
    LoadPlan::new(source, path, recognised, pixels, native, partial)
}

#[cfg(test)]
mod tests;
