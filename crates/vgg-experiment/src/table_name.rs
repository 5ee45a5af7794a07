//! Names of tables.

use serde::{Deserialize, Serialize};

/// A table of the paper, a comparison from its text, or a table of a custom recipe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum TableName {
    /// ConvNet configurations.
    Table1,
    /// Numbers of parameters.
    Table2,
    /// Single test scale.
    Table3,
    /// Multiple test scales.
    Table4,
    /// Dense evaluation and multi-crop.
    Table5,
    /// Fusion of networks.
    Table6,
    /// Comparison with the state of the art.
    Table7,
    /// Initialisation: random, or from a shallower network (section 3.1).
    Init,
    /// B and a shallower network with 5x5 filters (section 4.1).
    Shallow,
    /// A table of a custom recipe.
    Own(String),
}

/// All names except [`TableName::Own`].
const NAMES: [(&str, TableName); 9] = [
    ("table1", TableName::Table1),
    ("table2", TableName::Table2),
    ("table3", TableName::Table3),
    ("table4", TableName::Table4),
    ("table5", TableName::Table5),
    ("table6", TableName::Table6),
    ("table7", TableName::Table7),
    ("init", TableName::Init),
    ("shallow", TableName::Shallow),
];

impl TableName {
    /// The name, as used in recipes, in file names and by users.
    pub fn as_str(&self) -> &str {
        match self {
            TableName::Own(name) => name,
            known => NAMES.iter().find(|(_, table)| table == known).map_or("", |(name, _)| name),
        }
    }
}

impl From<&str> for TableName {
    fn from(name: &str) -> TableName {
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known.map_or_else(|| TableName::Own(name.to_owned()), |(_, table)| table.clone())
    }
}

impl From<String> for TableName {
    fn from(name: String) -> TableName {
        TableName::from(name.as_str())
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> String {
        name.as_str().to_owned()
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for (name, table) in &NAMES {
            assert_eq!((&TableName::from(*name), table.as_str()), (table, *name));
            assert!(!matches!(table, TableName::Own(_)));
        }
        assert_eq!(TableName::from("mine"), TableName::Own("mine".into()));
        assert_eq!(serde_json::to_string(&TableName::Table3).unwrap(), "\"table3\"");
        assert_eq!(serde_json::from_str::<TableName>("\"shallow\"").unwrap(), TableName::Shallow);
    }
}
