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
fn killed_twice_at_any_moment_it_comes_to_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    plateau(dir.path());
    let start = Instant::now();
    ok(dir.path(), &[&TRAIN[..], &["whole", "--threads", "1", "--workers", "1"]].concat());
    let took = start.elapsed();
    let read = |out: &str, file: &str| std::fs::read(dir.path().join(out).join(file)).unwrap();
    let mut killed = 0;
    for attempt in 0..20_u32 {
        let out = format!("parts-{attempt}");
        for kill in 0..2 {
            let moment = f64::from(fmix32(attempt * 2 + kill)) / f64::from(u32::MAX);
            let mut child = vgg(dir.path())
                .args([&TRAIN[..], &[&out, "--threads", "2", "--workers", "3"]].concat())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(took.mul_f64(moment).max(Duration::from_millis(2)));
            killed += u32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        ok(dir.path(), &[&TRAIN[..], &[&out, "--threads", "1", "--workers", "2"]].concat());
        for file in ["weights.safetensors", "metrics.jsonl", "metrics.csv"] {
            assert!(read(&out, file) == read("whole", file), "{file} of attempt {attempt} differs");
        }
        std::fs::remove_dir_all(dir.path().join(out)).unwrap();
    }
    assert!(killed > 20, "{killed} of 40 were killed before their end");
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
