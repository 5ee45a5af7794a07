//! Whether a directory can be written to, before work begins whose results would go there.

use std::io::Write;
use std::path::Path;

use crate::FileWriter;
use crate::error::{Error, Result, at};

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
    let mut file = FileWriter::create(&directory.join("probe"))?;
    file.write_all(&[0; 4096]).and_then(|()| file.sync()).map_err(at("write", directory))?;
    // It never gets its name, and so leaves nothing behind.
    drop(file);
    let free = free_bytes(directory)?;
    if free < bytes {
        return Err(Error::NoSpace { path: directory.to_owned(), needed: bytes, free });
    }
    Ok(())
}
