//! The convolutional stages of a network: a column of Table 1 or a custom one.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// The convolutional stages of a network, in order from the input. A stage is a sequence of convolutions,
/// each followed by ReLU, and ends with 2x2 max pooling.
///
/// In TOML and JSON a convolution is its number of filters, or a table with a kernel size other than 3:
/// `[[64], [128], [256, { filters = 256, kernel = 1 }]]`.
///
/// ```
/// use vgg_layers::{Config, Conv, NetworkSpec, Stages};
/// let stages = Stages::new(vec![vec![Conv::new(32)], vec![Conv::new(64), Conv { filters: 64, kernel: 1 }]])?;
/// let spec = NetworkSpec { classes: 10, head: [256, 256], crop: 64, ..NetworkSpec::paper(Config::Custom(stages)) };
/// assert_eq!(spec.layers()?[3].name, "conv2_2");
/// # Ok::<(), vgg_layers::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Stages(Vec<Vec<Conv>>);

/// A convolution with stride 1 and padding that keeps the spatial size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conv {
    /// Number of filters.
    pub filters: usize,
    /// Kernel size: 1, 3 or 5.
    pub kernel: usize,
}

/// Maximum number of filters of a convolution.
const MAX_FILTERS: usize = 1 << 16;

/// Maximum number of stages: a crop of 1024 pixels can be halved ten times.
const MAX_STAGES: usize = 10;

impl Stages {
    /// Validates stages.
    ///
    /// # Errors
    /// [`Error::Spec`] unless there are 1 to 10 stages, none of them empty, with kernel sizes 1, 3 or 5 and 1
    /// to 65,536 filters.
    pub fn new(stages: Vec<Vec<Conv>>) -> Result<Stages> {
        let bad = |what: String| Err(Error::Spec(what));
        if !(1..=MAX_STAGES).contains(&stages.len()) {
            return bad(format!("{} stages; there must be 1 to {MAX_STAGES}", stages.len()));
        }
        for (stage, convs) in (1..).zip(&stages) {
            if convs.is_empty() {
                return bad(format!("stage {stage} has no convolution"));
            }
            for (i, Conv { filters, kernel }) in (1..).zip(convs) {
                if ![1, 3, 5].contains(kernel) {
                    return bad(format!("conv{stage}_{i} has kernel {kernel}; it must be 1, 3 or 5"));
                }
                if !(1..=MAX_FILTERS).contains(filters) {
                    return bad(format!(
                        "conv{stage}_{i} has {filters} filters; there must be 1 to {MAX_FILTERS}"
                    ));
                }
            }
        }
        Ok(Stages(stages))
    }

    /// Iterates over the convolutions, stage by stage.
    pub fn iter(&self) -> impl Iterator<Item = &[Conv]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// Number of stages.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Stages of Table 1, which need no validation.
    pub(crate) fn of_table(stages: Vec<Vec<Conv>>) -> Stages {
        Stages(stages)
    }
}

impl Conv {
    /// A 3x3 convolution.
    pub const fn new(filters: usize) -> Conv {
        Conv { filters, kernel: 3 }
    }
}

/// A convolution in TOML or JSON.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a convolution must be a number of filters, or { filters = ..., kernel = 1, 3 or 5 }"
)]
enum InFile {
    Filters(usize),
    Table(ConvTable),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConvTable {
    filters: usize,
    kernel: usize,
}

impl Serialize for Conv {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let Conv { filters, kernel } = *self;
        let in_file =
            if kernel == 3 { InFile::Filters(filters) } else { InFile::Table(ConvTable { filters, kernel }) };
        in_file.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Conv {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Conv, D::Error> {
        Ok(match InFile::deserialize(deserializer)? {
            InFile::Filters(filters) => Conv::new(filters),
            InFile::Table(ConvTable { filters, kernel }) => Conv { filters, kernel },
        })
    }
}

impl<'de> Deserialize<'de> for Stages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Stages, D::Error> {
        Stages::new(Vec::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
