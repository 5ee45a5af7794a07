//! Checkpoints: if writing one fails at any point, an older one loads, and every modification is detected.

mod training;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use training::{RUN, Run, run, small_set};
use vgg_data::ImageSet;
use vgg_files::faults::{self, Fault, PowerLoss};

/// Faults affect the whole process, so tests run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Copies a directory recursively.
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

/// Temporary and damaged files in a directory, at any depth.
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

/// Every file and directory below a directory, by path; for files, with their contents.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = PathBuf::from(entry.file_name());
        if entry.path().is_dir() {
            let inside = contents(&entry.path()).into_iter();
            found.extend(inside.map(|(path, bytes)| (name.join(path), bytes)));
            found.insert(name, None);
        } else {
            found.insert(name, Some(fs::read(entry.path()).unwrap()));
        }
    }
    found
}

/// A complete run, and one interrupted after a checkpoint.
struct Runs {
    dir: tempfile::TempDir,
    set: Arc<ImageSet>,
    whole: PathBuf,
    begun: PathBuf,
}

impl Runs {
    fn new() -> Runs {
        let dir = tempfile::tempdir().unwrap();
        let set = small_set(&dir.path().join("set"));
        let whole = dir.path().join("whole");
        let begun = dir.path().join("begun");
        run(&set, &whole, &RUN).0.unwrap();
        // Stops before the last step, which is followed by a checkpoint and the weights.
        assert!(run(&set, &begun, &Run { stop: Some(8), ..RUN }).0.unwrap().interrupted);
        Runs { dir, set, whole, begun }
    }

    /// Resumes the interrupted run in `dir` with a fault. Returns `false` if the run has fewer operations and
    /// succeeds.
    fn fail(&self, dir: &Path, at: u64, fault: Fault) -> bool {
        copy(&self.begun, dir);
        faults::inject(Some((at, fault)));
        let outcome = run(&self.set, dir, &RUN).0;
        if faults::operations() <= at {
            outcome.unwrap();
            return false;
        }
        if let Err(error) = outcome {
            let text = error.to_string();
            assert!(text.contains(&*dir.to_string_lossy()), "operation {at}: {text}");
        }
        true
    }

    /// Resumes a failed run, compares it with the complete one and removes it.
    fn resume(&self, dir: &Path, when: &str) {
        run(&self.set, dir, &RUN).0.unwrap_or_else(|error| panic!("{when}: {error}"));
        self.compare(dir, when);
        assert_eq!(litter(dir), [""; 0].map(PathBuf::from), "{when}");
        fs::remove_dir_all(dir).unwrap();
    }

    fn compare(&self, dir: &Path, when: &str) {
        for name in ["weights.safetensors", "metrics.jsonl"] {
            let read = |dir: &Path| fs::read(dir.join(name)).unwrap();
            assert!(read(dir) == read(&self.whole), "{when}: {name} differs");
        }
    }
}

#[test]
fn full_disk_at_any_operation_loses_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runs = Runs::new();
    let parts = runs.dir.path().join("parts");
    let mut at = 0;
    while runs.fail(&parts, at, Fault::Full) {
        faults::inject(None);
        // Temporary files are removed where possible. A failed operation without effect may be ignored.
        assert_eq!(litter(&parts), [""; 0].map(PathBuf::from), "after operation {at}");
        runs.resume(&parts, &format!("full at operation {at}"));
        at += 1;
    }
    faults::inject(None);
    assert!(at > 25, "{at} operations");
}

#[test]
fn run_stopped_at_any_operation_resumes_bitwise_identically() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runs = Runs::new();
    let parts = runs.dir.path().join("parts");
    let mut at = 0;
    while runs.fail(&parts, at, Fault::Stop) {
        // The state after a killed process, and after a power loss as well.
        let dir = tempfile::tempdir_in(runs.dir.path()).unwrap();
        let mut states = Vec::new();
        for loss in [None, Some(PowerLoss::Zeroed), Some(PowerLoss::Cut), Some(PowerLoss::Names)] {
            if let Some(loss) = loss {
                faults::power_loss(loss).unwrap();
            }
            let state = dir.path().join(format!("{loss:?}"));
            copy(&parts, &state);
            states.push((loss, state, contents(&parts)));
        }
        faults::inject(None);
        // States without further losses need no second resume.
        states.dedup_by(|next, previous| next.2 == previous.2);
        for (loss, state, _) in states {
            runs.resume(&state, &format!("stopped before operation {at}, {loss:?}"));
        }
        fs::remove_dir_all(&parts).unwrap();
        at += 1;
    }
    assert!(at > 25, "{at} operations");
    // Results that a run has reported as complete survive a power loss.
    faults::power_loss(PowerLoss::Names).unwrap();
    faults::inject(None);
    runs.compare(&parts, "power lost at the end");
    vgg_files::verify(&parts.join("checkpoints/step-00000009")).unwrap();
}

#[test]
fn any_flipped_bit_is_detected() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let folder = small_set(&dir.path().join("set"));
    assert!(run(&folder, &dir.path().join("run"), &Run { stop: Some(2), ..RUN }).0.unwrap().interrupted);
    let checkpoint = dir.path().join("run/checkpoints/step-00000002");
    vgg_files::verify(&checkpoint).unwrap();
    let mut files = 0;
    for path in fs::read_dir(&checkpoint).unwrap().map(|entry| entry.unwrap().path()) {
        let whole = fs::read(&path).unwrap();
        // All of the manifest, which no other file covers, and a sample of the rest.
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
