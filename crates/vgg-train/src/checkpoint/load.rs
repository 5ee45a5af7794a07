//! Resuming a run from its newest valid checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use vgg_files::{TensorFile, read_json, remove_partial_files, verify};
use vgg_layers::{NamedTensor, Network};
use vgg_optim::Sgd;
use vgg_tensor::{Shape, Tensor};

use super::{SavedState, folder, io, list};
use crate::{Error, Result, identity};

/// Loads the newest valid checkpoint into `network` and `sgd`. Returns its state, and why newer checkpoints
/// were rejected. If this process `tidies`, it sets damaged checkpoints aside.
///
/// # Errors
/// [`Error::OtherRun`] if the checkpoint's identity has differences that are not allowed.
pub(crate) fn load_newest(
    dir: &Path,
    tidies: bool,
    now: &serde_json::Value,
    allowed: &[String],
    network: &mut Network,
    sgd: &mut Sgd,
) -> Result<(Option<SavedState>, Vec<String>)> {
    if tidies {
        remove_partial_files(&folder(dir))?;
    }
    let mut rejected = Vec::new();
    for (_, path) in list(dir)?.into_iter().rev() {
        match read(&path) {
            Ok((mut state, weights, velocities)) => {
                identity::refuse_other(dir, &state.identity, now, allowed)?;
                state.identity = now.clone();
                weights.iter().try_for_each(|array| network.load_tensor(array))?;
                let mut restored = BTreeMap::new();
                for NamedTensor { name, shape, values } in velocities {
                    let shape = Shape::from_slice(&shape)
                        .ok_or_else(|| Error::Config(format!("velocity {name} has shape {shape:?}")))?;
                    restored.insert(name, Tensor::from_slice(&values, shape, network.device())?);
                }
                sgd.restore(restored, &network.parameters().collect::<Vec<_>>())?;
                return Ok((Some(state), rejected));
            }
            Err(error) => {
                if tidies {
                    set_aside(&path)?;
                }
                rejected.push(error.to_string());
            }
        }
    }
    Ok((None, rejected))
}

/// Renames a damaged checkpoint; otherwise it would count as one of the newest, and valid ones be pruned.
fn set_aside(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("damaged-{name}"));
    if aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(|e| io("remove", &aside, e))?;
    }
    Ok(std::fs::rename(path, &aside).map_err(|e| io("rename", path, e))?)
}

fn read(path: &Path) -> vgg_files::Result<(SavedState, Vec<NamedTensor>, Vec<NamedTensor>)> {
    verify(path)?;
    let mut state: SavedState = read_json(&path.join("state.json"))?;
    state.timing = read_json(&path.join("timing.json"))?;
    Ok((state, arrays(&path.join("weights.safetensors"))?, arrays(&path.join("velocity.safetensors"))?))
}

fn arrays(path: &Path) -> vgg_files::Result<Vec<NamedTensor>> {
    let mut file = TensorFile::open(path)?;
    let mut arrays = Vec::new();
    for name in file.names() {
        let shape = file.shape(&name).unwrap_or_default().to_vec();
        let values = file.read_f32(&name)?;
        arrays.push(NamedTensor { name, shape, values });
    }
    Ok(arrays)
}
