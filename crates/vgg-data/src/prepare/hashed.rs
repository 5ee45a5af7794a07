//! [`Hashed`]: a file that is hashed during writing.

use std::io::{self, Write};
use std::path::Path;

use vgg_files::{FileWriter, Hash, Hasher};

use crate::Result;

/// A [`FileWriter`] that hashes and counts the written bytes.
pub(super) struct Hashed {
    file: FileWriter,
    hasher: Hasher,
    bytes: u64,
}

impl Hashed {
    pub(super) fn create(path: &Path) -> Result<Hashed> {
        Ok(Hashed { file: FileWriter::create(path)?, hasher: Hasher::default(), bytes: 0 })
    }

    /// Number of bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Commits the file. Returns its length and its hash.
    pub(super) fn commit(self) -> Result<(u64, Hash)> {
        self.file.commit()?;
        Ok((self.bytes, self.hasher.hash()))
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
