//! The program on a GPU, if there is one, and its messages without one.

mod common;

use std::path::Path;

use common::ranks::{Launcher, start, start_by_variables};
use common::{experiment_file, ok, run, small_set, stderr, vgg};
use serde_json::Value;
use vgg_testkit::assert_close;

/// Whether the program finds a GPU. If not, reports a skip, which is a failure if `VGG_REQUIRE` lists `gpu`.
fn gpu() -> bool {
    let report: Value = serde_json::from_str(&ok(Path::new("."), &["doctor", "--json"])).unwrap();
    let problem = report["cuda"]["problem"].as_str();
    if let Some(problem) = problem {
        vgg_testkit::skip("gpu", &problem);
    }
    problem.is_none()
}

/// Whether the GPU is emulated: only then its number and memory can be chosen. If not, reports a skip.
fn emulated_gpu() -> bool {
    let found = gpu();
    let emulated = found && ok(Path::new("."), &["doctor"]).contains("emulated GPU");
    if found && !emulated {
        vgg_testkit::skip("emulated-gpu", &"the GPU is a real one");
    }
    emulated
}

/// Four epochs of one step: the first eager, the second captured, the last two replayed from the captured
/// graph.
const STEPS: [&str; 4] = ["--set", "optimizer.batch=12", "--set", "run.max_epochs=4"];

/// Relative tolerance of the losses of `STEPS` in f32 against the CPU, per epoch.
///
/// The first epoch starts from the same weights, so only the rounding of a forward pass counts. The second
/// follows one update. From then on rounding may move an activation across the kink of a ReLU or change the
/// maximum of a pool, and trajectories diverge. On the emulator, the largest differences over 20 seeds were
/// 1.3e-6, 8.4e-6, 3.0e-4 and 2.5e-4; longer runs, of six steps, reached 2.3e-2.
const F32: [f64; 4] = [1e-5, 1e-3, 5e-2, 5e-2];
/// Tolerance of the best of three seeds, over all epochs. 19 of 20 seeds stayed within 6.2e-6.
const F32_BEST: f64 = 1e-4;
/// The same in bf16, which rounds 2^16 times as coarsely as f32: at most 8.1e-3, 0.12, 0.26 and 0.28 over 20
/// seeds.
const BF16: [f64; 4] = [2e-2, 0.25, 0.6, 0.6];
/// The same in tf32, which has three more bits than bf16. The emulator computes it in f32.
const TF32: [f64; 4] = [2e-2 / 8.0, 0.25 / 8.0, 0.6, 0.6];

/// Relative differences of the losses of two runs of `STEPS`.
fn relative(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    assert_eq!((ours.len(), theirs.len()), (4, 4));
    assert!(theirs.iter().all(|loss| *loss > 0.0));
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs() / b).collect()
}

fn within(apart: &[f64], tolerances: [f64; 4]) -> bool {
    apart.len() == tolerances.len() && apart.iter().zip(tolerances).all(|(apart, most)| *apart < most)
}

/// Training losses of the epochs of a run.
fn losses(dir: &Path, out: &str) -> Vec<f64> {
    let metrics = std::fs::read_to_string(dir.join(out).join("metrics.jsonl")).unwrap();
    let epochs = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    epochs.map(|epoch| epoch["train_loss"].as_f64().unwrap()).collect()
}

