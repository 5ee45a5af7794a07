//! Fault injection for tests: failing operations and power failures.
//!
//! [`inject`] numbers the operations of all threads and makes one of them fail. [`power_loss`] then simulates a power
//! failure, with the worst loss that POSIX allows:
//!
//! - A file keeps only the bytes that it had at its last sync. The rest is truncated or reads as zeros.
//! - A directory keeps only the names that it had at its last sync. Later creations, renames and removals are
//!   undone or kept. Syncing a file does not make its name durable.
//!
//! Data written before [`inject`], or not through this crate, count as synced.
//!
//! Fault injection is global to the process: tests that use it must not run concurrently with others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Change, parent};

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full: the operation fails, a write after half of its bytes. Later operations succeed.
    Full,
    /// The machine stops before the operation: this and all later operations fail without effect.
    Stop,
}

/// The loss in a power failure. Each variant loses at least as much as the preceding one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerLoss {
    /// Unsynced data read as zeros. Files keep their lengths and names.
    Zeroed,
    /// Files are truncated to their synced bytes. They keep their names.
    Cut,
    /// As [`PowerLoss::Cut`], and every directory has the names of its last sync.
    Names,
}

/// Numbers the operations from 0, and makes the one of the given number fail. `None` ends fault injection.
///
/// Removals have no number: they succeed on a full disk, and fail without effect on a stopped machine.
pub fn inject(fault: Option<(u64, Fault)>) {
    *state() = State { operations: 0, injected: fault, unsynced: Unsynced::NOTHING };
}

/// Number of operations since [`inject`].
pub fn operations() -> u64 {
    state().operations
}

/// Discards what was not synced since [`inject`]. It may be called again with a greater loss.
///
/// # Errors
/// If a file cannot be changed.
pub fn power_loss(loss: PowerLoss) -> io::Result<()> {
    state().unsynced.power_loss(loss)
}

static STATE: Mutex<State> = Mutex::new(State { operations: 0, injected: None, unsynced: Unsynced::NOTHING });

struct State {
    operations: u64,
    injected: Option<(u64, Fault)>,
    unsynced: Unsynced,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Performs an operation unless an injected fault makes it fail, and records how to undo it.
pub(super) fn apply<T>(change: Change, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mut state = state();
    if state.injected.is_none() {
        drop(state);
        return operation();
    }
    state.fail(&change)?;
    let undo = Undo::of(&change, &state.unsynced.files)?;
    let synced_bytes = match change {
        Change::Write { path, .. } => fs::metadata(path)?.len(),
        _ => 0,
    };
    let value = operation()?;
    state.unsynced.record(&change, synced_bytes);
    state.unsynced.names.extend(undo);
    Ok(value)
}

impl State {
    fn fail(&mut self, change: &Change) -> io::Result<()> {
        let number = self.operations;
        let counts = !matches!(change, Change::Remove(_));
        self.operations += u64::from(counts);
        match self.injected {
            Some((at, Fault::Full)) if counts && number == at => {
                if let Change::Write { mut file, bytes, .. } = *change {
                    file.write_all(&bytes[..bytes.len() / 2])?;
                }
                Err(io::ErrorKind::StorageFull.into())
            }
            Some((at, Fault::Stop)) if self.operations > at => {
                Err(io::Error::other("the machine has stopped"))
            }
            _ => Ok(()),
        }
    }
}

/// Changes that a power failure may lose.
struct Unsynced {
    /// Files with unsynced data, and the number of their synced bytes.
    files: BTreeMap<PathBuf, u64>,
    /// Undo records of changed names, oldest first.
    names: Vec<Undo>,
}

impl Unsynced {
    const NOTHING: Unsynced = Unsynced { files: BTreeMap::new(), names: Vec::new() };

    fn record(&mut self, change: &Change, synced_bytes: u64) {
        match *change {
            Change::CreateFile(path) => {
                self.files.insert(path.to_owned(), 0);
            }
            Change::Write { path, .. } => {
                self.files.entry(path.to_owned()).or_insert(synced_bytes);
            }
            Change::SyncFile(path) => {
                self.files.remove(path);
            }
            Change::SyncDirectory(path) => self.directory_synced(path),
            Change::Rename { from, to } => {
                self.files.retain(|path, _| !path.starts_with(to));
                let files = take(&mut self.files).into_iter();
                self.files = files.map(|(path, bytes)| (moved(path, from, to), bytes)).collect();
            }
            Change::Remove(path) => self.files.retain(|file, _| !file.starts_with(path)),
            Change::CreateDirectory(_) => {}
        }
    }

