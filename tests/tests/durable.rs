//! Checkpoints: whatever fails while one is written, an older one loads, and nothing that was changed passes for whole.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod training;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use training::{RUN, Run, run, small_set};
use vgg_files::faults::{self, Fault};

/// Faults are the whole program's, so one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Copies the files of a directory, and of those in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// All that lies in a directory, at any depth, but what belongs there by its name.
fn litter(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with('.') && name != ".lock" || name.starts_with("damaged") {
            found.push(path);
        } else if path.is_dir() {
            found.extend(litter(&path));
        }
    }
    found
}

#[test]
fn a_fault_at_any_write_sync_or_rename_loses_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let folder = small_set(&dir.path().join("set"));
    let (whole, begun) = (dir.path().join("whole"), dir.path().join("begun"));
    run(&folder, &whole, &RUN).0.unwrap();
    // All but the last two steps, after which there is a checkpoint, and the weights.
    assert!(run(&folder, &begun, &Run { stop: Some(7), ..RUN }).0.unwrap().interrupted);
    let read = |dir: &Path, name: &str| fs::read(dir.join(name)).unwrap();
    let mut tried = [0; 2];
    for (which, fault) in [Fault::Full, Fault::Stop].into_iter().enumerate() {
        for at in 0.. {
            let parts = dir.path().join("parts");
            copy(&begun, &parts);
            faults::plan(Some((at, fault)));
            let outcome = run(&folder, &parts, &RUN).0;
            let done = faults::done();
            faults::plan(None);
            if done <= at {
                outcome.unwrap();
                break;
            }
            tried[which] += 1;
            if fault == Fault::Full {
                // What can be tidied up is. An operation whose failure changes nothing may be passed over.
                assert_eq!(litter(&parts), [""; 0].map(PathBuf::from), "after operation {at}");
            }
            if let Err(error) = outcome {
                let text = error.to_string();
                assert!(text.contains(&*parts.to_string_lossy()), "operation {at}: {text}");
            }
            run(&folder, &parts, &RUN).0.unwrap();
            for name in ["weights.safetensors", "metrics.jsonl"] {
                assert!(read(&parts, name) == read(&whole, name), "{fault:?} at {at}: {name} differs");
            }
            assert_eq!(litter(&parts), [""; 0].map(PathBuf::from), "{fault:?} at {at}");
            fs::remove_dir_all(&parts).unwrap();
        }
    }
    assert!(tried[0] > 25 && tried[1] == tried[0], "{tried:?} operations");
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let folder = small_set(&dir.path().join("set"));
    assert!(run(&folder, &dir.path().join("run"), &Run { stop: Some(2), ..RUN }).0.unwrap().interrupted);
    let checkpoint = dir.path().join("run/checkpoints/step-00000002");
    vgg_files::verify(&checkpoint).unwrap();
    let mut files = 0;
    for path in fs::read_dir(&checkpoint).unwrap().map(|entry| entry.unwrap().path()) {
        let whole = fs::read(&path).unwrap();
        // All of the manifest, which nothing else vouches for, and some of the rest.
        let apart = if path.ends_with("manifest.json") { 1 } else { whole.len() / 40 + 1 };
        for at in (0..whole.len()).step_by(apart) {
            for bit in (0..8).skip(at % 2 * usize::from(apart > 1)) {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&path, &bytes).unwrap();
                assert!(
                    vgg_files::verify(&checkpoint).is_err(),
                    "{}: bit {bit} of byte {at}",
                    path.display()
                );
            }
        }
        fs::write(&path, &whole).unwrap();
        files += 1;
    }
    vgg_files::verify(&checkpoint).unwrap();
    assert_eq!(files, 5);
}
