//! The training loop on a small synthetic set.

mod training;

use std::path::Path;

use training::{RUN, Run, run, small_set};
use vgg_train::Error;

#[test]
fn interrupted_run_resumes_bitwise_identically() {
    let dir = tempfile::tempdir().unwrap();
    let folder = small_set(&dir.path().join("set"));
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let outcome = run(&folder, &whole, &RUN).0.unwrap();
    assert_eq!((outcome.metrics.len(), outcome.interrupted), (3, false));
    let stopped = run(&folder, &parts, &Run { threads: 1, stop: Some(4), ..RUN }).0.unwrap();
    assert!(stopped.interrupted, "must stop within the second epoch");
    run(&folder, &parts, &RUN).0.unwrap();
    for file in ["weights.safetensors", "metrics.jsonl", "metrics.csv"] {
        let read = |dir: &Path| std::fs::read(dir.join(file)).unwrap();
        assert!(read(&whole) == read(&parts), "{file} differs");
    }
}

#[test]
fn non_finite_loss_stops_before_the_update() {
    let dir = tempfile::tempdir().unwrap();
    let folder = small_set(&dir.path().join("set"));
    let diverges = Run { lr: 1e18, ..RUN };
    match run(&folder, &dir.path().join("run"), &diverges).0 {
        Err(Error::NotFinite { epoch: 1, step, samples, layers }) => {
            assert!(step > 0 && (1..=8).contains(&samples.len()));
            assert!(
                layers.iter().any(|layer| layer.not_finite > 0)
                    && layers.iter().all(|l| l.weight.is_finite())
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(!dir.path().join("run/weights.safetensors").exists());
    let checkpoints = std::fs::read_dir(dir.path().join("run/checkpoints")).unwrap().count();
    assert_eq!(checkpoints, 0, "a bad value must not reach a checkpoint");
    let noted = std::fs::read_to_string(dir.path().join("run/not-finite.json")).unwrap();
    assert!(noted.contains("conv1_1.weight") && noted.contains("samples"), "{noted}");
}

#[test]
fn loss_at_chance_level_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let folder = small_set(&dir.path().join("set"));
    let at_chance = Run { validation_loss: 10f64.ln() + 0.01, ..RUN };
    assert!(run(&folder, &dir.path().join("a"), &at_chance).1);
    assert!(!run(&folder, &dir.path().join("b"), &RUN).1);
}

#[test]
fn damaged_checkpoint_is_skipped_and_another_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = small_set(&dir.path().join("set"));
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    run(&folder, &whole, &RUN).0.unwrap();
    // Twenty images in batches of eight are three steps per epoch: step 7 is in the third epoch.
    assert!(run(&folder, &parts, &Run { stop: Some(7), ..RUN }).0.unwrap().interrupted);
    let newest = parts.join("checkpoints/step-00000007/velocity.safetensors");
    let mut bytes = std::fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let resumed = run(&folder, &parts, &RUN).0.unwrap();
    assert_eq!(resumed.metrics.len(), 3);
    let read = |dir: &Path| std::fs::read(dir.join("weights.safetensors")).unwrap();
    assert!(read(&whole) == read(&parts), "must resume bitwise identically from the checkpoint before");
    let other = run(&folder, &parts, &Run { identity: "another", ..RUN }).0;
    assert!(matches!(other, Err(Error::OtherRun { .. })), "{other:?}");
}

#[test]
fn new_checkpoint_survives_damaged_ones() {
    let dir = tempfile::tempdir().unwrap();
    let folder = small_set(&dir.path().join("set"));
    let parts = dir.path().join("parts");
    run(&folder, &parts, &RUN).0.unwrap();
    let damage = || {
        for checkpoint in std::fs::read_dir(parts.join("checkpoints")).unwrap() {
            std::fs::write(checkpoint.unwrap().path().join("velocity.safetensors"), b"cut").unwrap();
        }
    };
    damage();
    assert!(run(&folder, &parts, &Run { stop: Some(4), ..RUN }).0.unwrap().interrupted, "must start over");
    assert!(parts.join("checkpoints/step-00000004").is_dir(), "must not be removed as the oldest");
    // Again, with damaged checkpoints already set aside.
    damage();
    assert_eq!(run(&folder, &parts, &RUN).0.unwrap().metrics.len(), 3);
}
