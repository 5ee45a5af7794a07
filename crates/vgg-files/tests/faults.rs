//! Full disks, stopped machines and power failures at every operation of every writer: old files stay
//! complete, and data reported as written are never lost.

mod full_disk;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vgg_files::faults::{self, Fault, PowerLoss};
use vgg_files::{DirectoryWriter, Error, FileWriter, Lock, Result};

/// The plan of faults is global to the process, so only one test may run at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // A test that failed may have left its plan.
    faults::inject(None);
    guard
}

/// The losses after the machine has stopped; `None` if only the process was killed.
const POWER_LOSSES: [Option<PowerLoss>; 4] =
    [None, Some(PowerLoss::Zeroed), Some(PowerLoss::Cut), Some(PowerLoss::Names)];

/// Runs `act` in new directories filled by `prepare`, and stops it before each of its operations in turn, and
/// finally after all of them. `check` gets the directory after the restart, and whether `act` had returned
/// `Ok`. Returns the number of operations.
fn stopped_everywhere(
    prepare: impl Fn(&Path),
    act: impl Fn(&Path) -> Result<()>,
    check: impl Fn(&Path, bool, &str),
) -> u64 {
    for at in 0.. {
        let mut done = 0;
        for loss in POWER_LOSSES {
            let dir = tempfile::tempdir().unwrap();
            prepare(dir.path());
            faults::inject(Some((at, Fault::Stop)));
            let outcome = act(dir.path());
            done = faults::operations();
            if let Some(loss) = loss {
                faults::power_loss(loss).unwrap();
            }
            faults::inject(None);
            if done <= at {
                outcome.as_ref().unwrap();
            }
            check(dir.path(), outcome.is_ok(), &format!("stopped before operation {at} of {done}, {loss:?}"));
        }
        if done <= at {
            return at;
        }
    }
    unreachable!()
}

/// Runs `act` in directories filled by `prepare`, on a disk that is full at each of its operations in turn.
/// It must fail with the path each time. `check` gets the directory, and whether the operation was the last
/// one. Returns the number of operations.
fn full_everywhere(
    prepare: impl Fn(&Path),
    act: impl Fn(&Path) -> Result<()>,
    check: impl Fn(&Path, bool, &str),
) -> u64 {
    let attempt = |at: u64| {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        faults::inject(Some((at, Fault::Full)));
        let outcome = act(dir.path());
        let done = faults::operations();
        faults::inject(None);
        (dir, outcome, done)
    };
    let (_, outcome, operations) = attempt(u64::MAX);
    outcome.unwrap();
    for at in 0..operations {
        let (dir, outcome, _) = attempt(at);
        let when = format!("full at operation {at} of {operations}");
        let error = outcome.expect_err(&when);
        assert!(matches!(error, Error::Io { .. }), "{when}: {error}");
        assert!(error.to_string().contains(&*dir.path().to_string_lossy()), "{when}: {error}");
        check(dir.path(), at + 1 == operations, &when);
    }
    operations
}

/// All directories and files below a directory, sorted by path; files with their contents.
fn contents(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.push((path.clone(), None));
            found.extend(contents(&path));
        } else {
            found.push((path.clone(), Some(fs::read(&path).unwrap())));
        }
    }
    found.sort();
    found
}

/// The sorted names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The only partial file in a directory.
fn partial(dir: &Path) -> PathBuf {
    let unfinished: Vec<String> = names(dir).into_iter().filter(|name| name.ends_with(".partial")).collect();
    assert_eq!(unfinished.len(), 1, "{unfinished:?}");
    dir.join(&unfinished[0])
}

/// The bytes that `write_long` writes.
fn long(byte: u8) -> Vec<u8> {
    vec![byte; 3000]
}

/// Writes in three operations, by flushing the buffer each time.
fn write_long(out: &mut dyn Write, byte: u8) -> std::io::Result<()> {
    for _ in 0..3 {
        out.write_all(&[byte; 1000])?;
        out.flush()?;
    }
    Ok(())
}

#[test]
fn power_failure_loses_data_after_the_last_sync() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    faults::inject(Some((u64::MAX, Fault::Stop)));
    let mut file = FileWriter::create(&dir.path().join("a")).unwrap();
    file.write_all(b"some bytes").unwrap();
    file.flush().unwrap();
    // As in a killed process, `drop` does not run.
    std::mem::forget(file);
    let path = partial(dir.path());
    assert_eq!(fs::read(&path).unwrap(), b"some bytes");
    faults::power_loss(PowerLoss::Zeroed).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [0; 10]);
    faults::power_loss(PowerLoss::Cut).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
    faults::power_loss(PowerLoss::Names).unwrap();
    assert_eq!(names(dir.path()), [""; 0]);
    faults::inject(None);
}

