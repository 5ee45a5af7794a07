//! What changes the disk: every write, sync, rename and removal of this crate comes through here. With the feature `faults`, which is for
//! tests, any of the first three can be made to fail.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// A file that is being written.
pub(crate) struct Sink(File);

impl Sink {
    pub(crate) fn create(path: &Path) -> io::Result<Sink> {
        point()?;
        File::create(path).map(Sink)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        point()?;
        self.0.sync_all()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(e) = point() {
            if e.kind() == io::ErrorKind::StorageFull {
                // As much as a disk takes that fills up.
                self.0.write_all(&bytes[..bytes.len() / 2])?;
            }
            return Err(e);
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    point()?;
    fs::rename(from, to)
}

pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    going_on()?;
    fs::remove_file(path)
}

pub(crate) fn remove_dir_all(path: &Path) -> io::Result<()> {
    going_on()?;
    fs::remove_dir_all(path)
}

pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    point()?;
    #[cfg(unix)]
    File::open(path).and_then(|dir| dir.sync_all())?;
    Ok(())
}

/// Where an operation may be made to fail.
fn point() -> io::Result<()> {
    #[cfg(feature = "faults")]
    faults::point()?;
    Ok(())
}

/// Full disks let files be removed, and machines that have stopped do not.
fn going_on() -> io::Result<()> {
    #[cfg(feature = "faults")]
    faults::going_on()?;
    Ok(())
}

/// Faults on purpose, for tests, in all threads of a program.
#[cfg(feature = "faults")]
pub mod faults {
    use std::io;
    use std::sync::{Mutex, PoisonError};

    /// What an operation does that fails.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Fault {
        /// It says that the disk is full; later ones succeed.
        Full,
        /// It is the last one that happens, as if the machine had stopped: all later ones do nothing and fail.
        Stop,
    }

    struct State {
        done: u64,
        planned: Option<(u64, Fault)>,
    }

    static STATE: Mutex<State> = Mutex::new(State { done: 0, planned: None });

    /// From now on counts operations from 0, and lets one of them fail, or none.
    pub fn plan(fault: Option<(u64, Fault)>) {
        *STATE.lock().unwrap_or_else(PoisonError::into_inner) = State { done: 0, planned: fault };
    }

    /// Writes, syncs and renames since then.
    pub fn done() -> u64 {
        STATE.lock().unwrap_or_else(PoisonError::into_inner).done
    }

    pub(super) fn going_on() -> io::Result<()> {
        let state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        match state.planned {
            Some((at, Fault::Stop)) if state.done > at => Err(io::Error::other("the machine has stopped")),
            _ => Ok(()),
        }
    }

    pub(super) fn point() -> io::Result<()> {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.done;
        state.done += 1;
        match state.planned {
            Some((at, Fault::Full)) if number == at => Err(io::ErrorKind::StorageFull.into()),
            Some((at, Fault::Stop)) if number >= at => Err(io::Error::other("the machine has stopped")),
            _ => Ok(()),
        }
    }
}
