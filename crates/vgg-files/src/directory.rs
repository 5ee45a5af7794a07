//! Directories that appear whole or not at all, with a manifest of their files.

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

/// Size and hash of every file of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// By file name.
    pub files: BTreeMap<String, Entry>,
}

/// One file of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Length of the file.
    pub bytes: u64,
    /// BLAKE3 of its contents.
    pub blake3: Hash,
}

/// Writes a directory beside its final name; [`DirectoryWriter::commit`] makes it appear.
pub struct DirectoryWriter {
    path: PathBuf,
    partial: PathBuf,
    files: BTreeMap<String, Entry>,
    committed: bool,
}

impl DirectoryWriter {
    /// Starts a directory that will be at `path`, in one that must be there.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be made.
    pub fn new(path: &Path) -> Result<DirectoryWriter> {
        let partial = beside(path);
        // Left by a process of the same number that was killed.
        if partial.exists() {
            disk::remove_dir_all(&partial).map_err(at("remove", &partial))?;
        }
        disk::create_dir(&partial).map_err(at("create", &partial))?;
        Ok(DirectoryWriter { path: path.to_owned(), partial, files: BTreeMap::new(), committed: false })
    }

    /// Adds a file.
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

    /// Writes the manifest and gives the directory its name, in place of what was there.
    ///
    /// # Errors
    /// [`Error::Io`]; an earlier directory of this name is then still there.
    pub fn commit(mut self) -> Result<()> {
        let manifest = Manifest { files: std::mem::take(&mut self.files) };
        // It has no name of its own to be renamed to, and makes no folder anew that was removed meanwhile.
        let path = self.partial.join(MANIFEST);
        write_synced(&path, |out| Ok(serde_json::to_writer_pretty(out, &manifest)?))
            .map_err(at("write", &path))?;
        // The names in the directory.
        sync_parent(&path)?;
        let old = self.partial.with_extension("old");
        if self.path.exists() {
            disk::rename(&self.path, &old).map_err(at("replace", &self.path))?;
        }
        if let Err(source) = disk::rename(&self.partial, &self.path) {
            if old.exists() {
                disk::rename(&old, &self.path).map_err(at("put back", &self.path))?;
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
            // Only tidying after a failure that was reported.
            let _ = disk::remove_dir_all(&self.partial);
        }
    }
}

/// Checks every file of a directory against its manifest.
///
/// # Errors
/// [`Error::Corrupt`] naming the first file that differs; [`Error::Missing`] if one or the manifest is not there.
pub fn verify(directory: &Path) -> Result<Manifest> {
    let manifest: Manifest = read_json(&directory.join(MANIFEST))?;
    for (name, entry) in &manifest.files {
        let path = directory.join(name);
        let bytes = fs::metadata(&path).map_err(at("read", &path))?.len();
        if bytes != entry.bytes {
            return Err(Error::corrupt(
                &path,
                format!("{bytes} bytes long, but {} were written", entry.bytes),
            ));
        }
        if hash_file(&path)? != entry.blake3 {
            return Err(Error::corrupt(&path, "its hash is not the one in the manifest"));
        }
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_and_a_cut_file_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let mut writer = DirectoryWriter::new(&path).unwrap();
        writer.add("a.bin", |out| out.write_all(&[1; 1000])).unwrap();
        assert!(!path.exists(), "nothing appears before the commit");
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
    fn an_abandoned_directory_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = DirectoryWriter::new(&dir.path().join("x")).unwrap();
        writer.add("a", |out| out.write_all(b"a")).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
