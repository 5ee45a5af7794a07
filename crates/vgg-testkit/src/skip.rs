//! Skipping tests whose requirements are missing.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Reports on stderr that a test of `what` is skipped, bypassing the test harness, which captures the output
/// of passing tests. The same line is printed once per process.
///
/// # Panics
/// If the list in the environment variable `VGG_REQUIRE` contains `what`.
pub fn skip(what: &str, why: &dyn std::fmt::Display) {
    let required = std::env::var("VGG_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == what), "{what} is required: {why}");
    let line = format!("SKIPPED without {what}: {why}");
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}
