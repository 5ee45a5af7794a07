//! A run as a whole: when it validates, what it keeps, what it says, and where it stops.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Run, Seen, checkpoints, on_ranks, pictures, run, state};
use serde_json::{Value, json};
use vgg_data::{ImageSet, OnBadImage, Split};
use vgg_layers::Init;
use vgg_testkit::picture_path;
use vgg_train::{
    Checkpoints, Error, Outcome, Resume, Schedule, Then, TrainConfig, has_checkpoints, remove_checkpoints,
};

fn epochs(max_epochs: usize, validate_every: usize) -> TrainConfig {
    TrainConfig { max_epochs, validate_every, ..Run::default().config }
}

/// Keeps so many checkpoints, none within epochs.
fn keep(keep: usize) -> Checkpoints {
    Checkpoints { every_steps: None, every: None, keep }
}

fn lines(dir: &Path, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_epoch_is_written_down_with_its_steps_and_errors() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let out = dir.path().join("run");
    let config =
        TrainConfig { schedule: Schedule::Steps { lr: 0.01, factor: 0.5, at: vec![0.5] }, ..epochs(3, 1) };
    let errors = vec![0.9, 0.4, 0.6];
    let attempt = Run { config, errors, ..Run::default() };
    let (outcome, network, seen) = run(&set, &out, &attempt);
    let Outcome { metrics, interrupted } = outcome.unwrap();
    assert!(!interrupted && metrics.len() == 3);
    let rows = lines(&out, "metrics.jsonl");
    assert_eq!(rows, metrics.iter().map(|m| serde_json::to_value(m).unwrap()).collect::<Vec<_>>());
    let column = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    assert_eq!(column("epoch"), [1, 2, 3]);
    assert_eq!(column("step"), [4, 8, 12]);
    assert_eq!(column("lr"), [0.01, 0.01, 0.005]);
    assert_eq!(column("val_top1_error"), [0.9, 0.4, 0.6]);
    assert_eq!(column("val_top5_error"), [0.45, 0.2, 0.3]);
    assert_eq!(column("val_loss"), [1.2; 3]);
    assert_eq!(column("skipped"), [0; 3]);
    // Fourteen images: shares of wrong answers are fourteenths.
    for row in &rows {
        let wrong = row["train_top1_error"].as_f64().unwrap() * 14.0;
        assert!((wrong - wrong.round()).abs() < 1e-9 && wrong > 0.0, "{row}");
    }
    let csv = std::fs::read_to_string(out.join("metrics.csv")).unwrap();
    let head = "epoch,step,lr,train_loss,train_top1_error,val_top1_error,val_top5_error,val_loss,skipped";
    assert_eq!(csv.lines().next(), Some(head));
    let cells: Vec<&str> = csv.lines().nth(2).unwrap().split(',').collect();
    assert_eq!([&cells[..3], &cells[5..]].concat(), ["2", "8", "0.01", "0.4", "0.2", "1.2", "0"]);
    let timings = lines(&out, "timing.jsonl");
    assert_eq!(timings.iter().map(|t| t["epoch"].clone()).collect::<Vec<_>>(), [1, 2, 3]);
    for timing in &timings {
        let number = |key: &str| timing[key].as_f64().unwrap();
        assert!((number("images_per_s") * number("seconds") - 14.0).abs() < 1e-6, "{timing}");
        assert!((0.0..=1.0).contains(&number("waiting")), "{timing}");
    }
    // Steps report the means of their epoch so far; the last of each is the epoch's. Waiting is the share of its steps.
    let reported = attempt.reported.into_inner().unwrap();
    for (epoch, (row, timing)) in rows.iter().zip(&timings).enumerate() {
        let steps = &reported[4 * epoch..][..4];
        assert_eq!(
            (row["train_loss"].as_f64(), row["train_top1_error"].as_f64()),
            (Some(steps[3].0), Some(steps[3].1))
        );
        let waited: f64 = steps.iter().map(|step| step.2.as_secs_f64()).sum();
        let share = timing["waiting"].as_f64().unwrap() * timing["seconds"].as_f64().unwrap();
        assert!((share - waited).abs() < 1e-9, "{share} {waited}");
        // Means, and not sums, of losses; quarters of wrong answers after four images.
        assert_eq!((4.0 * steps[0].1).fract(), 0.0);
        assert!(steps.iter().all(|step| (0.8..20.0).contains(&step.0)), "{steps:?}");
    }
    assert_ne!(rows[0]["train_loss"], rows[1]["train_loss"]);
    let step = |epoch, step| Seen::Step { epoch, step, steps: 4, images: if step == 4 { 2 } else { 4 } };
    let of_epoch = |e| [step(e, 1), step(e, 2), step(e, 3), step(e, 4), Seen::Validated, Seen::Epoch(e)];
    assert_eq!(seen, [1, 2, 3].map(of_epoch).concat());
    let mut saved = vgg_files::TensorFile::open(&out.join("weights.safetensors")).unwrap();
    for array in network.export() {
        assert_eq!(saved.read_f32(&array.name).unwrap(), array.values, "{}", array.name);
    }
}

