//! The paper's Table 1 as one constant table.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A column of Table 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Config {
    /// 11 weight layers.
    A,
    /// A with local response normalisation after conv1_1.
    #[serde(rename = "A-LRN")]
    ALrn,
    /// 13 weight layers.
    B,
    /// B with a 5x5 convolution in the place of each pair of 3x3 (section 4.1).
    #[serde(rename = "B-5x5")]
    B5x5,
    /// 16 weight layers, three of them 1x1.
    C,
    /// 16 weight layers, all 3x3.
    D,
    /// 19 weight layers.
    E,
}

/// What a column of the table says.
pub(crate) struct Row {
    pub(crate) config: Config,
    pub(crate) name: &'static str,
    /// Kernel sizes of the convolutions, block by block.
    pub(crate) blocks: [&'static [usize]; 5],
    /// Whether conv1_1 is followed by local response normalisation.
    pub(crate) lrn: bool,
}

/// Filters of the convolutions, block by block, at full width.
pub(crate) const FILTERS: [usize; 5] = [64, 128, 256, 512, 512];

const TABLE: [Row; 7] = [
    row(Config::A, "A", [&[3], &[3], &[3, 3], &[3, 3], &[3, 3]]),
    Row { lrn: true, ..row(Config::ALrn, "A-LRN", [&[3], &[3], &[3, 3], &[3, 3], &[3, 3]]) },
    row(Config::B, "B", [&[3, 3], &[3, 3], &[3, 3], &[3, 3], &[3, 3]]),
    row(Config::B5x5, "B-5x5", [&[5], &[5], &[5], &[5], &[5]]),
    row(Config::C, "C", [&[3, 3], &[3, 3], &[3, 3, 1], &[3, 3, 1], &[3, 3, 1]]),
    row(Config::D, "D", [&[3, 3], &[3, 3], &[3, 3, 3], &[3, 3, 3], &[3, 3, 3]]),
    row(Config::E, "E", [&[3, 3], &[3, 3], &[3, 3, 3, 3], &[3, 3, 3, 3], &[3, 3, 3, 3]]),
];

const fn row(config: Config, name: &'static str, blocks: [&'static [usize]; 5]) -> Row {
    Row { config, name, blocks, lrn: false }
}

impl Config {
    /// All columns, in the paper's order.
    pub fn all() -> impl Iterator<Item = Config> {
        TABLE.iter().map(|row| row.config)
    }

    /// The paper's name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The column of this name; upper and lower case are the same.
    ///
    /// # Errors
    /// [`Error::UnknownConfig`] if there is none.
    pub fn from_name(name: &str) -> Result<Config> {
        let found = TABLE.iter().find(|row| row.name.eq_ignore_ascii_case(name));
        found.map(|row| row.config).ok_or_else(|| Error::UnknownConfig {
            name: name.to_owned(),
            known: TABLE.map(|row| row.name).join(", "),
        })
    }

    /// Weight layers: convolutions and the three fully connected ones.
    pub fn weight_layers(self) -> usize {
        self.row().blocks.iter().map(|b| b.len()).sum::<usize>() + 3
    }

    pub(crate) fn row(self) -> &'static Row {
        match TABLE.iter().find(|row| row.config == self) {
            Some(row) => row,
            None => unreachable!("every configuration has a row"),
        }
    }
}

impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Config {
    type Err = Error;
    fn from_str(name: &str) -> Result<Config> {
        Config::from_name(name)
    }
}
