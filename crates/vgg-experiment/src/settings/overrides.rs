//! Overrides of settings: `key.path=value`, and a run's own settings over those shared by all runs of a
//! recipe.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::{Error, Result};

/// Parses `text` with the overrides `over`.
pub(super) fn parse<T: DeserializeOwned>(text: &str, over: &Table) -> Result<T> {
    // Without overrides, parse the text itself: errors then show the line.
    if over.is_empty() {
        return toml::from_str(text).map_err(|e| Error::Plan(e.to_string()));
    }
    let mut table: Table = toml::from_str(text).map_err(|e| Error::Plan(e.to_string()))?;
    merge(&mut table, over.clone());
    from_table(table)
}

/// Combines all `key.path=value` overrides in one table.
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

/// Maximum number of parts of a key.
const MAX_DEPTH: usize = 16;

/// Keys that exclude each other: setting one removes the other.
const EXCLUSIVE: [&str; 2] = ["config", "stages"];

/// Overrides `base` with `over`, recursively.
pub(super) fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        if EXCLUSIVE.contains(&key.as_str()) {
            EXCLUSIVE.iter().filter(|other| **other != key).for_each(|other| drop(base.remove(*other)));
        }
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Parses `a.b=1` to the table `{ a = { b = 1 } }`. A value that is not TOML is taken as a string.
fn one(pair: &str) -> Result<Table> {
    let bad = || Error::Plan(format!("{pair:?} is not key=value, such as run.seed=2"));
    let (key, value) = pair.split_once('=').ok_or_else(bad)?;
    let parsed: Option<Table> = toml::from_str(&format!("v = {value}")).ok();
    let parsed = parsed.filter(|t| t.len() == 1).and_then(|mut t| t.remove("v"));
    let mut value = parsed.unwrap_or_else(|| Value::String(value.trim().to_owned()));
    // Tables are merged by recursion.
    if key.split('.').count() > MAX_DEPTH {
        return Err(Error::Plan(format!("a key has more than {MAX_DEPTH} parts")));
    }
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
    fn keys_have_a_limited_number_of_parts() {
        assert!(one(&format!("{}=1", vec!["a"; MAX_DEPTH].join("."))).is_ok());
        let message = one(&format!("{}=1", vec!["a"; 60_000].join("."))).unwrap_err().to_string();
        assert_eq!(message, "a key has more than 16 parts");
    }

    #[test]
    fn overrides_merge_into_nested_tables() {
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
