//! Networks from files of every format.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vgg_layers::{LayerSelection, Network};
use vgg_tensor::Device;

use crate::loader::Plan;
use crate::naming::{Library, recognise};
use crate::source::{Source, corrupt};
use crate::{Error, Pixels, Result, WeightsMetadata};

/// A network from a file.
pub struct Loaded {
    /// The network.
    pub network: Network,
    /// What the file says about it, or what its library's customs say.
    pub metadata: WeightsMetadata,
    /// Whose names the file uses.
    pub library: Library,
    /// What was found out about a file of another library, and what was changed: for people.
    pub notes: Vec<String>,
}

/// Which layers were copied, and which keep what they had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferReport {
    /// Copied from the source.
    pub loaded: Vec<String>,
    /// Not loaded: to be drawn at random, or drawn already.
    pub initialized: Vec<String>,
}

/// Reads what a file says about its network, without the weights. Layers may be missing.
///
/// # Errors
/// [`Error::File`] or [`Error::Metadata`].
pub fn read_metadata(path: &Path) -> Result<WeightsMetadata> {
    Ok(plan(&Source::open(path)?, path, None, true)?.metadata)
}

/// Reads a network onto a device. The format is found out from the content: our safetensors; those of torchvision and
/// timm; `.pth` (tensors alone: nothing is executed); Caffe's `.caffemodel`; `.npz` with Keras's or Caffe's names.
///
/// # Errors
/// [`Error::File`] if the file is missing or damaged, [`Error::Metadata`] if it does not say what it is,
/// [`Error::Tensors`] with every tensor that is missing, superfluous or misshapen, [`Error::NotFinite`].
pub fn load(path: &Path, device: &Device) -> Result<Loaded> {
    load_with(path, device, None)
}

/// As [`load`] of a file that does not say how pixels were prepared for its network.
///
/// # Errors
/// As [`load`]; [`Error::Metadata`] if the file does say it.
pub fn load_with(path: &Path, device: &Device, pixels: Option<Pixels>) -> Result<Loaded> {
    let mut source = Source::open(path)?;
    // The shapes first: the file has them, so a network that fits takes no more memory than the file is long.
    let plan = plan(&source, path, pixels, false)?;
    let mut network = Network::new(plan.metadata.spec.clone(), device)?;
    plan.read(&mut source, path, &|_| true, &mut |array| Ok(network.load_tensor(&array)?))?;
    let Plan { metadata, library, notes, .. } = plan;
    Ok(Loaded { network, metadata, library, notes })
}

/// Copies layers from a file, which may lack those that are not asked for, into a network.
///
/// # Errors
/// As [`load`]; [`Error::Absent`] with the layers of the map that the file lacks; those of [`LayerSelection::layers`].
pub fn load_layers(path: &Path, map: &LayerSelection, network: &mut Network) -> Result<TransferReport> {
    let mut source = Source::open(path)?;
    let plan = plan(&source, path, None, true)?;
    let absent = |layers: Vec<String>| Error::Absent { path: path.to_owned(), layers };
    if let LayerSelection::Layers(names) = map {
        // Of layers that are not there, the shapes are not known.
        let missing: Vec<String> = names.iter().filter(|name| plan.missing.contains(name)).cloned().collect();
        if !missing.is_empty() {
            return Err(absent(missing));
        }
    }
    let wanted = map.layers(&plan.metadata.spec, network.spec())?;
    let (missing, there): (Vec<String>, Vec<String>) =
        wanted.into_iter().partition(|layer| plan.missing.contains(layer));
    // What matches is a question, not a wish.
    if !missing.is_empty() && *map != LayerSelection::AllMatching {
        return Err(absent(missing));
    }
    plan.read(&mut source, path, &|layer| there.iter().any(|l| l == layer), &mut |array| {
        Ok(network.load_tensor(&array)?)
    })?;
    let (copied, drawn) = network.layer_names().map(str::to_owned).partition(|name| there.contains(name));
    Ok(TransferReport { loaded: copied, initialized: drawn })
}

/// As [`read_metadata`], and what was found out about a file of another library, for people: which layers it lacks among it.
///
/// # Errors
/// As [`read_metadata`].
pub fn describe(path: &Path) -> Result<(WeightsMetadata, Vec<String>)> {
    let plan = plan(&Source::open(path)?, path, None, true)?;
    Ok((plan.metadata, plan.notes))
}

fn plan(source: &Source, path: &Path, pixels: Option<Pixels>, partial: bool) -> Result<Plan> {
    let recognised = recognise(&source.entries());
    let strings = source.metadata();
    let says = strings.contains_key("config");
    if says && pixels.is_some() {
        let reason = "the file itself says how pixels are prepared; it cannot be told otherwise".into();
        return Err(Error::Metadata { path: path.to_owned(), key: "pixel_scale", reason });
    }
    let is_native = recognised.as_ref().is_none_or(|r| r.library == Library::Native);
    let native = if says || (is_native && pixels.is_none() && matches!(source, Source::Safetensors(_))) {
        Some(WeightsMetadata::from_strings(&strings, path)?)
    } else {
        None
    };
    let Some(recognised) = recognised else {
        return Err(corrupt(
            path,
            "its tensors are not named as those of a VGG network in any known library",
        ));
    };
    Plan::new(source, path, recognised, pixels, native, partial)
}

#[cfg(test)]
mod tests;
