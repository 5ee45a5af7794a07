//! Checkpoints: a directory per epoch with weights, velocities and the state of the run, hashed and renamed into place.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vgg_files::{DirectoryWriter, TensorData, TensorFile, TensorValues, read_json, verify, write_tensors};
use vgg_layers::Network;
use vgg_optim::{ScheduleState, Sgd};
use vgg_tensor::{Shape, Tensor};
use vgg_weights::WeightsMetadata;

use crate::{EpochMetrics, EpochTiming, Error, Result};

/// Checkpoints that are kept.
const KEEP: usize = 2;

/// Where a run stands after an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunState {
    /// What determines the run.
    pub(crate) identity: serde_json::Value,
    /// Epochs done.
    pub(crate) epochs: usize,
    /// Steps done.
    pub(crate) step: u64,
    pub(crate) schedule: ScheduleState,
    pub(crate) metrics: Vec<EpochMetrics>,
    pub(crate) timings: Vec<EpochTiming>,
}

pub(crate) fn save(
    dir: &Path,
    network: &Network,
    metadata: &WeightsMetadata,
    sgd: &Sgd,
    state: &RunState,
) -> Result<()> {
    let checkpoints = dir.join("checkpoints");
    let mut writer = DirectoryWriter::new(&checkpoints.join(format!("epoch-{:04}", state.epochs)))?;
    writer.add("weights.safetensors", |out| vgg_weights::write(out, network, metadata))?;
    let velocities: Vec<(&String, Shape, Vec<f32>)> =
        sgd.velocities().iter().map(|(name, v)| (name, v.shape(), v.to_vec())).collect();
    let tensors: Vec<TensorData> = velocities
        .iter()
        .map(|(name, shape, v)| TensorData {
            name: (*name).clone(),
            shape: shape.dims().to_vec(),
            values: TensorValues::F32(v),
        })
        .collect();
    writer.add("velocity.safetensors", |out| write_tensors(out, &tensors, &BTreeMap::new()))?;
    writer.add("state.json", |out| Ok(serde_json::to_writer_pretty(out, state)?))?;
    writer.commit()?;
    for old in list(&checkpoints)?.into_iter().rev().skip(KEEP) {
        std::fs::remove_dir_all(&old).map_err(|e| io("remove", &old, e))?;
    }
    Ok(())
}

/// Removes every checkpoint of a run directory: of no further use once the run is finished.
///
/// # Errors
/// [`crate::Error::File`] if they cannot be removed.
pub fn remove_checkpoints(dir: &Path) -> Result<()> {
    let path = dir.join("checkpoints");
    match std::fs::remove_dir_all(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(io("remove", &path, e).into()),
        _ => Ok(()),
    }
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> vgg_files::Error {
    vgg_files::Error::Io { action, path: path.to_owned(), source }
}

/// The newest checkpoint that is whole, put into `network` and `sgd`; with it, why newer ones were rejected.
pub(crate) fn load_newest(
    dir: &Path,
    identity: &serde_json::Value,
    network: &mut Network,
    sgd: &mut Sgd,
) -> Result<(Option<RunState>, Vec<String>)> {
    let mut rejected = Vec::new();
    for path in list(&dir.join("checkpoints"))?.into_iter().rev() {
        match read(&path) {
            Ok((state, _, _)) if state.identity != *identity => {
                return Err(Error::OtherRun { path: dir.to_owned() });
            }
            Ok((state, weights, velocities)) => {
                for (name, shape, values) in weights {
                    network.import(&vgg_layers::NamedArray { name, shape, values })?;
                }
                let mut restored = BTreeMap::new();
                for (name, shape, values) in velocities {
                    let shape = Shape::from_slice(&shape)
                        .ok_or_else(|| Error::Config(format!("velocity {name} has shape {shape:?}")))?;
                    restored.insert(name, Tensor::from_slice(&values, shape, network.device())?);
                }
                sgd.restore(restored, &network.parameters().collect::<Vec<_>>())?;
                return Ok((Some(state), rejected));
            }
            Err(error) => {
                set_aside(&path)?;
                rejected.push(error.to_string());
            }
        }
    }
    Ok((None, rejected))
}

/// Renames a damaged checkpoint, out of the way of those that will be written in its place: counted as one of the newest,
/// it would have them removed.
fn set_aside(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("damaged-{name}"));
    if aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(|e| io("remove", &aside, e))?;
    }
    Ok(std::fs::rename(path, &aside).map_err(|e| io("set aside", path, e))?)
}

type Arrays = Vec<(String, Vec<usize>, Vec<f32>)>;

fn read(path: &Path) -> vgg_files::Result<(RunState, Arrays, Arrays)> {
    verify(path)?;
    let state = read_json(&path.join("state.json"))?;
    Ok((state, arrays(&path.join("weights.safetensors"))?, arrays(&path.join("velocity.safetensors"))?))
}

fn arrays(path: &Path) -> vgg_files::Result<Arrays> {
    let mut file = TensorFile::open(path)?;
    let mut arrays = Vec::new();
    for name in file.names() {
        let shape = file.shape(&name).unwrap_or_default().to_vec();
        let values = file.read_f32(&name)?;
        arrays.push((name, shape, values));
    }
    Ok(arrays)
}

/// Checkpoints in order of their epochs.
fn list(checkpoints: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(checkpoints) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io("read", checkpoints, e).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| io("read", checkpoints, e))?;
        let name = entry.file_name();
        let epoch = name.to_str().and_then(|n| n.strip_prefix("epoch-")).and_then(|n| n.parse::<u64>().ok());
        found.extend(epoch.map(|epoch| (epoch, entry.path())));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
