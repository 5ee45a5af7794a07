//! Starting a network from another one, by the names of layers.

use serde::{Deserialize, Serialize};
use vgg_tensor::Tensor;

use crate::{Error, LayerSpec, Network, NetworkSpec, Result};

/// Which layers are taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransferMap {
    /// What section 3.1 takes from A: its first four convolutions and all fully connected layers.
    ///
    /// By name, conv1_1, conv2_1, conv3_1 and conv3_2: by position the second convolution of A would not fit any
    /// deeper network.
    Paper,
    /// Every layer whose name and shape the two networks share. From A to B to C or D to E, this grows a network
    /// step by step.
    #[serde(rename = "all", alias = "all-matching")]
    AllMatching,
    /// These layers.
    #[serde(untagged)]
    Layers(Vec<String>),
}

/// Which layers were copied, and which keep what they had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferReport {
    /// Copied from the source.
    pub copied: Vec<String>,
    /// Not copied: to be drawn at random, or drawn already.
    pub drawn: Vec<String>,
}

const PAPER: [&str; 7] = ["conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8"];

impl TransferMap {
    /// Checks that every layer of the map is in both networks, with the same shape.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] or [`Error::Copy`] if not; [`Error::NothingToCopy`] if the map comes to no layer at all.
    pub fn check(&self, from: &NetworkSpec, to: &NetworkSpec) -> Result<()> {
        self.layers(from, to).map(drop)
    }

    /// The layers to copy.
    ///
    /// # Errors
    /// As [`TransferMap::check`].
    pub fn layers(&self, from: &NetworkSpec, to: &NetworkSpec) -> Result<Vec<String>> {
        let (source, target) = (from.layers()?, to.layers()?);
        let shape = |layers: &[LayerSpec], name: &str| {
            layers.iter().find(|layer| layer.name == name).and_then(LayerSpec::weight_shape)
        };
        let wanted: Vec<String> = match self {
            TransferMap::Paper => PAPER.map(str::to_owned).to_vec(),
            TransferMap::Layers(names) => names.clone(),
            TransferMap::AllMatching => {
                let names =
                    target.iter().filter(|layer| layer.weight_shape().is_some()).map(|layer| &layer.name);
                names.filter(|name| shape(&source, name) == shape(&target, name)).cloned().collect()
            }
        };
        if wanted.is_empty() {
            let (from, to) = (from.config.name(), to.config.name());
            return Err(Error::NothingToCopy { from, to });
        }
        for name in &wanted {
            let missing =
                |spec: &NetworkSpec| Error::UnknownLayer { name: name.clone(), config: spec.config.name() };
            let (from_shape, to_shape) = (shape(&source, name), shape(&target, name));
            let from = from_shape.ok_or_else(|| missing(from))?;
            let to = to_shape.ok_or_else(|| missing(to))?;
            if from != to {
                return Err(Error::Copy { layer: name.clone(), from, to });
            }
        }
        Ok(wanted)
    }
}

impl Network {
    /// Copies layers from `source`.
    ///
    /// # Errors
    /// As [`TransferMap::check`]. Nothing is copied then.
    pub fn copy_from(&mut self, source: &Network, map: &TransferMap) -> Result<TransferReport> {
        let wanted = map.layers(&source.spec, &self.spec)?;
        for parameter in source.parameters() {
            let owner = parameter.name.rsplit_once('.').map(|(layer, _)| layer);
            if !wanted.iter().any(|name| Some(name.as_str()) == owner) {
                continue;
            }
            let value = parameter.weight.value();
            let copy = Tensor::from_slice(&value.to_vec(), value.shape(), &self.device)?;
            if let Some(here) = self.parameters_mut().find(|p| p.name == parameter.name) {
                here.weight.set(copy)?;
            }
        }
        let (copied, drawn) = self.layer_names().map(str::to_owned).partition(|name| wanted.contains(name));
        Ok(TransferReport { copied, drawn })
    }
}