/// The operations of writing a small file are: create, write, sync, rename, sync of the directory.
#[test]
fn power_failure_before_each_operation_of_a_small_file() {
    let _alone = alone();
    let cases: [(u64, PowerLoss, &[u8], &[u8]); 12] = [
        // Operation before which it stops, loss, file, partial file (`-` if it must not exist).
        (1, PowerLoss::Zeroed, b"old", b""),
        (1, PowerLoss::Names, b"old", b"-"),
        (2, PowerLoss::Zeroed, b"old", b"\0\0\0"),
        (2, PowerLoss::Cut, b"old", b""),
        (2, PowerLoss::Names, b"old", b"-"),
        // The data are synced, but the name is not durable.
        (3, PowerLoss::Zeroed, b"old", b"new"),
        (3, PowerLoss::Cut, b"old", b"new"),
        (3, PowerLoss::Names, b"old", b"-"),
        (4, PowerLoss::Zeroed, b"new", b"-"),
        (4, PowerLoss::Cut, b"new", b"-"),
        (4, PowerLoss::Names, b"old", b"-"),
        (5, PowerLoss::Names, b"new", b"-"),
    ];
    for (at, loss, whole, left) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"old").unwrap();
        faults::inject(Some((at, Fault::Stop)));
        let outcome = vgg_files::write_bytes(&path, b"new");
        assert_eq!((outcome.is_ok(), faults::operations() > at), (at == 5, at < 5), "{at} {loss:?}");
        faults::power_loss(loss).unwrap();
        faults::inject(None);
        assert_eq!(fs::read(&path).unwrap(), whole, "{at} {loss:?}");
        if left == b"-" {
            assert_eq!(names(dir.path()), ["a"], "{at} {loss:?}");
        } else {
            assert_eq!(fs::read(partial(dir.path())).unwrap(), left, "{at} {loss:?}");
        }
    }
}

#[test]
fn stopped_write_leaves_the_old_or_the_new_file() {
    let _alone = alone();
    let path = |dir: &Path| dir.join("a");
    let operations = stopped_everywhere(
        |dir| fs::write(path(dir), long(1)).unwrap(),
        |dir| vgg_files::write_with(&path(dir), |out| write_long(out, 2)),
        |dir, written, when| {
            let found = fs::read(path(dir)).unwrap();
            assert!(found == long(2) || !written && found == long(1), "{when}");
            vgg_files::remove_partial_files(dir).unwrap();
            assert_eq!(names(dir), ["a"], "{when}");
            assert!(fs::read(path(dir)).unwrap() == found, "{when}");
        },
    );
    assert!(operations > 5, "{operations}");
}

#[test]
fn stopped_write_of_a_new_file_leaves_no_or_a_complete_file() {
    let _alone = alone();
    let value = ["some", "values"];
    let path = |dir: &Path| dir.join("of/new/directories/a.json");
    let operations = stopped_everywhere(
        |_| (),
        |dir| vgg_files::write_json(&path(dir), &value),
        |dir, written, when| {
            match vgg_files::read_json::<Vec<String>>(&path(dir)) {
                Ok(found) => assert_eq!(found, value, "{when}"),
                Err(error) => assert!(error.is_missing() && !written, "{when}: {error}"),
            }
            vgg_files::remove_partial_files(path(dir).parent().unwrap()).unwrap();
            let left = contents(dir).into_iter().filter(|(_, bytes)| bytes.is_some()).count();
            assert_eq!(left, usize::from(path(dir).exists()), "{when}");
        },
    );
    assert!(operations > 8, "{operations}");
}

/// Writes a directory whose files consist of `byte`.
fn write_directory(path: &Path, byte: u8) -> Result<()> {
    let mut writer = DirectoryWriter::new(path)?;
    writer.add("long", |out| write_long(out, byte))?;
    writer.add("short", |out| out.write_all(&[byte]))?;
    writer.commit()
}

/// The byte of a directory of `write_directory`, if it is complete.
fn byte_of(path: &Path) -> Result<u8> {
    let manifest = vgg_files::verify(path)?;
    assert_eq!(manifest.files.keys().collect::<Vec<_>>(), ["long", "short"]);
    assert_eq!(names(path), ["long", "manifest.json", "short"]);
    let byte = fs::read(path.join("short")).unwrap()[0];
    assert!(fs::read(path.join("long")).unwrap() == long(byte));
    Ok(byte)
}

