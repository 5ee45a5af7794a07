//! A copy of a run's state that is written while training continues.

use std::collections::BTreeMap;
use std::path::Path;

use vgg_files::{DirectoryWriter, TensorData, TensorValues, write_tensors};
use vgg_layers::{NamedTensor, Network};
use vgg_optim::Sgd;
use vgg_weights::WeightsMetadata;

use super::{SavedState, path_of};
use crate::{Error, Result};

/// Weights, velocities and state of a run after a step.
pub(crate) struct Snapshot {
    pub(super) state: SavedState,
    weights: Vec<NamedTensor>,
    velocities: Vec<NamedTensor>,
}

impl Snapshot {
    /// Copies the contents of a checkpoint. Only this copy delays the next step.
    pub(crate) fn take(network: &Network, sgd: &Sgd, state: SavedState) -> Snapshot {
        let velocity = |(name, v): (&String, &vgg_tensor::Tensor)| NamedTensor {
            name: name.clone(),
            shape: v.shape().dims().to_vec(),
            values: v.to_vec(),
        };
        let velocities = sgd.velocities().iter().map(velocity).collect();
        Snapshot { state, weights: network.state_dict(), velocities }
    }

    /// Writes the checkpoint's directory atomically.
    ///
    /// # Errors
    /// [`Error::BadValue`] if a value is not finite: a useless checkpoint would replace valid ones.
    pub(super) fn write(&self, dir: &Path, metadata: &WeightsMetadata) -> Result<()> {
        let bad = |array: &&NamedTensor| array.values.iter().any(|v| !v.is_finite());
        if let Some(array) = self.weights.iter().chain(&self.velocities).find(bad) {
            return Err(Error::BadValue { name: array.name.clone(), step: self.state.step });
        }
        let mut writer = DirectoryWriter::new(&path_of(dir, self.state.step))?;
        writer.add("weights.safetensors", |out| {
            vgg_weights::write_named_tensors(out, &self.weights, metadata)
        })?;
        let velocities: Vec<TensorData> = self.velocities.iter().map(tensor_of).collect();
        writer.add("velocity.safetensors", |out| write_tensors(out, &velocities, &BTreeMap::new()))?;
        writer.add("state.json", |out| Ok(serde_json::to_writer_pretty(out, &self.state)?))?;
        writer.add("timing.json", |out| Ok(serde_json::to_writer_pretty(out, &self.state.timing)?))?;
        Ok(writer.commit()?)
    }
}

fn tensor_of(array: &NamedTensor) -> TensorData<'_> {
    TensorData {
        name: array.name.clone(),
        shape: array.shape.clone(),
        values: TensorValues::F32(&array.values),
    }
}
