//! The training or validation split of a data set.

use serde::{Deserialize, Serialize};

/// A split of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Training images.
    Train,
    /// Validation images.
    Val,
}

impl Split {
    /// Name of the split's folder: `train` or `val`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
        }
    }
}

impl std::str::FromStr for Split {
    type Err = String;
    fn from_str(name: &str) -> Result<Split, String> {
        match name {
            "train" => Ok(Split::Train),
            "val" => Ok(Split::Val),
            _ => Err(format!("unknown split {name:?}; expected train or val")),
        }
    }
}
