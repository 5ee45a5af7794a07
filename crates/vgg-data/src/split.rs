//! Training or validation part of a data set.

use serde::{Deserialize, Serialize};

/// Which part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Images to learn from.
    Train,
    /// Images to validate on.
    Val,
}

impl Split {
    /// Name of its folder.
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
            _ => Err(format!("there is no split {name}; it is train or val")),
        }
    }
}
