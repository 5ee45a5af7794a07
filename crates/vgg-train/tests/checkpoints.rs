//! Checkpoints: when they are written, which are kept, and how a run resumes from them.

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Run, Seen, checkpoints, pictures, run, state};
use serde_json::json;
use vgg_tensor::on_thread_ranks;
use vgg_train::{Checkpoints, Error, Resume, TrainConfig, has_checkpoints, remove_checkpoints};

fn epochs(max_epochs: usize, validate_every: usize) -> TrainConfig {
    TrainConfig { max_epochs, validate_every, ..Run::default().config }
}

/// Keeps this many checkpoints, and writes none within epochs.
fn keep(keep: usize) -> Checkpoints {
    Checkpoints { every_steps: None, every: None, keep }
}

#[test]
fn the_newest_and_the_best_checkpoints_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let kept = |name: &str, checkpoints_kept: usize, errors: &[f64], stop: usize| {
        let out = dir.path().join(name);
        let attempt = Run {
            config: epochs(6, 1),
            checkpoints: keep(checkpoints_kept),
            errors: errors.to_vec(),
            stop: Some(stop),
            ..Run::default()
        };
        run(&set, &out, &attempt).0.unwrap();
        checkpoints(&out)
    };
    // Best after the second epoch, worst after the third; stopped in the sixth.
    assert_eq!(kept("best", 2, &[0.5, 0.3, 0.9, 0.6, 0.4], 22), [8, 20, 22]);
    // The first of equal errors is the best.
    assert_eq!(kept("equal", 2, &[0.5, 0.3, 0.3, 0.6, 0.4], 22), [8, 20, 22]);
    assert_eq!(kept("three", 3, &[0.3, 0.5, 0.6, 0.6, 0.4], 22), [4, 16, 20, 22]);
    assert_eq!(kept("none", 0, &[0.3, 0.5, 0.6, 0.6, 0.4], 22), [4, 22]);
    // A finished run keeps the last and the best.
    assert_eq!(kept("finished", 2, &[0.5, 0.3, 0.9, 0.6, 0.4, 0.6], 99), [8, 24]);
    assert_eq!(kept("last is best", 2, &[0.5, 0.4, 0.9, 0.6, 0.4, 0.1], 99), [24]);
}

#[test]
fn checkpoints_within_an_epoch_follow_steps_or_time() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let policy = |every_steps, every| Checkpoints { every_steps, every, keep: 99 };
    let made = |name: &str, checkpoints_made: Checkpoints, stop: usize| {
        let out = dir.path().join(name);
        let attempt =
            Run { config: epochs(3, 1), checkpoints: checkpoints_made, stop: Some(stop), ..Run::default() };
        run(&set, &out, &attempt).0.unwrap();
        checkpoints(&out)
    };
    // Every epoch counts from 0, and its end has its own checkpoint.
    assert_eq!(made("3 steps", policy(Some(3), None), 10), [3, 4, 7, 8, 10]);
    // After the first step no checkpoint is being written; after later ones the disk may be busy.
    let at_once = made("no time", policy(None, Some(Duration::ZERO)), 3);
    assert_eq!((at_once.first(), at_once.last()), (Some(&1), Some(&3)));
    assert_eq!(made("an hour", policy(None, Some(Duration::from_secs(3600))), 7), [4, 7]);
    assert_eq!(made("never", policy(None, None), 7), [4, 7]);
    let defaults = Checkpoints::default();
    assert_eq!(defaults, Checkpoints { every_steps: None, every: Some(Duration::from_secs(600)), keep: 2 });
}

