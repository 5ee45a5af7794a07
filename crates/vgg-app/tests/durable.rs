//! Training that is killed, has no room or is taken up by another, as the user sees it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{experiment_file, fails, ok, run, small_set, stderr, vgg};
use vgg_testkit::{SmallDisk, fmix32};

/// Dropout, scale jitter and a plateau: all that has a state.
fn plateau(dir: &Path) {
    small_set(dir);
    let path = experiment_file(dir);
    let text = std::fs::read_to_string(&path).unwrap();
    let steps = r#"{ kind = "steps", lr = 0.01, factor = 0.1, at = [0.5] }"#;
    let plateau = r#"{ kind = "plateau", lr = 0.01, factor = 0.1, max_drops = 3, patience_epochs = 1, min_gain = 0.001, then = "continue" }"#;
    assert!(text.contains(steps));
    std::fs::write(path, text.replace(steps, plateau)).unwrap();
}

const TRAIN: [&str; 7] = ["train", "a.toml", "--set", "run.max_epochs=8", "--checkpoint-steps", "2", "--out"];

#[test]
fn killed_twice_at_any_moment_it_comes_to_the_same_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    plateau(dir);
    let endless = ["train", "a.toml", "--set", "run.max_epochs=100000", "--checkpoint-steps", "2"];
    let endless = [&endless[..], &["--keep-checkpoints", "60000", "--out"]].concat();
    // Eight epochs.
    const LAST: &str = "checkpoints/step-00000024";
    let begin = |out: &str, how: &[&str]| {
        let mut command = vgg(dir);
        command.args(&endless).arg(out).args(how).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let until_last = |out: &str, how: &[&str]| {
        let since = Instant::now();
        let mut child = begin(out, how);
        while !dir.join(out).join(LAST).exists() {
            assert!(child.try_wait().unwrap().is_none() && since.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        since.elapsed()
    };
    let took = until_last("whole", &["--threads", "1", "--workers", "1"]);
    let read = |out: &str, file: &str| std::fs::read(dir.join(out).join(LAST).join(file)).unwrap();
    let mut killed = 0;
    for attempt in 0..attempts() {
        let out = format!("parts-{attempt}");
        for kill in 0..2 {
            let moment = f64::from(fmix32(attempt * 2 + kill)) / f64::from(u32::MAX);
            let mut child = begin(&out, &["--threads", "2", "--workers", "3"]);
            // Both within the time of one.
            std::thread::sleep(took.mul_f64(moment / 2.0).max(Duration::from_millis(2)));
            killed += u32::from(!dir.join(&out).join(LAST).exists());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        until_last(&out, &["--threads", "1", "--workers", "2"]);
        for file in ["weights.safetensors", "velocity.safetensors", "state.json"] {
            assert!(read(&out, file) == read("whole", file), "{file} of attempt {attempt} differs");
        }
        std::fs::remove_dir_all(dir.join(out)).unwrap();
    }
    assert!(killed >= attempts(), "{killed} were killed before their end");
}

/// Twenty, or as many as `VGG_KILLED_RUNS` says.
fn attempts() -> u32 {
    std::env::var("VGG_KILLED_RUNS").map_or(20, |number| number.parse().unwrap())
}

#[test]
fn killed_it_comes_to_the_same_end() {
    let dir = tempfile::tempdir().unwrap();
    plateau(dir.path());
    let start = Instant::now();
    ok(dir.path(), &[&TRAIN[..], &["whole", "--threads", "1", "--workers", "1"]].concat());
    let half = start.elapsed() / 2;
    let parts = [&TRAIN[..], &["parts", "--threads", "2", "--workers", "3"]].concat();
    let mut child = vgg(dir.path()).args(&parts).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(half);
    child.kill().unwrap();
    child.wait().unwrap();
    ok(dir.path(), &[&TRAIN[..], &["parts", "--threads", "1", "--workers", "2"]].concat());
    let read = |out: &str, file: &str| std::fs::read(dir.path().join(out).join(file)).unwrap();
    for file in ["weights.safetensors", "metrics.jsonl", "metrics.csv"] {
        assert!(read("parts", file) == read("whole", file), "{file} differs");
    }
}

#[test]
fn a_small_disk_is_an_error_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    plateau(dir.path());
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 2048) else { return };
    // Of four times the weights a single checkpoint would not fit.
    let wide = ["train", "a.toml", "--set", "network.width=0.25", "--out", "disk/wide"];
    fails(dir.path(), &wide, 74, &["disk/wide has", "MiB free"]);
    // A checkpoint fits, and no second.
    let message =
        fails(dir.path(), &[&TRAIN[..], &["disk/run"]].concat(), 74, &["disk/run", "No space left"]);
    assert!(message.contains("epoch 1/8"), "{message}");
    let left: Vec<_> = std::fs::read_dir(dir.path().join("disk/run/checkpoints")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    // Elsewhere it goes on.
    let mut cp = std::process::Command::new("cp");
    assert!(cp.args(["-r", "disk/run", "moved"]).current_dir(dir.path()).status().unwrap().success());
    let resumed = run(dir.path(), &[&TRAIN[..], &["moved"]].concat());
    assert!(resumed.status.success() && stderr(&resumed).contains("goes on after"), "{}", stderr(&resumed));
    ok(dir.path(), &[&TRAIN[..], &["whole"]].concat());
    let read = |out: &str| std::fs::read(dir.path().join(out).join("weights.safetensors")).unwrap();
    assert!(read("moved") == read("whole"));
    disk.make_read_only();
    fails(dir.path(), &[&TRAIN[..], &["disk/other"]].concat(), 74, &["disk/other", "Read-only"]);
}

#[test]
fn what_a_run_was_begun_with_may_differ_where_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    plateau(dir.path());
    ok(dir.path(), &[&TRAIN[..], &["run"]].concat());
    let longer = ["train", "a.toml", "--set", "run.max_epochs=9", "--set", "run.seed=2", "--out", "run"];
    fails(dir.path(), &longer, 2, &["train.max_epochs: 8 before, 9 now", "train.seed: 1 before, 2 now"]);
    let allowed = [&longer[..], &["--may-differ", "train.max_epochs"]].concat();
    fails(dir.path(), &allowed, 2, &["train.seed: 1 before, 2 now"]);
}

#[test]
fn a_loss_far_above_chance_is_said_aloud() {
    let dir = tempfile::tempdir().unwrap();
    plateau(dir.path());
    let wild = ["train", "a.toml", "--set", "data.pixel_scale=20.0", "--set", "schedule.lr=1e-12"];
    let output = run(dir.path(), &[&wild[..], &["--set", "run.max_epochs=1", "--out", "wild"]].concat());
    assert!(stderr(&output).contains("training diverges"), "{}", stderr(&output));
    let output = run(dir.path(), &[&TRAIN[..], &["tame"]].concat());
    assert!(!stderr(&output).contains("training diverges"), "{}", stderr(&output));
}
