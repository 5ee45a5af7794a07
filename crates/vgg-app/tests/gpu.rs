//! The program on a GPU, if there is one; and what it says if there is none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::io::Write as _;

use common::{ok, run, stderr};
use serde_json::Value;

/// Whether there is a GPU, by the program's own word.
fn gpu() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let report: Value = serde_json::from_str(&ok(dir.path(), &["doctor", "--json"])).unwrap();
    if let Some(problem) = report["cuda"]["problem"].as_str() {
        let required = std::env::var("VGG_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|what| what == "gpu"), "{problem}");
        let _ = writeln!(std::io::stderr(), "SKIPPED on a GPU: {problem}");
        return false;
    }
    true
}

#[test]
fn without_a_gpu_the_library_is_named_and_auto_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let report: Value = serde_json::from_str(&ok(dir.path(), &["doctor", "--json"])).unwrap();
    let libraries = report["cuda"]["libraries"].as_array().unwrap();
    assert_eq!(libraries.len(), 5);
    let Some(problem) = report["cuda"]["problem"].as_str() else { return };
    // The driver comes first, then what else is missing.
    let missing = libraries.iter().find_map(|library| library["problem"].as_str());
    assert!(problem.contains(missing.unwrap_or("GPU")), "{problem}");
    let small =
        ["bench", "--width", "0.125", "--crop", "32", "--head", "16,16", "--batch", "1", "--samples", "1"];
    let output = run(dir.path(), &[&small[..], &["--device", "cuda"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains(problem), "{}", stderr(&output));
    let output = run(dir.path(), &small);
    assert!(output.status.success());
    assert!(stderr(&output).contains("no GPU is used: "), "{}", stderr(&output));
}

#[test]
fn the_selftest_passes() {
    if !gpu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["gpu-selftest", "--json", "--cudnn-properties", "properties.json"];
    let findings: Value = serde_json::from_str(&ok(dir.path(), &arguments)).unwrap();
    let findings = findings.as_array().unwrap();
    assert!(findings.len() > 700 && findings.iter().all(|finding| finding["passed"] == true));
    let properties = std::fs::read_to_string(dir.path().join("properties.json")).unwrap();
    assert!(serde_json::from_str::<Value>(&properties).is_ok());
}
