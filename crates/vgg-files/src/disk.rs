//! File system operations: writes, syncs, creations, renames and removals of this crate.
//!
//! With the feature `faults`, which is for tests, any of these operations can be made to fail, and data that
//! were not synced can be discarded, as by a power failure.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[cfg(feature = "faults")]
pub mod faults;

/// A file open for writing.
pub(crate) struct Sink {
    path: PathBuf,
    file: File,
}

impl Sink {
    pub(crate) fn create(path: &Path) -> io::Result<Sink> {
        let file = apply(Change::CreateFile(path), || File::create(path))?;
        Ok(Sink { path: path.to_owned(), file })
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        apply(Change::SyncFile(&self.path), || self.file.sync_all())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = &self.file;
        apply(Change::Write { path: &self.path, file, bytes }, || file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        // `File` is unbuffered.
        Ok(())
    }
}

pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    apply(Change::CreateDirectory(path), || fs::create_dir(path))
}

/// Creates a directory and its missing parents, and syncs the parent of each, because a file is only durable
/// if the names of the directories above it are.
pub(crate) fn create_dir_all(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    create_dir_all(parent(path))?;
    match create_dir(path) {
        // Another process has created it in the meantime.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    sync_directory(parent(path))
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    apply(Change::Rename { from, to }, || fs::rename(from, to))
}

pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    apply(Change::Remove(path), || fs::remove_file(path))
}

pub(crate) fn remove_dir_all(path: &Path) -> io::Result<()> {
    apply(Change::Remove(path), || fs::remove_dir_all(path))
}

/// Syncs a directory, which makes creations, renames and removals in it durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    apply(Change::SyncDirectory(path), || {
        #[cfg(unix)]
        File::open(path).and_then(|directory| directory.sync_all())?;
        Ok(())
    })
}

/// The parent directory of `path`; `.` for a plain file name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A file system operation.
#[cfg_attr(not(feature = "faults"), expect(dead_code, reason = "only the feature `faults` looks at it"))]
enum Change<'a> {
    CreateFile(&'a Path),
    CreateDirectory(&'a Path),
    Write { path: &'a Path, file: &'a File, bytes: &'a [u8] },
    SyncFile(&'a Path),
    SyncDirectory(&'a Path),
    Rename { from: &'a Path, to: &'a Path },
    Remove(&'a Path),
}

#[cfg(feature = "faults")]
use faults::apply;

#[cfg(not(feature = "faults"))]
fn apply<T>(_: Change, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    operation()
}
