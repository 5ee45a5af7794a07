//! Names that are not UTF-8 or contain control characters: files are found by their bytes, and names are
//! printed in escaped form.

#![cfg(unix)]

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use common::{experiment_file, init, ok, small_set, stderr, vgg};
use serde_json::Value;

#[test]
fn names_that_are_not_utf8_are_read_and_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    small_set(dir);
    init(dir, "0.05", "w");
    let image = OsStr::from_bytes(b"caf\xe9.jpg");
    std::fs::copy(dir.join("set/val/barred-cross/00000.jpg"), dir.join(image)).unwrap();
    let predict = vgg(dir).args(["predict", "--weights", "w"]).arg(image).output().unwrap();
    assert!(predict.status.success(), "{}", stderr(&predict));
    assert!(predict.stdout.starts_with(b"caf\\xe9.jpg\n"));
    let predict = vgg(dir).args(["predict", "--json", "--weights", "w"]).arg(image).output().unwrap();
    let predictions: Value = serde_json::from_slice(&predict.stdout).unwrap();
    assert_eq!(predictions[0]["path"], "caf\\xe9.jpg");

    let set = OsStr::from_bytes(b"set\xff");
    std::fs::rename(dir.join("set"), dir.join(set)).unwrap();
    let inspect = vgg(dir).args(["data", "inspect", "--json"]).arg(set).output().unwrap();
    let about: Value = serde_json::from_slice(&inspect.stdout).unwrap();
    assert_eq!(about["dataset"], "set\\xff");
    experiment_file(dir);
    let train = vgg(dir).args(["train", "a.toml", "--out", "run", "--dataset"]).arg(set).output().unwrap();
    assert!(train.status.success(), "{}", stderr(&train));
    let run: Value = serde_json::from_slice(&std::fs::read(dir.join("run/run.json")).unwrap()).unwrap();
    assert_eq!(run["settings"]["data"].get("dataset"), None);
}

#[test]
fn control_characters_of_names_are_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    small_set(dir);
    for split in ["train", "val"] {
        let split = dir.join("set").join(split);
        std::fs::rename(split.join("barred-cross"), split.join("\x1b[31mred\u{9b}0m")).unwrap();
    }
    experiment_file(dir);
    ok(dir, &["train", "a.toml", "--out", "run"]);
    let image = "set/val/\x1b[31mred\u{9b}0m/00000.jpg";
    let weights = ["--weights", "run/weights.safetensors"];
    let evaluate = ["evaluate", "--dataset", "set", "--posteriors", "p"];
    for arguments in [
        &["predict", image][..],
        &["predict", "--json", image],
        &evaluate,
        &["data", "inspect", "set"],
        &["data", "inspect", "--json", "set"],
        &["analyse", "p", "--out", "analysis", "--dataset", "set"],
        &["predict", "\x1b[2Jabsent"],
    ] {
        let mut command = vgg(dir);
        command.args(arguments);
        if ["predict", "evaluate"].contains(&arguments[0]) {
            command.args(weights);
        }
        let output = command.output().unwrap();
        for text in [&output.stdout, &output.stderr] {
            let text = String::from_utf8(text.clone()).unwrap();
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{arguments:?}: {text:?}");
        }
    }
}