    /// Drops the undo records of names in a directory.
    fn directory_synced(&mut self, directory: &Path) {
        for undo in take(&mut self.names) {
            if parent(undo.path()) != directory {
                self.names.push(undo);
                continue;
            }
            // Update the paths in the remaining records.
            match undo {
                Undo::Renamed { from, to, .. } => {
                    let names = take(&mut self.names).into_iter();
                    self.names = names.map(|undo| undo.moved(&from, &to)).collect();
                }
                Undo::Removed(path, _) => self.names.retain(|undo| !undo.path().starts_with(&path)),
                Undo::Created(_) => {}
            }
        }
    }

    fn power_loss(&mut self, loss: PowerLoss) -> io::Result<()> {
        for (path, synced) in &self.files {
            let file = File::options().write(true).open(path)?;
            let length = file.metadata()?.len();
            file.set_len(*synced)?;
            if loss == PowerLoss::Zeroed {
                file.set_len(length)?;
            }
        }
        if loss == PowerLoss::Names {
            self.files.clear();
            take(&mut self.names).into_iter().rev().try_for_each(Undo::undo)?;
        }
        Ok(())
    }
}

/// Undo record of a changed name.
enum Undo {
    Created(PathBuf),
    Renamed { from: PathBuf, to: PathBuf, replaced: Option<Saved> },
    Removed(PathBuf, Saved),
}

impl Undo {
    fn of(change: &Change, unsynced: &BTreeMap<PathBuf, u64>) -> io::Result<Option<Undo>> {
        Ok(match *change {
            Change::CreateFile(path) | Change::CreateDirectory(path) if !path.exists() => {
                Some(Undo::Created(path.to_owned()))
            }
            Change::Rename { from, to } => {
                let replaced = Saved::read(to, unsynced)?;
                Some(Undo::Renamed { from: from.to_owned(), to: to.to_owned(), replaced })
            }
            Change::Remove(path) => {
                Saved::read(path, unsynced)?.map(|saved| Undo::Removed(path.to_owned(), saved))
            }
            _ => None,
        })
    }

    /// The changed path. A rename is always within one directory.
    fn path(&self) -> &Path {
        match self {
            Undo::Created(path) | Undo::Renamed { to: path, .. } | Undo::Removed(path, _) => path,
        }
    }

    /// The same record after a directory above the path was renamed.
    fn moved(self, old: &Path, new: &Path) -> Undo {
        match self {
            Undo::Created(path) => Undo::Created(moved(path, old, new)),
            Undo::Renamed { from, to, replaced } => {
                Undo::Renamed { from: moved(from, old, new), to: moved(to, old, new), replaced }
            }
            Undo::Removed(path, saved) => Undo::Removed(moved(path, old, new), saved),
        }
    }

    fn undo(self) -> io::Result<()> {
        match self {
            Undo::Created(path) if path.is_dir() => fs::remove_dir_all(path),
            Undo::Created(path) => fs::remove_file(path),
            Undo::Renamed { from, to, replaced } => {
                fs::rename(&to, from)?;
                replaced.map_or(Ok(()), |saved| saved.write(&to))
            }
            Undo::Removed(path, saved) => saved.write(&path),
        }
    }
}

/// Replaces the prefix `from` of a path by `to`; returns other paths unchanged.
fn moved(path: PathBuf, from: &Path, to: &Path) -> PathBuf {
    match path.strip_prefix(from) {
        Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
        Ok(rest) => to.join(rest),
        Err(_) => path,
    }
}

/// A copy of the synced data of a file or directory.
enum Saved {
    File(Vec<u8>),
    Directory(BTreeMap<PathBuf, Saved>),
}

impl Saved {
    /// `None` if `path` does not exist.
    fn read(path: &Path, unsynced: &BTreeMap<PathBuf, u64>) -> io::Result<Option<Saved>> {
        if !path.exists() {
            return Ok(None);
        }
        if path.is_dir() {
            let mut inside = BTreeMap::new();
            for entry in fs::read_dir(path)? {
                let path = entry?.path();
                let saved = Saved::read(&path, unsynced)?;
                inside.extend(path.file_name().map(PathBuf::from).zip(saved));
            }
            return Ok(Some(Saved::Directory(inside)));
        }
        let mut bytes = fs::read(path)?;
        bytes.truncate(unsynced.get(path).map_or(bytes.len(), |synced| *synced as usize));
        Ok(Some(Saved::File(bytes)))
    }

    fn write(self, path: &Path) -> io::Result<()> {
        match self {
            Saved::File(bytes) => fs::write(path, bytes),
            Saved::Directory(inside) => {
                fs::create_dir(path)?;
                inside.into_iter().try_for_each(|(name, saved)| saved.write(&path.join(name)))
            }
        }
    }
}