#[test]
fn without_a_gpu_the_missing_library_is_named_and_auto_uses_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let report: Value = serde_json::from_str(&ok(dir.path(), &["doctor", "--json"])).unwrap();
    let libraries = report["cuda"]["libraries"].as_array().unwrap();
    assert_eq!(libraries.len(), 5);
    let Some(problem) = report["cuda"]["problem"].as_str() else {
        vgg_testkit::skip("no-gpu", &"there is a GPU, so no library is missing");
        return;
    };
    // The driver is reported first, then other missing libraries.
    let missing = libraries.iter().find_map(|library| library["problem"].as_str());
    assert!(problem.contains(missing.unwrap_or("GPU")), "{problem}");
    let small =
        ["bench", "--width", "0.125", "--crop", "32", "--head", "16,16", "--batch", "1", "--samples", "1"];
    let output = run(dir.path(), &[&small[..], &["--device", "cuda"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains(problem), "{}", stderr(&output));
    let output = run(dir.path(), &small);
    assert!(output.status.success());
    assert!(stderr(&output).contains("using the CPU: "), "{}", stderr(&output));
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
fn gpu_run_matches_the_cpu() {
    if !gpu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    experiment_file(dir.path());
    let train = |out: &str, seed: &str, device: &[&str]| -> Vec<f64> {
        let seed = format!("run.seed={seed}");
        ok(dir.path(), &[&["train", "a.toml", "--out", out, "--set", &seed], &STEPS[..], device].concat());
        losses(dir.path(), out)
    };
    for (precision, tolerances) in [("tf32", TF32), ("bf16", BF16)] {
        let gpu = train(precision, "1", &["--device", "cuda", "--precision", precision]);
        let cpu = train(&format!("cpu-{precision}"), "1", &["--device", "cpu"]);
        let apart = relative(&gpu, &cpu);
        assert!(within(&apart, tolerances), "{precision}: {apart:?} of the losses {cpu:?}");
    }
    let mut best = f64::INFINITY;
    for seed in ["1", "2", "3"] {
        let gpu = train(&format!("gpu-{seed}"), seed, &["--device", "cuda", "--precision", "f32"]);
        let cpu = train(&format!("cpu-{seed}"), seed, &["--device", "cpu"]);
        let apart = relative(&gpu, &cpu);
        assert!(within(&apart, F32), "{apart:?} of the losses {cpu:?}");
        best = best.min(apart.into_iter().fold(0.0, f64::max));
    }
    assert!(best < F32_BEST, "{best:e}");
    // Dense evaluation with the same weights.
    let evaluate = |device: &[&str], out: &str| {
        let weights =
            ["evaluate", "--weights", "cpu-1/weights.safetensors", "--dataset", "set", "--posteriors", out];
        ok(dir.path(), &[&weights[..], device].concat());
        vgg_eval::Posteriors::load(&dir.path().join(out)).unwrap().values
    };
    let cpu = evaluate(&["--device", "cpu"], "cpu.safetensors");
    let gpu = evaluate(&["--device", "cuda", "--precision", "f32"], "gpu.safetensors");
    assert_eq!(gpu.dim(), cpu.dim());
    // Forward passes in f32 that differ in the order of summation; 2e-7 on the emulator.
    assert_close(gpu.as_slice().unwrap(), cpu.as_slice().unwrap(), 1e-5, "posteriors");
}

#[test]
fn each_rank_uses_its_own_gpu() {
    if !emulated_gpu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    experiment_file(dir);
    let train = ["train", "a.toml", "--device", "cuda", "--precision", "f32"];
    let train = [&train[..], &STEPS, &["--out"]].concat();
    ok(dir, &[&train[..], &["one"]].concat());
    for out in ["first", "second"] {
        let output = start(Launcher::Variables, dir, 3, &[&train[..], &[out]].concat()).end();
        assert!(output.status.success(), "{}", stderr(&output));
        let apart = relative(&losses(dir, out), &losses(dir, "one"));
        assert!(within(&apart, F32), "{apart:?}");
    }
    let weights = |out: &str| std::fs::read(dir.join(out).join("weights.safetensors")).unwrap();
    assert!(weights("first") == weights("second"), "weights differ between two identical runs");
    // A killed rank leaves the others in an NCCL call, which would block for ever.
    let endless = ["--set", "run.max_epochs=100000", "--checkpoint-steps", "1"];
    let all = start(Launcher::Variables, dir, 3, &[&train[..], &["killed"], &endless].concat());
    while !dir.join("killed/checkpoints/step-00000002").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    all.signal_last("-KILL");
    let killed = std::time::Instant::now();
    let output = all.end();
    assert!(!output.status.success() && killed.elapsed().as_secs() < 60);
    assert!(stderr(&output).contains("rank 2 has disconnected"), "{}", stderr(&output));
    // With two GPUs, the third rank has none.
    let binary = Path::new(env!("CARGO_BIN_EXE_vgg"));
    let two = [("VGG_EMULATED_GPUS", "2")];
    let all = start_by_variables(binary, &two, dir, 3, &[&train[..], &["third"]].concat());
    let output = all.end();
    assert!(!output.status.success());
    let message = stderr(&output);
    assert!(message.contains("error on rank 2 of 3") && message.contains("there is no GPU 2"), "{message}");
    assert!(message.contains("rank 2 has disconnected"), "{message}");
}

#[test]
fn too_large_micro_batch_is_rejected_with_one_that_fits() {
    if !emulated_gpu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    experiment_file(dir.path());
    let run = |mib: &str| {
        let mut command = vgg(dir.path());
        command.args(["train", "a.toml", "--device", "cuda", "--out", "run"]);
        let large =
            ["network.width=0.5", "data.crop=224", "data.train_scale=[224,256]", "validate.test_scale=224"];
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
    assert!(message.contains("not even one image fits"), "{message}");
}