#[test]
fn a_resumed_run_is_bitwise_identical_to_an_uninterrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let errors = vec![0.5, 0.3, 0.9];
    let complete = Run { errors: errors.clone(), ..Run::default() };
    run(&set, &whole, &complete).0.unwrap();
    // Two steps into the second epoch.
    let (outcome, _, seen) =
        run(&set, &parts, &Run { stop: Some(6), errors: errors.clone(), ..Run::default() });
    let outcome = outcome.unwrap();
    assert!(outcome.interrupted && outcome.metrics.len() == 1);
    assert_eq!(seen.iter().filter(|s| matches!(s, Seen::Step { .. })).count(), 6);
    let saved = state(&parts, 6);
    assert_eq!(
        (&saved["epochs"], &saved["step"], &saved["current_epoch"]["batches"]),
        (&json!(1), &json!(6), &json!(2))
    );
    assert_eq!(saved["current_epoch"]["ranks"][0]["sums"]["n"], 8);
    assert!(!parts.join("weights.safetensors").exists());
    let (_, _, seen) = run(&set, &parts, &Run { errors: errors[1..].to_vec(), ..Run::default() });
    assert_eq!(
        seen[..2],
        [Seen::Resumed { epochs: 1, batches: 2 }, Seen::Step { epoch: 2, step: 3, steps: 4, images: 4 }]
    );
    for file in ["weights.safetensors", "metrics.jsonl", "metrics.csv"] {
        let read = |out: &Path| std::fs::read(out.join(file)).unwrap();
        assert!(read(&whole) == read(&parts), "{file}");
    }
    // A finished run has nothing left to do.
    let (outcome, _, seen) = run(&set, &parts, &complete);
    assert_eq!((outcome.unwrap().metrics.len(), seen), (3, vec![Seen::Resumed { epochs: 3, batches: 0 }]));
    // `Resume::Never` starts over.
    let (_, _, seen) = run(&set, &parts, &Run { resume: Resume::Never, ..complete });
    assert_eq!(seen[0], Seen::Step { epoch: 1, step: 1, steps: 4, images: 4 });
    assert_eq!(checkpoints(&parts), [8, 12]);
}

#[test]
fn a_run_interrupted_in_validation_resumes_with_the_validation() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    run(&set, &whole, &Run { errors: vec![0.5, 0.3, 0.9], ..Run::default() }).0.unwrap();
    let stopped = Run { stop_validation: Some(1), ..Run::default() };
    let (outcome, ..) = run(&set, &parts, &stopped);
    let outcome = outcome.unwrap();
    assert!(outcome.interrupted && outcome.metrics.len() == 1);
    let saved = state(&parts, 8);
    assert_eq!((&saved["epochs"], &saved["current_epoch"]["batches"]), (&json!(1), &json!(4)));
    let (_, _, seen) = run(&set, &parts, &Run { errors: vec![0.3, 0.9], ..Run::default() });
    assert_eq!(seen[..3], [Seen::Resumed { epochs: 1, batches: 4 }, Seen::Validated, Seen::Epoch(2)]);
    let read = |out: &Path| std::fs::read(out.join("metrics.jsonl")).unwrap();
    assert!(read(&whole) == read(&parts));
}

#[test]
fn another_identity_is_rejected_unless_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let out = dir.path().join("run");
    let identity = json!({ "seed": 1, "lr": 2 });
    run(&set, &out, &Run { identity: identity.clone(), stop: Some(3), ..Run::default() }).0.unwrap();
    let other = json!({ "seed": 2, "lr": 2 });
    let Err(Error::OtherRun { path, differences }) =
        run(&set, &out, &Run { identity: other.clone(), ..Run::default() }).0
    else {
        panic!()
    };
    assert_eq!((path, differences), (out.clone(), vec!["seed: 1 before, 2 now".to_owned()]));
    let allowed = Run { identity: other.clone(), allow_changes: vec!["seed".into()], ..Run::default() };
    run(&set, &out, &allowed).0.unwrap();
    assert_eq!(state(&out, 12)["identity"], other, "the new identity is saved");
}

#[test]
fn ranks_with_other_settings_than_rank_0_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let out = dir.path().join("run");
    let outcomes = on_thread_ranks(2, |group| {
        let identity = json!({ "seed": 1, "lr": if group.rank() == 0 { 0.1 } else { 0.2 } });
        run(&set, &out, &Run { identity, group, ..Run::default() }).0
    });
    // Rank 0 cannot continue without rank 1.
    assert!(outcomes[0].is_err());
    let Err(Error::OtherRank { rank, differences }) = &outcomes[1] else { panic!("{:?}", outcomes[1]) };
    assert_eq!((*rank, differences.as_slice()), (1, &["lr: 0.1 on rank 0, 0.2 here".to_owned()][..]));
    assert!(!out.join("weights.safetensors").exists());
}

