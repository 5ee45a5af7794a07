//! What a test does where something that it needs is not there.

use std::io::Write as _;

/// Says aloud that a test of `what` is skipped, past the test harness, which keeps what a passing test prints to itself.
///
/// # Panics
/// If the environment variable `VGG_REQUIRE` names `what` in its list: then its absence is a failure.
pub fn skip(what: &str, why: &dyn std::fmt::Display) {
    let required = std::env::var("VGG_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == what), "{what} is required: {why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED without {what}: {why}");
}
