//! Memory-mapped files.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::io_error;
use crate::{Error, Result};

/// Maps a file of a prepared data set into memory.
///
/// # Errors
/// [`Error::Missing`] or [`Error::Io`] if it cannot be mapped; [`Error::Layout`] if its length is not
/// `bytes`.
pub(super) fn map(root: &Path, name: &str, bytes: u64) -> Result<Mmap> {
    let path = root.join(name);
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let length = file.metadata().map_err(io_error("read", &path))?.len();
    if length != bytes {
        let reason = format!("{name} has {length} bytes, but the manifest states {bytes}");
        return Err(Error::Layout { path: root.to_owned(), reason });
    }
    if length == 0 {
        let empty = memmap2::MmapMut::map_anon(1).and_then(memmap2::MmapMut::make_read_only);
        return empty.map_err(io_error("map", &path));
    }
    // SAFETY: prepared files are written once, renamed into place and never changed. If another program
    // truncates a file while it is mapped, access to it ends this process by a signal.
    unsafe { Mmap::map(&file) }.map_err(io_error("map", &path))
}