#[test]
fn unreadable_checkpoint_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    // A file in place of the directory.
    let file = dir.path().join("checkpoints");
    std::fs::write(&file, b"").unwrap();
    let message = has_checkpoints(dir.path()).unwrap_err().to_string();
    assert!(message.contains(&file.display().to_string()), "{message}");
    assert!(run(&set, dir.path(), &Run::default()).0.is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"");
}

#[test]
fn damaged_checkpoints_are_renamed_and_checkpoints_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let out = dir.path().join("run");
    assert!(!has_checkpoints(&out).unwrap());
    remove_checkpoints(&out).unwrap();
    run(&set, &out, &Run { stop: Some(6), ..Run::default() }).0.unwrap();
    assert!(has_checkpoints(&out).unwrap());
    assert_eq!(checkpoints(&out), [4, 6]);
    std::fs::write(out.join("checkpoints/step-00000006/state.json"), b"{}").unwrap();
    let (outcome, _, seen) = run(&set, &out, &Run { stop: Some(1), ..Run::default() });
    outcome.unwrap();
    assert_eq!(seen[..2], [Seen::Rejected, Seen::Resumed { epochs: 1, batches: 0 }]);
    assert!(out.join("checkpoints/damaged-step-00000006").is_dir());
    std::fs::remove_dir_all(out.join("checkpoints/damaged-step-00000006")).unwrap();
    assert_eq!(checkpoints(&out), [4, 5]);
    remove_checkpoints(&out).unwrap();
    assert!(!has_checkpoints(&out).unwrap() && !out.join("checkpoints").exists());
}

#[test]
fn interrupting_any_rank_stops_all_and_each_resumes_its_progress() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let out = dir.path().join("run");
    let attempt = |ranks, rank_that_stops, stop| {
        let stopped = on_thread_ranks(ranks, |group| {
            let stop = (group.rank() == rank_that_stops).then_some(stop);
            run(&set, &out, &Run { stop, group, ..Run::default() }).0.unwrap().interrupted
        });
        assert_eq!(stopped, vec![true; ranks]);
    };
    let images = |step| -> Vec<u64> {
        let state = state(&out, step);
        let shares = state["current_epoch"]["ranks"].as_array().unwrap().iter();
        shares.map(|share| share["sums"]["n"].as_u64().unwrap()).collect()
    };
    attempt(3, 1, 6);
    assert_eq!(checkpoints(&out), [4, 6]);
    // Four images are divided into 1, 1 and 2.
    assert_eq!(images(6), [2, 2, 4]);
    attempt(3, 2, 1);
    assert_eq!(images(7), [3, 3, 6]);
    // With another world size, rank 0 resumes the sum of all ranks.
    std::fs::remove_dir_all(out.join("checkpoints/step-00000007")).unwrap();
    attempt(2, 0, 1);
    assert_eq!(images(7), [8 + 2, 2]);
}

#[test]
fn values_that_are_not_finite_are_never_written() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let out = dir.path().join("run");
    run(&set, &out, &Run { stop: Some(2), ..Run::default() }).0.unwrap();
    // The gradients of the third step are finite; with this learning rate, the updated weights are not.
    let schedule = vgg_train::Schedule::Constant { lr: 3e38 };
    let config = TrainConfig { schedule, ..Run::default().config };
    match run(&set, &out, &Run { config, stop: Some(1), ..Run::default() }).0 {
        Err(Error::BadValue { name, step: 3 }) => assert!(name.contains(".weight"), "{name}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(checkpoints(&out), [2], "the previous checkpoint is kept");
    let (_, _, seen) = run(&set, &out, &Run::default());
    assert_eq!(seen[0], Seen::Resumed { epochs: 0, batches: 2 });
}

#[test]
fn ranks_interrupted_in_validation_save_the_progress_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let out = dir.path().join("run");
    let stopped = on_thread_ranks(2, |group| {
        run(&set, &out, &Run { stop_validation: Some(0), group, ..Run::default() }).0.unwrap().interrupted
    });
    assert_eq!(stopped, [true; 2]);
    let saved = state(&out, 4);
    let images: Vec<u64> = saved["current_epoch"]["ranks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["sums"]["n"].as_u64().unwrap())
        .collect();
    assert_eq!((images, &saved["epochs"]), (vec![7, 7], &json!(0)));
}