#[test]
fn validation_comes_every_so_many_epochs_and_after_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    for (max_epochs, every, expected) in [(7, 3, vec![3, 6, 7]), (4, 2, vec![2, 4]), (2, 5, vec![2])] {
        let out = dir.path().join(format!("{max_epochs}-{every}"));
        let config = epochs(max_epochs, every);
        let metrics = run(&set, &out, &Run { config, ..Run::default() }).0.unwrap().metrics;
        let validated: Vec<usize> =
            metrics.iter().filter(|m| m.val_top1_error.is_some()).map(|m| m.epoch).collect();
        assert_eq!(validated, expected, "every {every} of {max_epochs}");
        assert!(metrics.iter().all(|m| m.val_loss.is_some() == m.val_top1_error.is_some()));
    }
}

#[test]
fn the_schedule_hears_how_many_epochs_a_validation_is_for() {
    // Patience of 4 epochs, validated every 3 and at the end: the second one without a gain is the fourth epoch after the best.
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let plateau = |patience_epochs| Schedule::Plateau {
        lr: 0.01,
        factor: 0.5,
        max_drops: 5,
        patience_epochs,
        min_gain: 0.0,
        then: Then::Continue,
    };
    for (patience, drops) in [(4, 1), (5, 0)] {
        let config = TrainConfig { schedule: plateau(patience), ..epochs(7, 3) };
        let out = dir.path().join(patience.to_string());
        run(&set, &out, &Run { config, ..Run::default() }).0.unwrap();
        let schedule = &state(&out, 28)["schedule"];
        assert_eq!(schedule["drops"], drops, "patience {patience}: {schedule}");
        assert_eq!(schedule["best"], 0.5);
    }
    // The schedule's rate is that of the epochs, and its end that of the run.
    let stop = Schedule::Plateau {
        lr: 0.01,
        factor: 0.5,
        max_drops: 1,
        patience_epochs: 1,
        min_gain: 0.0,
        then: Then::Stop,
    };
    let config = TrainConfig { schedule: stop, ..epochs(20, 1) };
    let out = dir.path().join("stop");
    let errors = vec![0.5, 0.5, 0.4, 0.45];
    let metrics = run(&set, &out, &Run { config, errors, ..Run::default() }).0.unwrap().metrics;
    assert_eq!(metrics.iter().map(|m| m.lr).collect::<Vec<_>>(), [0.01, 0.01, 0.005, 0.005]);
    assert!(out.join("weights.safetensors").exists());
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
fn checkpoints_within_an_epoch_come_after_so_many_steps() {
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
    // The end of an epoch has a checkpoint of its own, from which the count begins again.
    assert_eq!(made("3 steps", policy(Some(3), None), 10), [3, 4, 7, 8, 10]);
    assert_eq!(made("no time", policy(None, Some(Duration::ZERO)), 3).last(), Some(&3));
    assert_eq!(made("an hour", policy(None, Some(Duration::from_secs(3600))), 7), [4, 7]);
    assert_eq!(made("never", policy(None, None), 7), [4, 7]);
    let defaults = Checkpoints::default();
    assert_eq!(defaults, Checkpoints { every_steps: None, every: Some(Duration::from_secs(600)), keep: 2 });
}

#[test]
fn a_stopped_run_goes_on_where_it_was_and_ends_the_same() {
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
        (&saved["epochs"], &saved["step"], &saved["part"]["batches"]),
        (&json!(1), &json!(6), &json!(2))
    );
    assert_eq!(saved["part"]["shares"][0]["sums"]["n"], 8);
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
    // Finished, it has nothing left to do.
    let (outcome, _, seen) = run(&set, &parts, &complete);
    assert_eq!((outcome.unwrap().metrics.len(), seen), (3, vec![Seen::Resumed { epochs: 3, batches: 0 }]));
    // Started over, it does all of it again.
    let (_, _, seen) = run(&set, &parts, &Run { resume: Resume::Never, ..complete });
    assert_eq!(seen[0], Seen::Step { epoch: 1, step: 1, steps: 4, images: 4 });
    assert_eq!(checkpoints(&parts), [8, 12]);
}

