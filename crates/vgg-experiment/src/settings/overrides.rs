//! Values that stand in the place of others: `key.path=value`, and a run's own lines over those that all runs
//! of a table share.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::{Error, Result};

/// Parses `text` after the replacements in `over`.
pub(super) fn parse<T: DeserializeOwned>(text: &str, over: &Table) -> Result<T> {
    // The text itself when nothing is replaced: errors then show the line.
    if over.is_empty() {
        return toml::from_str(text).map_err(|e| Error::Plan(e.to_string()));
    }
    let mut table: Table = toml::from_str(text).map_err(|e| Error::Plan(e.to_string()))?;
    merge(&mut table, over.clone());
    from_table(table)
}

/// All of `key.path=value` as one table.
pub(super) fn table(set: &[String]) -> Result<Table> {
    let mut table = Table::new();
    for pair in set {
        merge(&mut table, one(pair)?);
    }
    Ok(table)
}

pub(super) fn from_table<T: DeserializeOwned>(table: Table) -> Result<T> {
    table.try_into().map_err(|e: toml::de::Error| Error::Plan(e.to_string().trim_end().to_owned()))
}

/// Keys with two names: setting one replaces the value of the other.
const SAME: [(&str, &str); 3] = [("config", "stages"), ("train_layers", "trainable"), ("map", "layers")];

/// Puts `over` in the place of what `base` says, table by table.
pub(super) fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        for (one, other) in SAME {
            if key == one || key == other {
                base.remove(if key == one { other } else { one });
            }
        }
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// `a.b=1` as the table `{ a = { b = 1 } }`. What is no TOML value is taken as a string.
fn one(pair: &str) -> Result<Table> {
    let bad = || Error::Plan(format!("{pair:?} is not key=value, such as run.seed=2"));
    let (key, value) = pair.split_once('=').ok_or_else(bad)?;
    let parsed: Option<Table> = toml::from_str(&format!("v = {value}")).ok();
    let parsed = parsed.filter(|t| t.len() == 1).and_then(|mut t| t.remove("v"));
    let mut value = parsed.unwrap_or_else(|| Value::String(value.trim().to_owned()));
    for part in key.trim().rsplit('.') {
        if part.is_empty() {
            return Err(bad());
        }
        value = Value::Table(Table::from_iter([(part.to_owned(), value)]));
    }
    match value {
        Value::Table(table) => Ok(table),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_reaches_into_tables_and_keeps_the_rest() {
        let mut table: Table = toml::from_str("a = { b = 1, c = [2] }\nd = 3").unwrap();
        for pair in ["a.b=0.5", "a.e = mini", "d=[1, 2]", "f.g=true"] {
            merge(&mut table, one(pair).unwrap());
        }
        let expected: Table =
            toml::from_str("a = { b = 0.5, c = [2], e = \"mini\" }\nd = [1, 2]\nf = { g = true }").unwrap();
        assert_eq!(table, expected);
        assert!(one("a").is_err() && one("a..b=1").is_err() && one("=1").is_err());
    }
}
