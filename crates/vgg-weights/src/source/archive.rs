//! Zip archives of weights.

use std::fs::File;
use std::io::{Read, copy, sink};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::read::ZipFile;

use super::{corrupt, io};
use crate::Result;

/// An open archive whose entries all together are not much larger than the file: weights hardly compress.
pub(super) struct Archive {
    pub(super) path: PathBuf,
    /// Of its entries.
    pub(super) names: Vec<String>,
    zip: ZipArchive<File>,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Archive> {
        let file = File::open(path).map_err(|e| io(path, e))?;
        let length = file.metadata().map_err(|e| io(path, e))?.len();
        let mut zip = ZipArchive::new(file).map_err(|e| corrupt(path, e.to_string()))?;
        let (mut sum, mut names) = (0u64, Vec::new());
        for i in 0..zip.len() {
            let entry = zip.by_index_raw(i).map_err(|e| corrupt(path, e.to_string()))?;
            sum = sum.saturating_add(entry.size());
            names.push(entry.name().map_err(|e| corrupt(path, e.to_string()))?.into_owned());
        }
        let most = length.saturating_mul(8).saturating_add(1 << 20);
        if sum > most {
            let what = format!("its {length} bytes claim to unpack to {sum}; weights hardly compress");
            return Err(corrupt(path, what));
        }
        Ok(Archive { path: path.to_owned(), names, zip })
    }

    /// Bytes of an entry when unpacked, as the archive says.
    pub(super) fn size(&mut self, name: &str) -> Result<u64> {
        let entry = self.zip.by_name(name);
        Ok(entry.map_err(|e| corrupt(&self.path, format!("{name}: {e}")))?.size())
    }

    /// A whole entry, which must be at most `most` bytes long.
    pub(super) fn read(&mut self, name: &str, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.with(name, |entry| entry.take(most + 1).read_to_end(&mut bytes))?;
        if bytes.len() as u64 > most {
            return Err(corrupt(&self.path, format!("{name} is longer than {most} bytes")));
        }
        Ok(bytes)
    }

    /// `bytes` bytes of an entry after the first `skip`. The caller has checked that the entry is so long.
    pub(super) fn part(&mut self, name: &str, skip: u64, bytes: usize) -> Result<Vec<u8>> {
        let mut part = vec![0; bytes];
        self.with(name, |entry| {
            copy(&mut entry.by_ref().take(skip), &mut sink())?;
            entry.read_exact(&mut part)
        })?;
        Ok(part)
    }

    fn with<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut ZipFile<File>) -> std::io::Result<T>,
    ) -> Result<T> {
        let entry = self.zip.by_name(name);
        let mut entry = entry.map_err(|e| corrupt(&self.path, format!("{name}: {e}")))?;
        read(&mut entry).map_err(|e| io(&self.path, e))
    }
}