#[test]
fn stopped_while_it_validates_a_run_goes_on_with_the_validation() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    run(&set, &whole, &Run { errors: vec![0.5, 0.3, 0.9], ..Run::default() }).0.unwrap();
    let stopped = Run { stop_validation: Some(1), ..Run::default() };
    let (outcome, ..) = run(&set, &parts, &stopped);
    let outcome = outcome.unwrap();
    assert!(outcome.interrupted && outcome.metrics.len() == 1);
    let saved = state(&parts, 8);
    assert_eq!((&saved["epochs"], &saved["part"]["batches"]), (&json!(1), &json!(4)));
    let (_, _, seen) = run(&set, &parts, &Run { errors: vec![0.3, 0.9], ..Run::default() });
    assert_eq!(seen[..3], [Seen::Resumed { epochs: 1, batches: 4 }, Seen::Validated, Seen::Epoch(2)]);
    let read = |out: &Path| std::fs::read(out.join("metrics.jsonl")).unwrap();
    assert!(read(&whole) == read(&parts));
}

#[test]
fn a_loss_far_above_chance_or_at_chance_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let chance = 7f64.ln();
    // A network of tiny weights and a tiny rate stays at chance.
    let still = TrainConfig { schedule: Schedule::Constant { lr: 1e-9 }, ..epochs(2, 1) };
    let of = |name: &str, config: &TrainConfig, init, validation_loss| {
        let attempt = Run { config: config.clone(), init, validation_loss, ..Run::default() };
        let (outcome, _, seen) = run(&set, &dir.path().join(name), &attempt);
        outcome.unwrap();
        // After the first epoch comes the warning, if there is one.
        let after = seen.iter().position(|s| *s == Seen::Epoch(1)).unwrap() + 1;
        let warning = |s: &&Seen| matches!(s, Seen::Diverges { .. } | Seen::DeadStart { .. });
        (seen.get(after).filter(warning).cloned(), seen.iter().filter(warning).count())
    };
    // Within 1 % of chance, after the first epoch alone.
    for loss in [0.9901 * chance, 1.0099 * chance] {
        let dead = Some(Seen::DeadStart { loss, chance });
        assert_eq!(of(&format!("dead {loss}"), &still, Init::Gaussian001, loss), (dead, 1));
    }
    for loss in [0.99 * chance, 1.01 * chance, 0.5 * chance] {
        assert_eq!(of(&format!("alive {loss}"), &still, Init::Gaussian001, loss), (None, 0));
    }
    // A validation loss alone is no divergence, for the network may have learnt its training images by heart.
    assert_eq!(of("by heart", &still, Init::Gaussian001, 3.0 * chance), (None, 0));
    // Without learning, the loss of these initial weights stays near 10; a training loss alone is no divergence either.
    let wild = TrainConfig { schedule: Schedule::Constant { lr: 1e-12 }, ..epochs(2, 1) };
    let loss = 2.01 * chance;
    assert_eq!(of("wild", &wild, Init::He, loss), (Some(Seen::Diverges { loss, chance }), 2));
    let row = &lines(&dir.path().join("wild"), "metrics.jsonl")[0];
    assert!(row["train_loss"].as_f64().unwrap() > 2.1 * chance, "{row}");
    assert_eq!(of("at the limit", &wild, Init::He, 2.0 * chance), (None, 0));
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_with_the_samples_of_its_step() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let out = dir.path().join("run");
    let wild = TrainConfig { schedule: Schedule::Constant { lr: 1e30 }, ..epochs(2, 1) };
    let (outcome, network, seen) = run(&set, &out, &Run { config: wild, ..Run::default() });
    let message = outcome.as_ref().unwrap_err().to_string();
    let Err(Error::NotFinite { epoch: 1, step, samples, layers }) = outcome else { panic!("{message}") };
    let steps = seen.iter().filter(|s| matches!(s, Seen::Step { .. })).count();
    assert_eq!(step as usize, steps, "the step after those that were finite");
    let plan = vgg_data::EpochPlan::new(14, 4, 1, 0);
    assert_eq!(samples, plan.batch(steps));
    assert_eq!(layers.len(), 22);
    let norm = |values: &[f32]| {
        values.iter().filter(|v| v.is_finite()).map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
    };
    let mut first = "";
    for ((array, gradient), layer) in network.export().iter().zip(&network.export_gradients()).zip(&layers) {
        assert_eq!((&layer.name, layer.weight), (&array.name, norm(&array.values)), "no weight was changed");
        assert_eq!(layer.gradient, Some(norm(&gradient.values)));
        assert_eq!(layer.not_finite, gradient.values.iter().filter(|v| !v.is_finite()).count());
        if layer.not_finite > 0 {
            first = &layer.name;
        }
    }
    // The backward pass comes from the last layer.
    assert!(
        message.contains(&format!("; first in the gradient of {first});")) && !first.is_empty(),
        "{message}"
    );
    let noted: Value = serde_json::from_slice(&std::fs::read(out.join("not-finite.json")).unwrap()).unwrap();
    assert_eq!(
        (&noted["epoch"], &noted["step"], &noted["samples"]),
        (&json!(1), &json!(step), &json!(samples))
    );
    assert_eq!(noted["layers"].as_array().unwrap().len(), 22);
    assert!(!out.join("weights.safetensors").exists() && checkpoints(&out).is_empty());
}

