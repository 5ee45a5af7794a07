//! Networks from files of every format.

use std::path::Path;

use vgg_layers::Network;
use vgg_tensor::Device;

use crate::foreign::Plan;
use crate::naming::{Library, recognise};
use crate::source::{Source, corrupt};
use crate::{Pixels, Result, WeightsMetadata};

/// A network from a file.
pub struct Loaded {
    /// The network.
    pub network: Network,
    /// What the file says about it, or what its library's customs say.
    pub metadata: WeightsMetadata,
    /// Whose names the file uses.
    pub library: Library,
    /// Layers that the file does not have, whose weights are zero; none unless they were allowed to be missing.
    pub missing: Vec<String>,
    /// What was found out about a file of another library, and what was changed: for people.
    pub notes: Vec<String>,
}

/// How a file is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// How pixels were prepared for the network, if its file does not say; the custom of its library if not given.
    pub pixels: Option<Pixels>,
    /// Whether layers may be missing, such as the head of a network for fine-tuning.
    pub partial: bool,
}

/// Reads what a file says about its network, without the weights.
///
/// # Errors
/// [`crate::Error::File`] or [`crate::Error::Metadata`].
pub fn read_metadata(path: &Path) -> Result<WeightsMetadata> {
    let options = LoadOptions { partial: true, ..LoadOptions::default() };
    Ok(plan(&Source::open(path)?, path, options)?.metadata)
}

/// Reads a network onto a device. The format is found out from the content: our safetensors; those of torchvision and
/// timm; `.pth` (tensors alone: nothing is executed); Caffe's `.caffemodel`; `.npz` with Keras's or Caffe's names.
///
/// # Errors
/// [`crate::Error::File`] if the file is missing or damaged, [`crate::Error::Metadata`] if it does not say what it is,
/// [`crate::Error::Tensors`] with every tensor that is missing, superfluous or misshapen, [`crate::Error::NotFinite`].
pub fn load(path: &Path, device: &Device) -> Result<Loaded> {
    load_with(path, device, LoadOptions::default())
}

/// As [`load`] with options.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, device: &Device, options: LoadOptions) -> Result<Loaded> {
    let mut source = Source::open(path)?;
    // The shapes first: the file has them, so a network that fits takes no more memory than the file is long.
    let plan = plan(&source, path, options)?;
    let mut network = Network::new(plan.metadata.spec.clone(), device)?;
    plan.read(&mut source, path, &mut |array| Ok(network.import(&array)?))?;
    let Plan { metadata, library, missing, notes, .. } = plan;
    Ok(Loaded { network, metadata, library, missing, notes })
}

fn plan(source: &Source, path: &Path, options: LoadOptions) -> Result<Plan> {
    let recognised = recognise(&source.entries());
    let mut native = None;
    if let Source::Safetensors(file) = source {
        let strings = file.metadata();
        let ours = strings.contains_key("config")
            || recognised.as_ref().is_none_or(|r| r.library == Library::Native);
        if ours && options.pixels.is_none() {
            native = Some(WeightsMetadata::from_strings(&strings, path)?);
        }
    }
    let Some(recognised) = recognised else {
        return Err(corrupt(
            path,
            "its tensors are not named as those of a VGG network in any known library",
        ));
    };
    Plan::new(source, path, recognised, (options.pixels, native, options.partial))
}
