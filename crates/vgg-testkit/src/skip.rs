//! What a test does where something that it needs is not there.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Says that a test of `what` is skipped, past the test harness, which keeps what a passing test prints to itself. The same line is
/// printed once a process.
///
/// # Panics
/// If the environment variable `VGG_REQUIRE` names `what` in its list: then its absence is a failure.
pub fn skip(what: &str, why: &dyn std::fmt::Display) {
    let required = std::env::var("VGG_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == what), "{what} is required: {why}");
    let line = format!("SKIPPED without {what}: {why}");
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}