#[test]
fn images_that_cannot_be_decoded_are_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    pictures(dir.path());
    for index in [2, 9] {
        std::fs::write(picture_path(&dir.path().join("set"), "train", index), b"").unwrap();
    }
    let set = Arc::new(ImageSet::open(&dir.path().join("set"), Split::Train).unwrap());
    let out = dir.path().join("run");
    let attempt = Run { config: epochs(2, 1), on_bad_image: OnBadImage::Skip, ..Run::default() };
    let (outcome, _, seen) = run(&set, &out, &attempt);
    assert_eq!(outcome.unwrap().metrics.iter().map(|m| m.skipped).collect::<Vec<_>>(), [2, 2]);
    let mut skipped: Vec<usize> =
        seen.iter().filter_map(|s| if let Seen::Skipped(id) = s { Some(*id) } else { None }).collect();
    skipped.sort_unstable();
    assert_eq!(skipped, [2, 2, 9, 9]);
    let images: usize = seen
        .iter()
        .filter_map(|s| if let Seen::Step { images, .. } = s { Some(*images) } else { None })
        .sum();
    assert_eq!(images, 24);
    // With no image at all there is nothing to learn.
    for index in 0..14 {
        std::fs::write(picture_path(&dir.path().join("set"), "train", index), b"").unwrap();
    }
    let set = Arc::new(ImageSet::open(&dir.path().join("set"), Split::Train).unwrap());
    let message = run(&set, &dir.path().join("none"), &attempt).0.unwrap_err().to_string();
    assert_eq!(message, "every image of the epoch was left out");
}

#[test]
fn another_identity_is_refused_unless_it_may_differ() {
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
    let allowed = Run { identity: other.clone(), may_differ: vec!["seed".into()], ..Run::default() };
    run(&set, &out, &allowed).0.unwrap();
    assert_eq!(state(&out, 12)["identity"], other, "what it is now is written down");
}

