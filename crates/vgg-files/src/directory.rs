//! Atomic writing of directories, with a manifest of their files, and verification against the manifest.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic::{beside, sync_parent, write_synced};
use crate::disk;
use crate::error::{Error, Result, at};
use crate::{Hash, hash_file, read_json};

const MANIFEST: &str = "manifest.json";

/// The `manifest.json` of a directory: size and hash of every file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Entries by file name.
    pub files: BTreeMap<String, Entry>,
}

/// Size and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3 hash of the contents.
    pub blake3: Hash,
}

/// A directory that is written under a temporary name until [`DirectoryWriter::commit`]. If dropped before,
/// it is removed.
pub struct DirectoryWriter {
    path: PathBuf,
    partial: PathBuf,
    files: BTreeMap<String, Entry>,
    committed: bool,
}

impl DirectoryWriter {
    /// Creates the temporary directory in the parent of `path`, which must exist.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub fn new(path: &Path) -> Result<DirectoryWriter> {
        let partial = beside(path);
        // Left by a killed process of the same temporary name.
        if partial.exists() {
            disk::remove_dir_all(&partial).map_err(at("remove", &partial))?;
        }
        disk::create_dir(&partial).map_err(at("create", &partial))?;
        Ok(DirectoryWriter { path: path.to_owned(), partial, files: BTreeMap::new(), committed: false })
    }

    /// Writes a file with `fill` and syncs it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn add(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let path = self.partial.join(name);
        write_synced(&path, fill).map_err(at("write", &self.path.join(name)))?;
        let bytes = fs::metadata(&path).map_err(at("read", &path))?.len();
        self.files.insert(name.to_owned(), Entry { bytes, blake3: hash_file(&path)? });
        Ok(())
    }

    /// Writes the manifest and renames the directory to `path`. Replaces an existing directory.
    ///
    /// # Errors
    /// [`Error::Io`] if an operation fails. Before the final rename, an existing directory is kept.
    pub fn commit(mut self) -> Result<()> {
        let manifest = Manifest { files: std::mem::take(&mut self.files) };
        // Not by `write_with`, which would create the directory again if it was removed.
        let path = self.partial.join(MANIFEST);
        write_synced(&path, |out| Ok(serde_json::to_writer_pretty(out, &manifest)?))
            .map_err(at("write", &path))?;
        // Makes the names of the files in the directory durable.
        sync_parent(&path)?;
        let old = self.partial.with_extension("old");
        if self.path.exists() {
            disk::rename(&self.path, &old).map_err(at("replace", &self.path))?;
        }
        if let Err(source) = disk::rename(&self.partial, &self.path) {
            if old.exists() {
                disk::rename(&old, &self.path).map_err(at("restore", &self.path))?;
            }
            return Err(at("write", &self.path)(source));
        }
        self.committed = true;
        sync_parent(&self.path)?;
        if old.exists() {
            disk::remove_dir_all(&old).map_err(at("remove", &old))?;
        }
        Ok(())
    }
}

impl Drop for DirectoryWriter {
    fn drop(&mut self) {
        if !self.committed {
            // The failure has been reported already.
            let _ = disk::remove_dir_all(&self.partial);
        }
    }
}

/// Checks size and hash of every file in a directory's manifest. Other files in the directory are ignored.
///
/// # Errors
/// [`Error::Corrupt`] with the first file that differs; [`Error::Missing`] if a file or the manifest does not
/// exist; [`Error::Io`] if one cannot be read.
pub fn verify(directory: &Path) -> Result<Manifest> {
    let manifest: Manifest = read_json(&directory.join(MANIFEST))?;
    for (name, entry) in &manifest.files {
        let path = directory.join(name);
        let bytes = fs::metadata(&path).map_err(at("read", &path))?.len();
        if bytes != entry.bytes {
            return Err(Error::corrupt(
                &path,
                format!("it has {bytes} bytes, but the manifest states {}", entry.bytes),
            ));
        }
        if hash_file(&path)? != entry.blake3 {
            return Err(Error::corrupt(&path, "its hash differs from the manifest"));
        }
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verify_detects_a_flipped_bit_and_a_truncated_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let mut writer = DirectoryWriter::new(&path).unwrap();
        writer.add("a.bin", |out| out.write_all(&[1; 1000])).unwrap();
        assert!(!path.exists(), "the directory must not exist before the commit");
        writer.commit().unwrap();
        verify(&path).unwrap();

        let mut bytes = [1; 1000];
        bytes[500] ^= 4;
        fs::write(path.join("a.bin"), bytes).unwrap();
        assert!(verify(&path).unwrap_err().to_string().contains("a.bin"));
        fs::write(path.join("a.bin"), [1; 999]).unwrap();
        assert!(verify(&path).unwrap_err().to_string().contains("999 bytes"));
    }

    #[test]
    fn dropped_directory_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = DirectoryWriter::new(&dir.path().join("x")).unwrap();
        writer.add("a", |out| out.write_all(b"a")).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
