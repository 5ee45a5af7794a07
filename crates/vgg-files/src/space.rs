//! Whether a directory can be written to, before work begins whose results would go there.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result, at};
use crate::write_bytes;

/// Bytes that are free where `path` is, or will be: what this user may still write.
///
/// # Errors
/// [`Error::Io`].
pub fn free_bytes(path: &Path) -> Result<u64> {
    let there = path.ancestors().find(|p| p.exists()).filter(|p| !p.as_os_str().is_empty());
    let there = there.unwrap_or(Path::new("."));
    fs4::available_space(there).map_err(at("look at", there))
}

/// Writes, syncs and removes a file in a directory, and looks whether `bytes` more would fit.
///
/// # Errors
/// [`Error::Io`] if it cannot be written to, [`Error::NoSpace`] if they would not fit.
pub fn probe(directory: &Path, bytes: u64) -> Result<()> {
    let file = directory.join(".probe");
    write_bytes(&file, &[0; 4096])?;
    fs::remove_file(&file).map_err(at("remove", &file))?;
    let free = free_bytes(directory)?;
    if free < bytes {
        return Err(Error::NoSpace { path: directory.to_owned(), needed: bytes, free });
    }
    Ok(())
}
