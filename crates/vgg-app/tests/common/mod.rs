//! Helpers that run the binary.

#![allow(dead_code, reason = "not every test uses every helper")]

pub mod ranks;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub fn vgg(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vgg"));
    command.current_dir(dir).stdin(Stdio::null());
    command
}

pub fn run(dir: &Path, arguments: &[&str]) -> Output {
    vgg(dir).args(arguments).output().unwrap()
}

/// Runs the binary, asserts success and returns stdout.
pub fn ok(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the binary, asserts the exit code and that stderr contains the words, and returns stderr.
pub fn fails(dir: &Path, arguments: &[&str], code: i32, words: &[&str]) -> String {
    let output = run(dir, arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    for word in words {
        assert!(message.contains(word), "{arguments:?}: no {word:?} in {message}");
    }
    assert_eq!(message.matches("error: ").count(), 1, "one message: {message}");
    let parts: Vec<&str> = message.trim().split(": ").collect();
    let twice = parts.iter().enumerate().find(|(i, part)| part.len() > 12 && parts[..*i].contains(*part));
    assert!(twice.is_none(), "the message repeats itself: {message}");
    message
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A small data set in `dir/set`: two classes, 12 training and 4 validation images.
pub fn small_set(dir: &Path) -> PathBuf {
    let set = dir.join("set");
    if !set.exists() {
        let config = vgg_data::synthetic::SyntheticConfig { seed: 3, train_per_class: 6, val_per_class: 2 };
        vgg_data::synthetic::generate(&set, &config, 2, &|_, _| ()).unwrap();
        for split in ["train", "val"] {
            for class in &vgg_data::synthetic::CLASSES[2..] {
                std::fs::remove_dir_all(set.join(split).join(class)).unwrap();
            }
        }
    }
    set
}

/// Writes the settings file `a.toml` for `dir/set`.
pub fn experiment_file(dir: &Path) -> PathBuf {
    let text = r#"
network   = { config = "A", width = 0.125, head = [16, 16], dropout = 0.5, lrn_style = "alexnet", pool_rounding = "floor", init = { scheme = "he" } }
data      = { dataset = "set", train_scale = [36, 48], crop = 32, interpolation = "bilinear", flip = true, pca_jitter_std = 0.1, pixel_scale = "unit-variance", on_bad_image = "stop" }
optimizer = { momentum_variant = "caffe", batch = 4, micro_batch = 3, momentum = 0.9, weight_decay = 5e-4, decay_biases = false, bias_lr_mult = 1.0 }
schedule  = { kind = "steps", lr = 0.01, gamma = 0.1, milestones = [1] }
validate  = { protocol = "centre", test_scale = 36, every_epochs = 1 }
run       = { seed = 1, max_epochs = 2 }
"#;
    let path = dir.join("a.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Writes random weights of config A for two classes.
pub fn init(dir: &Path, width: &str, out: &str) {
    let size = ["--classes", "2", "--head", "16,16", "--crop", "32"];
    ok(dir, &[&["init", "--config", "A", "--width", width, "--out", out][..], &size].concat());
}
