//! Comparison of run identities: JSON with all settings that determine a run, compared leaf by leaf.

use std::path::Path;

use serde_json::Value;
use vgg_tensor::ProcessGroup;

use crate::{Error, Result};

/// Checks that a run has the same identity as before. Settings may differ whose path, such as
/// `run.max_epochs`, or the parent of whose path is in `allowed`.
///
/// # Errors
/// [`Error::OtherRun`] with every difference that is not allowed.
pub fn refuse_other(dir: &Path, before: &Value, now: &Value, allowed: &[String]) -> Result<()> {
    let mut differences = differences(before, now, ["before", "now"]);
    differences.retain(|(what, _)| {
        !allowed
            .iter()
            .any(|a| what == a || what.strip_prefix(a.as_str()).is_some_and(|r| r.starts_with('.')))
    });
    if differences.is_empty() {
        return Ok(());
    }
    let differences = differences.into_iter().map(|(what, how)| format!("{what}: {how}")).collect();
    Err(Error::OtherRun { path: dir.to_owned(), differences })
}

/// Checks that all ranks have the same identity.
///
/// # Errors
/// [`Error::OtherRank`] on each rank that differs from rank 0, with every difference; [`Error::Config`] if
/// the identity of rank 0 is not JSON.
pub(crate) fn refuse_other_ranks(identity: &Value, group: &dyn ProcessGroup) -> Result<()> {
    if group.size() == 1 {
        return Ok(());
    }
    let first = &group.all_gather_bytes(identity.to_string().as_bytes())?[0];
    let first: Value = serde_json::from_slice(first)
        .map_err(|e| Error::Config(format!("rank 0 runs a different program: {e}")))?;
    let differences = differences(&first, identity, ["on rank 0", "here"]);
    if differences.is_empty() {
        return Ok(());
    }
    let differences = differences.into_iter().map(|(what, how)| format!("{what}: {how}")).collect();
    Err(Error::OtherRank { rank: group.rank(), differences })
}

/// Paths of the values that differ, and both values, each followed by its word of `words`.
fn differences(a: &Value, b: &Value, words: [&str; 2]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    compare("", a, b, words, &mut found);
    found
}

fn compare(path: &str, a: &Value, b: &Value, words: [&str; 2], found: &mut Vec<(String, String)>) {
    let (Value::Object(a), Value::Object(b)) = (a, b) else {
        if a != b {
            let how = format!("{} {}, {} {}", short(a), words[0], short(b), words[1]);
            found.push((path.to_owned(), how));
        }
        return;
    };
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let of = |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or_default();
        compare(&path, &of(a), &of(b), words, found);
    }
}

/// A value as text, cut to 60 characters.
fn short(value: &Value) -> String {
    const MOST: usize = 60;
    let text = match value {
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_listed_unless_allowed() {
        let before = json!({ "train": { "seed": 1, "lr": 0.1 }, "batch": 8, "gone": true });
        let now = json!({ "train": { "seed": 2, "lr": 0.2 }, "batch": 8 });
        let refused = |allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
            match refuse_other(Path::new("x"), &before, &now, &allowed) {
                Err(Error::OtherRun { differences, .. }) => differences,
                _ => Vec::new(),
            }
        };
        let all =
            ["gone: true before, none now", "train.lr: 0.1 before, 0.2 now", "train.seed: 1 before, 2 now"];
        assert_eq!(refused(&[]), all);
        assert_eq!(refused(&["train.lr", "gone"]), all[2..]);
        assert_eq!(refused(&["train", "gone"]), [""; 0]);
        assert_eq!(refused(&["tra"]), all);
    }
}
