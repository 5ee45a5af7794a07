//! Writing the native format.

use std::io::Write;
use std::path::Path;

use vgg_files::{TensorData, TensorValues, write_tensors};
use vgg_layers::{NamedTensor, Network};

use crate::{Result, WeightsMetadata};

/// Writes a network to `path` atomically.
///
/// # Errors
/// [`crate::Error::File`] if it cannot be written.
pub fn save(path: &Path, network: &Network, metadata: &WeightsMetadata) -> Result<()> {
    Ok(vgg_files::write_with(path, |out| write(out, network, metadata))?)
}

/// Writes a network to `out`. Equal networks and metadata produce identical bytes.
///
/// # Errors
/// Any error of writing to `out`.
pub fn write(out: &mut dyn Write, network: &Network, metadata: &WeightsMetadata) -> std::io::Result<()> {
    write_named_tensors(out, &network.state_dict(), metadata)
}

/// Writes tensors of any names, such as a state dict, with metadata.
///
/// # Errors
/// Any error of writing to `out`.
pub fn write_named_tensors(
    out: &mut dyn Write,
    arrays: &[NamedTensor],
    metadata: &WeightsMetadata,
) -> std::io::Result<()> {
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