#[test]
fn stopped_directory_is_complete_or_absent() {
    let _alone = alone();
    let path = |dir: &Path| dir.join("a");
    let operations = stopped_everywhere(
        |_| (),
        |dir| write_directory(&path(dir), 1),
        |dir, written, when| {
            vgg_files::remove_partial_files(dir).unwrap();
            match byte_of(&path(dir)) {
                Ok(byte) => assert_eq!(byte, 1, "{when}"),
                Err(error) => {
                    assert!(error.is_missing() && !path(dir).exists() && !written, "{when}: {error}")
                }
            }
            assert_eq!(names(dir).len(), usize::from(path(dir).exists()), "{when}: {:?}", names(dir));
        },
    );
    assert!(operations > 10, "{operations}");
}

#[test]
fn stopped_replacement_of_a_directory_leaves_the_old_or_new_one() {
    let _alone = alone();
    let path = |dir: &Path| dir.join("a");
    let operations = stopped_everywhere(
        |dir| write_directory(&path(dir), 1).unwrap(),
        |dir| write_directory(&path(dir), 2),
        |dir, written, when| {
            vgg_files::remove_partial_files(dir).unwrap();
            let byte = byte_of(&path(dir)).unwrap_or_else(|error| panic!("{when}: {error}"));
            assert!(byte == 2 || !written && byte == 1, "{when}: {byte}");
            assert_eq!(names(dir), ["a"], "{when}");
        },
    );
    assert!(operations > 10, "{operations}");
}

#[test]
fn committed_results_survive_a_stop_in_the_next_one() {
    let _alone = alone();
    stopped_everywhere(
        |_| (),
        |dir| {
            vgg_files::write_bytes(&dir.join("file"), b"first").unwrap_or(());
            write_directory(&dir.join("directory"), 1)?;
            // From here on, both must be kept.
            fs::write(dir.join("reached"), "").unwrap();
            vgg_files::write_bytes(&dir.join("file"), b"second")?;
            write_directory(&dir.join("directory"), 2)
        },
        |dir, written, when| {
            if dir.join("reached").exists() {
                vgg_files::remove_partial_files(dir).unwrap();
                let file = fs::read(dir.join("file")).unwrap();
                assert!(file == b"second" || !written && file == b"first", "{when}: {file:?}");
                let byte = byte_of(&dir.join("directory")).unwrap_or_else(|error| panic!("{when}: {error}"));
                assert!(byte == 2 || !written && byte == 1, "{when}: {byte}");
                assert_eq!(names(dir), ["directory", "file", "reached"], "{when}");
            }
        },
    );
}

#[test]
fn remove_partial_files_can_be_stopped_and_repeated() {
    let _alone = alone();
    stopped_everywhere(
        |dir| {
            // Partial directories of two stopped writers: one between its two renames, one before both.
            write_directory(&dir.join(".a.1-0-1.old"), 1).unwrap();
            write_directory(&dir.join(".a.1-0-1.partial"), 2).unwrap();
            write_directory(&dir.join(".b.2-0-1.partial"), 2).unwrap();
            fs::write(dir.join(".c.d.json.3-0-1.partial"), "c").unwrap();
            fs::write(dir.join(".lock"), "").unwrap();
        },
        |dir| {
            vgg_files::remove_partial_files(dir)?;
            vgg_files::write_bytes(&dir.join("next"), b"next")
        },
        |dir, written, when| {
            vgg_files::remove_partial_files(dir).unwrap();
            assert_eq!(byte_of(&dir.join("a")).unwrap(), 1, "{when}");
            let next = dir.join("next").exists();
            assert!(next || !written, "{when}");
            let expected = [".lock", "a", "next"];
            assert_eq!(names(dir), expected[..2 + usize::from(next)], "{when}");
        },
    );
}

#[test]
fn directory_of_a_lock_is_durable() {
    let _alone = alone();
    let path = |dir: &Path| dir.join("new/run/a");
    stopped_everywhere(
        |_| (),
        |dir| {
            let _lock = Lock::acquire(path(dir).parent().unwrap())?;
            vgg_files::write_bytes(&path(dir), b"a")
        },
        |dir, written, when| {
            assert_eq!(fs::read(path(dir)).is_ok_and(|bytes| bytes == b"a"), path(dir).exists(), "{when}");
            assert!(path(dir).exists() || !written, "{when}");
            // The lock can be acquired again.
            drop(Lock::acquire(path(dir).parent().unwrap()).unwrap());
        },
    );
}
