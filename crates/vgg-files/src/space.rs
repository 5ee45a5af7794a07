//! Free space, and a check that a directory can be written to.

use std::io::Write;
use std::path::Path;

use crate::FileWriter;
use crate::error::{Error, Result, at};

/// Free space for this user, in bytes, on the file system of `path` or of its nearest existing ancestor.
///
/// # Errors
/// [`Error::Io`] if it cannot be determined.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let there = path.ancestors().find(|p| p.exists()).filter(|p| !p.as_os_str().is_empty());
    let there = there.unwrap_or(Path::new("."));
    fs4::available_space(there).map_err(at("get the free space of", there))
}

/// Writes, syncs and removes a small file in a directory, and checks that `bytes` more bytes are free.
/// Creates the directory if it does not exist.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be written to; [`Error::NoSpace`] if less than `bytes` is free.
pub fn probe(directory: &Path, bytes: u64) -> Result<()> {
    let mut file = FileWriter::create(&directory.join("probe"))?;
    file.write_all(&[0; 4096]).and_then(|()| file.sync()).map_err(at("write", directory))?;
    // The file is never committed, so dropping it removes it.
    drop(file);
    let free = free_bytes(directory)?;
    if free < bytes {
        return Err(Error::NoSpace { path: directory.to_owned(), needed: bytes, free });
    }
    Ok(())
}
