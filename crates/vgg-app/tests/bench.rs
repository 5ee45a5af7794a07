//! `vgg bench` from the command line.

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};

use common::{ok, run, stderr};
use serde_json::Value;

const SMALL: [&str; 11] =
    ["bench", "--device", "cpu", "--config", "A", "--width", "0.125", "--crop", "32", "--head", "16,16"];

#[test]
fn json_report_of_a_training_step() {
    let dir = tempfile::tempdir().unwrap();
    let rest = ["--mode", "train", "--batch", "3", "--samples", "1", "--layers", "--json"];
    let text = ok(dir.path(), &[&SMALL[..], &rest[..]].concat());
    let figures: Value = serde_json::from_str(&text).unwrap();
    for field in ["images_per_s", "effective_gflops", "limit_gflops", "limit_read_gb_per_s", "median_ms"] {
        assert!(figures[field].as_f64().unwrap() > 0.0, "{field}");
    }
    // Largest logit difference, relative to the largest logit: each of eight Winograd convolutions may lose
    // 1e-5. Measured 1.3e-6.
    assert!(figures["difference_from_direct"].as_f64().unwrap() < 1e-4);
    let bytes = |field: &str| figures[field].as_f64().unwrap();
    let ratio = bytes("planned_tensor_bytes") / bytes("peak_tensor_bytes");
    assert!((0.9..1.1).contains(&ratio), "planned / peak = {ratio}");
    let layers = figures["layers"].as_array().unwrap();
    let passes = |layer: &str| -> Vec<&str> {
        let of_layer = layers.iter().filter(|row| row["layer"] == layer);
        of_layer.map(|row| row["pass"].as_str().unwrap()).collect()
    };
    assert_eq!(passes("conv1_1"), ["forward", "grad-weight"], "no grad-input for pixels");
    assert_eq!(passes("conv2_1"), ["forward", "grad-weight", "grad-input"]);
    assert_eq!(passes("fc8"), ["forward", "grad-weight", "grad-input"]);
}

#[test]
fn one_sample_per_line_of_stdin() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_vgg"))
        .args(SMALL)
        .args(["--mode", "dense", "--image", "64,40", "--samples-on-stdin"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"\n\n\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let samples: Vec<f64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(samples.len(), 3);
    assert!(samples.iter().all(|ms| *ms > 0.0));
}

#[test]
fn invalid_options_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, says) in [
        (&["bench", "--crop", "50"][..], "crop"),
        (&["bench", "--conv-algorithm", "fft"][..], "auto, direct, winograd2"),
        (&["bench", "--instruction-set", "mmx"][..], "portable"),
        (&["bench", "--json", "--samples-on-stdin"][..], "cannot be used with"),
        (&["bench", "--batch", "0"][..], "batch"),
    ] {
        let output = run(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{arguments:?}: {}", stderr(&output));
    }
}
