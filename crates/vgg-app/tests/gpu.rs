//! The program on a GPU, if there is one; and what it says if there is none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::io::Write as _;
use std::path::Path;

use common::ranks::{Launcher, start, start_by_variables};
use common::{experiment_file, ok, run, small_set, stderr, vgg};
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

#[test]
fn a_run_on_the_gpu_is_the_cpus() {
    if !gpu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    experiment_file(dir.path());
    let losses = |out: &str, device: &[&str]| -> Vec<f64> {
        ok(dir.path(), &[&["train", "a.toml", "--out", out], device].concat());
        let metrics = std::fs::read_to_string(dir.path().join(out).join("metrics.jsonl")).unwrap();
        let epochs = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        epochs.map(|epoch| epoch["train_loss"].as_f64().unwrap()).collect()
    };
    let cpu = losses("cpu", &["--device", "cpu"]);
    for (precision, tolerance) in [("f32", 1e-4), ("tf32", 5e-3), ("bf16", 5e-2)] {
        let gpu = losses(precision, &["--device", "cuda", "--precision", precision]);
        assert_eq!(gpu.len(), cpu.len());
        for (a, b) in gpu.iter().zip(&cpu) {
            assert!((a - b).abs() <= tolerance * b, "{precision}: losses {gpu:?}, on the CPU {cpu:?}");
        }
    }
    // Dense evaluation of the same weights.
    let evaluate = |device: &[&str], out: &str| {
        let weights =
            ["evaluate", "--weights", "cpu/weights.safetensors", "--dataset", "set", "--posteriors", out];
        ok(dir.path(), &[&weights[..], device].concat());
        vgg_eval::Posteriors::load(&dir.path().join(out)).unwrap().values
    };
    let cpu = evaluate(&["--device", "cpu"], "cpu.safetensors");
    let gpu = evaluate(&["--device", "cuda", "--precision", "f32"], "gpu.safetensors");
    let apart = cpu.iter().zip(&gpu).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(apart < 1e-5, "posteriors differ by {apart}");
}

#[test]
fn ranks_have_a_gpu_each() {
    if !gpu() || !ok(Path::new("."), &["doctor"]).contains("emulated GPU") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    experiment_file(dir);
    let train = ["train", "a.toml", "--device", "cuda", "--precision", "f32", "--out"];
    let losses = |out: &str| -> Vec<f64> {
        let metrics = std::fs::read_to_string(dir.join(out).join("metrics.jsonl")).unwrap();
        let epochs = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        epochs.map(|epoch| epoch["train_loss"].as_f64().unwrap()).collect()
    };
    ok(dir, &[&train[..], &["one"]].concat());
    for out in ["first", "second"] {
        let output = start(Launcher::Variables, dir, 3, &[&train[..], &[out]].concat()).end();
        assert!(output.status.success(), "{}", stderr(&output));
        let apart = losses(out).iter().zip(losses("one")).fold(0.0_f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(apart < 1e-4, "losses {apart:e} apart");
    }
    let weights = |out: &str| std::fs::read(dir.join(out).join("weights.safetensors")).unwrap();
    assert!(weights("first") == weights("second"), "ranks come to the same bits each time");
    // One that is killed leaves the others within NCCL, where they would wait for ever.
    let endless = ["--set", "run.max_epochs=100000", "--checkpoint-steps", "1"];
    let all = start(Launcher::Variables, dir, 3, &[&train[..], &["killed"], &endless].concat());
    while !dir.join("killed/checkpoints/step-00000002").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    all.signal_last("-KILL");
    let killed = std::time::Instant::now();
    let output = all.end();
    assert!(!output.status.success() && killed.elapsed().as_secs() < 60);
    assert!(stderr(&output).contains("rank 2 is gone"), "{}", stderr(&output));
    // Of two GPUs, none is the third rank's.
    let binary = Path::new(env!("CARGO_BIN_EXE_vgg"));
    let two = [("VGG_EMULATED_GPUS", "2")];
    let all = start_by_variables(binary, &two, dir, 3, &[&train[..], &["third"]].concat());
    let output = all.end();
    assert!(!output.status.success());
    let message = stderr(&output);
    assert!(message.contains("error on rank 2 of 3") && message.contains("there is no GPU 2"), "{message}");
    assert!(message.contains("rank 2 is gone"), "{message}");
}

#[test]
fn what_does_not_fit_a_gpu_is_refused_with_what_would() {
    if !gpu() || !ok(Path::new("."), &["doctor"]).contains("emulated GPU") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    experiment_file(dir.path());
    let run = |mib: &str| {
        let mut command = vgg(dir.path());
        command.args(["train", "a.toml", "--device", "cuda", "--out", "run"]);
        let large =
            ["network.width=0.5", "data.crop=224", "data.train_side=[224,256]", "validate.test_side=224"];
        for setting in large.into_iter().chain(["optimizer.batch=12", "optimizer.micro_batch=12"]) {
            command.args(["--set", setting]);
        }
        command.env("VGG_EMULATED_MIB", mib).output().unwrap()
    };
    let output = run("112");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(message.contains("micro_batch = 12 needs 0.") && message.contains("fits"), "{message}");
    assert!(!dir.path().join("run").exists());
    let message = stderr(&run("40"));
    assert!(message.contains("even with one image"), "{message}");
}
