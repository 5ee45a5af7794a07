//! The native format.

use std::io::Write;
use std::path::Path;

use vgg_files::{TensorData, TensorFile, TensorValues, write_tensors};
use vgg_layers::{NamedArray, Network};
use vgg_tensor::Device;

use crate::{Error, Result, WeightsMetadata};

/// A network from a file.
pub struct Loaded {
    /// The network.
    pub network: Network,
    /// What the file says about it.
    pub metadata: WeightsMetadata,
}

/// Writes a network to `path`, whole or not at all.
///
/// # Errors
/// [`Error::File`] if it cannot be written.
pub fn save(path: &Path, network: &Network, metadata: &WeightsMetadata) -> Result<()> {
    Ok(vgg_files::write_with(path, |out| write(out, network, metadata))?)
}

/// Writes a network to `out`. The same network makes the same bytes.
///
/// # Errors
/// Whatever writing returns.
pub fn write(out: &mut dyn Write, network: &Network, metadata: &WeightsMetadata) -> std::io::Result<()> {
    let arrays = network.export();
    let tensors: Vec<TensorData> = arrays
        .iter()
        .map(|a| TensorData {
            name: a.name.clone(),
            shape: a.shape.clone(),
            values: TensorValues::F32(&a.values),
        })
        .collect();
    write_tensors(out, &tensors, &metadata.to_strings()?)
}

/// Reads what a file says about its network, without the weights.
///
/// # Errors
/// [`Error::File`] or [`Error::Metadata`].
pub fn read_metadata(path: &Path) -> Result<WeightsMetadata> {
    WeightsMetadata::from_strings(&TensorFile::open(path)?.metadata(), path)
}

/// Reads a network onto a device.
///
/// # Errors
/// [`Error::File`] if the file is missing or damaged, [`Error::Metadata`] if it does not say what it is,
/// [`Error::Tensors`] with every tensor that is missing, superfluous or misshapen, [`Error::NotFinite`].
pub fn load(path: &Path, device: &Device) -> Result<Loaded> {
    let mut file = TensorFile::open(path)?;
    let metadata = WeightsMetadata::from_strings(&file.metadata(), path)?;
    // The shapes first: the file has them, so a network that fits takes no more memory than the file is long.
    let expected = metadata.spec.file_shapes()?;
    let differences = differences(&file, &expected);
    if !differences.is_empty() {
        let config = metadata.spec.config.name();
        return Err(Error::Tensors { path: path.to_owned(), config, differences });
    }
    let mut network = Network::new(metadata.spec.clone(), device)?;
    for (name, shape) in expected {
        let values = file.read_f32(&name)?;
        if !values.iter().all(|v| v.is_finite()) {
            return Err(Error::NotFinite { path: path.to_owned(), tensor: name });
        }
        network.import(&NamedArray { name, shape, values })?;
    }
    Ok(Loaded { network, metadata })
}

fn differences(file: &TensorFile, expected: &[(String, Vec<usize>)]) -> Vec<String> {
    let of_network = expected.iter().filter_map(|(name, shape)| match file.shape(name) {
        None => Some(format!("{name} is missing")),
        Some(got) if got != shape => Some(format!("{name} has shape {got:?} instead of {shape:?}")),
        Some(_) => None,
    });
    let names = file.names();
    let extra = names.iter().filter(|name| !expected.iter().any(|(n, _)| n == *name));
    of_network.chain(extra.map(|name| format!("{name} is superfluous"))).collect()
}
