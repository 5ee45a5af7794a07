//! What determines a run, as one record: two runs are the same if their records are equal.

use serde::Serialize;
use serde_json::Value;
use vgg_files::Hash;

use crate::{DataPlan, Error, InitPlan, NetworkPlan, Result, RunPlan};

/// Everything that determines a run: a difference is another run. Paths of settings are those of `--set`.
#[derive(Serialize)]
pub(crate) struct RunIdentity<'a> {
    /// Of this record.
    pub(crate) format: u32,
    #[serde(flatten)]
    pub(crate) settings: RunPlan,
    /// Hash of the weights that it starts from.
    pub(crate) start: Option<&'a Hash>,
    /// Hash of the data set.
    pub(crate) dataset: &'a Hash,
    pub(crate) pixels: PixelNormalization,
    /// What decides the last digits: instruction set and convolution algorithm.
    pub(crate) numerics: String,
}

/// How pixels are normalised: the mean is subtracted, then they are multiplied by the scale and divided by the deviations.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct PixelNormalization {
    pub(crate) mean_rgb: [f32; 3],
    pub(crate) scale: f32,
    pub(crate) std_rgb: [f32; 3],
}

/// Version of [`RunIdentity`].
pub(crate) const FORMAT: u32 = 5;

impl RunIdentity<'_> {
    /// By way of a text, in which a float of 32 bits has no more digits than it needs.
    pub(crate) fn to_json(&self) -> Result<Value> {
        let text = serde_json::to_string(self).and_then(|text| serde_json::from_str(&text));
        text.map_err(|e| Error::Plan(format!("the settings cannot be recorded: {e}")))
    }
}

/// The settings without what decides nothing: names, places, and leave to enlarge images.
pub(crate) fn deciding(plan: &RunPlan, classes: usize) -> RunPlan {
    let init = InitPlan { from: None, ..plan.network.init.clone() };
    RunPlan {
        name: String::new(),
        paper: None,
        may_diverge: false,
        network: NetworkPlan { classes: Some(classes), init, ..plan.network.clone() },
        data: DataPlan { dataset: None, enlarge: false, ..plan.data.clone() },
        ..plan.clone()
    }
}
