//! Selection of the layers that a network copies from another network, by name.

use serde::{Deserialize, Serialize};

use crate::{Error, LayerSpec, NetworkSpec, Result};

/// The layers to copy from another network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", expecting = "expected \"paper\", \"all\" or a list of layer names")]
pub enum LayerSelection {
    /// The layers that section 3.1 copies from A: the first four convolutions and all fully connected layers.
    ///
    /// The convolutions are selected by their names in A: conv1_1, conv2_1, conv3_1 and conv3_2. By position,
    /// A's second convolution would not fit any deeper network.
    Paper,
    /// Every layer with the same name and shape in both networks. From A to B to C or D to E, this grows a
    /// network step by step.
    #[serde(rename = "all")]
    AllMatching,
    /// The named layers.
    #[serde(untagged)]
    Layers(Vec<String>),
}

const PAPER: [&str; 7] = ["conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8"];

impl LayerSelection {
    /// Checks that both networks have every selected layer, with the same shape.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] if a network lacks a layer; [`Error::Copy`] if the shapes differ;
    /// [`Error::NothingToCopy`] if no layer is selected.
    pub fn check(&self, from: &NetworkSpec, to: &NetworkSpec) -> Result<()> {
        self.layers(from, to).map(drop)
    }

    /// Returns the names of the layers to copy.
    ///
    /// # Errors
    /// As [`LayerSelection::check`].
    pub fn layers(&self, from: &NetworkSpec, to: &NetworkSpec) -> Result<Vec<String>> {
        let (source, target) = (from.layers()?, to.layers()?);
        let shape = |layers: &[LayerSpec], name: &str| {
            layers.iter().find(|layer| layer.name == name).and_then(LayerSpec::weight_shape)
        };
        let wanted: Vec<String> = match self {
            LayerSelection::Paper => PAPER.map(str::to_owned).to_vec(),
            LayerSelection::Layers(names) => names.clone(),
            LayerSelection::AllMatching => {
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
