//! Whether two runs are the same: what determines each, as JSON, compared leaf by leaf.

use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// Looks whether what determines a run is what determined it before, but for what is `allowed`: paths such as `train.max_epochs`,
/// or the beginning of some.
///
/// # Errors
/// [`Error::OtherRun`] with every difference that is not allowed.
pub fn refuse_other(dir: &Path, before: &Value, now: &Value, allowed: &[String]) -> Result<()> {
    let mut differences = differences(before, now);
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

/// Paths of what differs, and how.
fn differences(before: &Value, now: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    compare("", before, now, &mut found);
    found
}

fn compare(path: &str, before: &Value, now: &Value, found: &mut Vec<(String, String)>) {
    let (Value::Object(a), Value::Object(b)) = (before, now) else {
        if before != now {
            found.push((path.to_owned(), format!("{} before, {} now", short(before), short(now))));
        }
        return;
    };
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let of = |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or_default();
        compare(&path, &of(a), &of(b), found);
    }
}

/// A value on part of a line.
fn short(value: &Value) -> String {
    const MOST: usize = 60;
    let text = match value {
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_differs_is_listed_unless_it_is_allowed() {
        let before = json!({ "train": { "seed": 1, "lr": 0.1 }, "batch": 8, "gone": true });
        let now = json!({ "train": { "seed": 2, "lr": 0.2 }, "batch": 8 });
        let refused = |allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
            match refuse_other(Path::new("x"), &before, &now, &allowed) {
                Err(Error::OtherRun { differences, .. }) => differences,
                _ => Vec::new(),
            }
        };
        let all = [
            "gone: true before, nothing now",
            "train.lr: 0.1 before, 0.2 now",
            "train.seed: 1 before, 2 now",
        ];
        assert_eq!(refused(&[]), all);
        assert_eq!(refused(&["train.lr", "gone"]), all[2..]);
        assert_eq!(refused(&["train", "gone"]), [""; 0]);
        assert_eq!(refused(&["tra"]), all);
    }
}