#[test]
fn damaged_checkpoints_are_set_aside_and_removed_ones_are_gone() {
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
fn settings_that_make_no_run_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let base = Run::default().config;
    for config in [
        TrainConfig { micro_batch: 0, ..base.clone() },
        TrainConfig { max_epochs: 0, ..base.clone() },
        TrainConfig { validate_every: 0, ..base.clone() },
        TrainConfig { schedule: Schedule::Constant { lr: -1.0 }, ..base.clone() },
        TrainConfig { sgd: vgg_train::SgdOptions { momentum: 2.0, ..base.sgd }, ..base },
    ] {
        let (outcome, _, seen) =
            run(&set, &dir.path().join("run"), &Run { config: config.clone(), ..Run::default() });
        assert!(outcome.is_err() && seen.is_empty(), "{config:?}");
        assert!(!dir.path().join("run").exists());
    }
}

#[test]
fn a_run_without_a_directory_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let out = dir.path().join("run");
    let outcome = run(&set, &out, &Run { nowhere: true, ..Run::default() }).0.unwrap();
    assert!(outcome.metrics.len() == 3 && !out.exists());
}

#[test]
fn ranks_add_up_their_gradients_losses_and_skipped_images() {
    let dir = tempfile::tempdir().unwrap();
    pictures(dir.path());
    std::fs::write(picture_path(&dir.path().join("set"), "train", 5), b"").unwrap();
    let set = Arc::new(ImageSet::open(&dir.path().join("set"), Split::Train).unwrap());
    let skip = || Run {
        config: epochs(2, 1),
        on_bad_image: OnBadImage::Skip,
        errors: vec![0.5, 0.4],
        ..Run::default()
    };
    let alone = run(&set, &dir.path().join("alone"), &skip());
    let expected = alone.0.unwrap().metrics;
    // Five ranks for batches of four: some have no image.
    for ranks in [2, 3, 5] {
        let out = dir.path().join(format!("on {ranks}"));
        let networks = on_ranks(ranks, |group| {
            let (outcome, network, _) = run(&set, &out, &Run { group, ..skip() });
            let metrics = outcome.unwrap().metrics;
            for (ours, expected) in metrics.iter().zip(&expected) {
                assert_eq!(
                    (ours.skipped, ours.step, ours.epoch),
                    (expected.skipped, expected.step, expected.epoch)
                );
                assert_eq!(ours.train_top1_error, expected.train_top1_error, "{ranks} ranks");
                // Another order of sums in f32.
                assert!((ours.train_loss / expected.train_loss - 1.0).abs() < 1e-4, "{ranks} ranks");
            }
            assert_eq!(metrics.len(), 2);
            network.export()
        });
        for network in &networks {
            assert!(*network == networks[0], "all of {ranks} ranks have the same bits");
        }
        for (ours, expected) in networks[0].iter().zip(alone.1.export()) {
            vgg_testkit::assert_close(
                &ours.values,
                &expected.values,
                1e-3,
                &format!("{ranks} ranks: {}", ours.name),
            );
        }
    }
}

#[test]
fn any_rank_stops_all_and_each_goes_on_with_its_share() {
    let dir = tempfile::tempdir().unwrap();
    let set = pictures(dir.path());
    let out = dir.path().join("run");
    let attempt = |ranks, rank_that_stops, stop| {
        let stopped = on_ranks(ranks, |group| {
            let stop = (group.rank() == rank_that_stops).then_some(stop);
            run(&set, &out, &Run { stop, group, ..Run::default() }).0.unwrap().interrupted
        });
        assert_eq!(stopped, vec![true; ranks]);
    };
    let images = |step| -> Vec<u64> {
        let state = state(&out, step);
        let shares = state["part"]["shares"].as_array().unwrap().iter();
        shares.map(|share| share["sums"]["n"].as_u64().unwrap()).collect()
    };
    attempt(3, 1, 6);
    assert_eq!(checkpoints(&out), [4, 6]);
    // Four images are divided into 1, 1 and 2.
    assert_eq!(images(6), [2, 2, 4]);
    attempt(3, 2, 1);
    assert_eq!(images(7), [3, 3, 6]);
    // Another number of ranks: the first has what all had.
    std::fs::remove_dir_all(out.join("checkpoints/step-00000007")).unwrap();
    attempt(2, 0, 1);
    assert_eq!(images(7), [8 + 2, 2]);
}
