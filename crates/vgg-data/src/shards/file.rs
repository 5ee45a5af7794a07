//! Reading the files of a prepared data set. They are read, not memory-mapped: if another program truncates a
//! file, that is an error and not a signal.

use std::fs::File;
use std::path::{Path, PathBuf};

use vgg_files::{hash_file, open_regular};

use super::{INDEX_FILE, IndexFile, ShardFile};
use crate::error::io_error;
use crate::{Error, Result};

/// Number of shards of a split that are kept open, well below the usual limit of 1,024 open files. Further shards
/// are opened for each image.
const KEPT_OPEN: usize = 256;

/// A tar file on a local disk.
pub(super) struct LocalShard {
    path: PathBuf,
    bytes: u64,
    /// `None` if the file is opened for each image.
    file: Option<File>,
}

impl LocalShard {
    /// Opens a shard. `number` is its number in the split.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Io`] if the file cannot be opened; [`Error::Layout`] if it has another length.
    pub(super) fn open(root: &Path, number: usize, shard: &ShardFile) -> Result<LocalShard> {
        let path = root.join(&shard.file);
        let file = open_regular(&path).map_err(io_error("open", &path))?;
        let length = file.metadata().map_err(io_error("read", &path))?.len();
        if length != shard.bytes {
            return Err(other_length(root, &shard.file, length, shard.bytes));
        }
        Ok(LocalShard { path, bytes: shard.bytes, file: (number < KEPT_OPEN).then_some(file) })
    }

    /// Reads `length` bytes at `offset`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read or has become shorter.
    pub(super) fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        let reopened;
        let file = match &self.file {
            Some(file) => file,
            None => {
                reopened = open_regular(&self.path).map_err(io_error("open", &self.path))?;
                &reopened
            }
        };
        let mut bytes = vec![0; length as usize];
        match read_at(file, &mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                let now = file.metadata().map_err(io_error("read", &self.path))?.len();
                let reason = format!("it was truncated from {} to {now} bytes while in use", self.bytes);
                Err(Error::Io { action: "read", path: self.path.clone(), reason })
            }
            Err(e) => Err(io_error("read", &self.path)(e)),
        }
    }
}

/// Opens an index, a list of names or a list of classes, called `name`, after checking its length and its hash.
///
/// # Errors
/// [`Error::Missing`], [`Error::Io`] or [`Error::File`] if it cannot be read; [`Error::Layout`] if it differs from the
/// manifest.
pub(super) fn check_contents(root: &Path, name: &str, stated: &IndexFile) -> Result<File> {
    let path = root.join(name);
    let file = open_regular(&path).map_err(io_error("open", &path))?;
    let length = file.metadata().map_err(io_error("read", &path))?.len();
    if length != stated.bytes {
        return Err(other_length(root, name, length, stated.bytes));
    }
    if hash_file(&path)? != stated.blake3 {
        let reason = format!("{name} is damaged: its hash differs from {INDEX_FILE}");
        return Err(Error::Layout { path: root.to_owned(), reason });
    }
    Ok(file)
}

fn other_length(root: &Path, name: &str, found: u64, stated: u64) -> Error {
    let reason = format!("{name} has {found} bytes, but {INDEX_FILE} states {stated}");
    Error::Layout { path: root.to_owned(), reason }
}

#[cfg(unix)]
pub(super) fn read_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(windows)]
pub(super) fn read_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match std::os::windows::fs::FileExt::seek_read(file, &mut bytes[done..], start + done as u64)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(())
}
