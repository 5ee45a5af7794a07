//! Training on ranks that `mpirun` starts.
//!
//! `cargo test -p vgg-app --features mpi --test ranks`

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{experiment_file, fails, ok, small_set, stderr, vgg};

const TRAIN: [&str; 6] = ["train", "a.toml", "--checkpoint-steps", "1", "--set", "run.max_epochs=6"];

/// The binary on some ranks; `None`, said aloud, where it has no MPI.
fn on_ranks(dir: &Path, ranks: usize, out: &str) -> Option<Command> {
    if !cfg!(feature = "mpi") {
        vgg_testkit::skip("ranks of MPI", &"this build has no feature mpi");
        return None;
    }
    let mut command = Command::new("mpirun");
    // Containers have one user, and fewer cores than ranks.
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.args(["--oversubscribe", "-n", &ranks.to_string()]).arg(vgg(dir).get_program());
    command.args(TRAIN).args(["--out", out]).current_dir(dir).stdin(Stdio::null());
    Some(command)
}

fn read(dir: &Path, file: &str) -> Vec<u8> {
    std::fs::read(dir.join(file)).unwrap()
}

#[test]
fn ranks_of_mpi_come_to_what_one_process_comes_to() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    experiment_file(dir);
    ok(dir, &[&TRAIN[..], &["--out", "one"]].concat());
    for ranks in [2, 4] {
        let mut first = Vec::new();
        for out in ["a", "b"] {
            let out = format!("{out}{ranks}");
            let Some(mut command) = on_ranks(dir, ranks, &out) else { return };
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
            assert_eq!(
                stderr(&output).matches("device: cpu").count(),
                1,
                "one rank speaks: {}",
                stderr(&output)
            );
            let weights = read(dir, &format!("{out}/weights.safetensors"));
            assert!(first.is_empty() || first == weights, "{ranks} ranks, twice");
            first = weights;
        }
        let losses = |out: &str| -> Vec<f64> {
            let text = String::from_utf8(read(dir, &format!("{out}/metrics.jsonl"))).unwrap();
            text.lines()
                .map(|line| {
                    serde_json::from_str::<serde_json::Value>(line).unwrap()["train_loss"].as_f64().unwrap()
                })
                .collect()
        };
        let (ours, single) = (losses(&format!("a{ranks}")), losses("one"));
        assert!(ours.iter().zip(&single).all(|(a, b)| (a - b).abs() < 1e-4), "{ours:?}, {single:?}");
    }
}

#[test]
fn a_rank_that_dies_ends_all_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    experiment_file(dir);
    let Some(mut command) = on_ranks(dir, 2, "run") else { return };
    command.args(["--set", "run.max_epochs=4000"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    while std::fs::read_dir(dir.join("run/checkpoints")).map_or(0, Iterator::count) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before its first checkpoint");
        std::thread::sleep(Duration::from_millis(20));
    }
    let of_program = Command::new("pgrep").args(["-P", &child.id().to_string()]).output().unwrap();
    let ranks = String::from_utf8(of_program.stdout).unwrap();
    let last = ranks.split_whitespace().last().unwrap();
    assert!(Command::new("kill").args(["-KILL", last]).status().unwrap().success());
    let killed = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success() && killed.elapsed() < Duration::from_secs(60));
    assert!(stderr(&output).contains("rank"), "it is said which: {}", stderr(&output));
    // One process goes on where two were.
    let may_differ = ["--out", "run", "--may-differ", "train.max_epochs"];
    let resumed = vgg(dir).args(TRAIN).args(may_differ).args(["--set", "run.max_epochs=1"]).output().unwrap();
    assert!(stderr(&resumed).contains("goes on after"), "{}", stderr(&resumed));
}

#[test]
fn ranks_that_cannot_find_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    experiment_file(dir);
    let refused = |variables: &[(&str, &str)]| {
        let output = vgg(dir).args(TRAIN).envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    let message = refused(&[("OMPI_COMM_WORLD_RANK", "0")]);
    assert!(message.contains("OMPI_COMM_WORLD_SIZE"), "{message}");
    let torchrun = [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "1")];
    let message = refused(&torchrun);
    assert!(message.contains("torchrun") && message.contains("rank 0 of 2"), "{message}");
    fails(dir, &["train", "a.toml", "--checkpoint-minutes=-1"], 2, &["checkpoint-minutes"]);
}
