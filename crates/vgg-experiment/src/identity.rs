//! The record that identifies a run: two runs are the same if their records are equal.

use serde::Serialize;
use serde_json::Value;
use vgg_files::Hash;

use crate::{DataPlan, Error, InitPlan, NetworkPlan, Result, RunPlan};

/// Everything that determines a run. The paths of its fields are those of `key.path=value` settings.
#[derive(Serialize)]
pub(crate) struct RunIdentity<'a> {
    /// Version of this record.
    pub(crate) format: u32,
    #[serde(flatten)]
    pub(crate) settings: RunPlan,
    /// Hash of the initial weights.
    pub(crate) start: Option<&'a Hash>,
    /// Hash of the data set.
    pub(crate) dataset: &'a Hash,
    pub(crate) pixels: PixelNormalization,
    /// Instruction set and convolution algorithm, which affect rounding.
    pub(crate) numerics: String,
}

/// Pixel normalisation: subtract the mean, multiply by the scale, divide by the standard deviations.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct PixelNormalization {
    pub(crate) mean_rgb: [f32; 3],
    pub(crate) scale: f32,
    pub(crate) std_rgb: [f32; 3],
}

/// Version of [`RunIdentity`].
pub(crate) const FORMAT: u32 = 5;

impl RunIdentity<'_> {
    /// Converts via text, so that f32 values have only the digits that they need.
    pub(crate) fn to_json(&self) -> Result<Value> {
        let text = serde_json::to_string(self).and_then(|text| serde_json::from_str(&text));
        text.map_err(|e| Error::Plan(format!("cannot serialise the settings: {e}")))
    }
}

/// The settings without those that do not affect the result: names, paths and the permission to enlarge
/// images.
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
