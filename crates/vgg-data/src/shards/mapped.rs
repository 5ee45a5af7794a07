//! Files in memory as they lie on a disk.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::at;
use crate::{Error, Result};

/// A file of a prepared set, if it has the length that it should.
pub(super) fn map(root: &Path, name: &str, bytes: u64) -> Result<Mmap> {
    let path = root.join(name);
    let file = File::open(&path).map_err(at("open", &path))?;
    let length = file.metadata().map_err(at("read", &path))?.len();
    if length != bytes {
        let reason = format!("{name} has {length} bytes where the index says {bytes}");
        return Err(Error::Layout { path: root.to_owned(), reason });
    }
    if length == 0 {
        let empty = memmap2::MmapMut::map_anon(1).and_then(memmap2::MmapMut::make_read_only);
        return empty.map_err(at("map", &path));
    }
    // SAFETY: prepared files are written once and renamed into place, and never changed; whoever truncates one while it is
    // in use ends the program.
    unsafe { Mmap::map(&file) }.map_err(at("map", &path))
}
