//! ConvNet configurations: the columns of the paper's Table 1 as a constant table, and custom networks.

use std::borrow::Cow;

use serde::de::{self, SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Conv, Error, Result, Stages};

/// A ConvNet configuration: a column of Table 1, or a custom network.
///
/// In TOML and JSON it is the name of a column, such as `"D"`, or a list of [`Stages`], such as
/// `[[64], [128], [256, 256]]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Config {
    /// 11 weight layers.
    A,
    /// A with local response normalisation after conv1_1.
    ALrn,
    /// 13 weight layers.
    B,
    /// B with one 5x5 convolution in place of each pair of 3x3 convolutions (section 4.1).
    B5x5,
    /// 16 weight layers, three of them 1x1 convolutions.
    C,
    /// 16 weight layers; all convolutions are 3x3.
    D,
    /// 19 weight layers.
    E,
    /// A custom network with these stages.
    Custom(Stages),
}

/// A column of the table.
struct Row {
    config: Config,
    name: &'static str,
    /// Kernel sizes, stage by stage.
    kernels: [&'static [usize]; 5],
}

/// Number of filters of each convolution, stage by stage.
const FILTERS: [usize; 5] = [64, 128, 256, 512, 512];

static TABLE: [Row; 7] = [
    row(Config::A, "A", [&[3], &[3], &[3, 3], &[3, 3], &[3, 3]]),
    row(Config::ALrn, "A-LRN", [&[3], &[3], &[3, 3], &[3, 3], &[3, 3]]),
    row(Config::B, "B", [&[3, 3], &[3, 3], &[3, 3], &[3, 3], &[3, 3]]),
    row(Config::B5x5, "B-5x5", [&[5], &[5], &[5], &[5], &[5]]),
    row(Config::C, "C", [&[3, 3], &[3, 3], &[3, 3, 1], &[3, 3, 1], &[3, 3, 1]]),
    row(Config::D, "D", [&[3, 3], &[3, 3], &[3, 3, 3], &[3, 3, 3], &[3, 3, 3]]),
    row(Config::E, "E", [&[3, 3], &[3, 3], &[3, 3, 3, 3], &[3, 3, 3, 3], &[3, 3, 3, 3]]),
];

/// Names of the columns.
static NAMES: [&str; TABLE.len()] = {
    let mut names = [""; TABLE.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = TABLE[i].name;
        i += 1;
    }
    names
};

const fn row(config: Config, name: &'static str, kernels: [&'static [usize]; 5]) -> Row {
    Row { config, name, kernels }
}

impl Config {
    /// All columns, in the paper's order.
    pub fn all() -> impl Iterator<Item = Config> {
        TABLE.iter().map(|row| row.config.clone())
    }

    /// The paper's name, or `custom`.
    pub fn name(&self) -> &'static str {
        self.row().map_or("custom", |row| row.name)
    }

    /// Returns the column of this name, ignoring case.
    ///
    /// # Errors
    /// [`Error::UnknownConfig`] if no column has this name.
    pub fn from_name(name: &str) -> Result<Config> {
        let found = TABLE.iter().find(|row| row.name.eq_ignore_ascii_case(name));
        found
            .map(|row| row.config.clone())
            .ok_or_else(|| Error::UnknownConfig { name: name.to_owned(), known: NAMES.join(", ") })
    }

    /// The convolutional stages at full width.
    pub fn stages(&self) -> Cow<'_, Stages> {
        match (self, self.row()) {
            (Config::Custom(stages), _) => Cow::Borrowed(stages),
            (_, Some(row)) => Cow::Owned(row.stages()),
            (_, None) => unreachable!("every column is in the table"),
        }
    }

    /// Number of weight layers: the convolutions and the three fully connected layers.
    pub fn weight_layers(&self) -> usize {
        self.stages().iter().map(<[Conv]>::len).sum::<usize>() + 3
    }

    fn row(&self) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.config == *self)
    }
}

impl Row {
    fn stages(&self) -> Stages {
        let stage = |(kernels, filters): (&&[usize], usize)| {
            kernels.iter().map(|kernel| Conv { filters, kernel: *kernel }).collect()
        };
        Stages::of_table(self.kernels.iter().zip(FILTERS).map(stage).collect())
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

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Config::Custom(stages) => stages.serialize(serializer),
            column => serializer.serialize_str(column.name()),
        }
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Config, D::Error> {
        deserializer.deserialize_any(NameOrStages)
    }
}

struct NameOrStages;

impl<'de> Visitor<'de> for NameOrStages {
    type Value = Config;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a column of Table 1, such as \"D\", or stages, such as [[64], [128], [256, 256]]")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> std::result::Result<Config, E> {
        Config::from_name(name).map_err(|_| E::unknown_variant(name, &NAMES))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, stages: A) -> std::result::Result<Config, A::Error> {
        Stages::deserialize(SeqAccessDeserializer::new(stages)).map(Config::Custom)
    }
}
