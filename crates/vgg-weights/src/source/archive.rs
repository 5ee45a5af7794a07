//! Reading zip archives of weights.

use std::fs::File;
use std::io::{Read, copy, sink};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config, ZipFile};

use super::{corrupt, io};
use crate::Result;

/// Ends of the names of entries in archives of torch.export.
const EXPORTED: [&str; 2] = ["/archive_format", "serialized_exported_program.json"];

/// An open archive; opening rejects archives that unpack to much more than their size.
pub(super) struct Archive {
    pub(super) path: PathBuf,
    /// Names of the entries.
    pub(super) names: Vec<String>,
    zip: ZipArchive<File>,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Archive> {
        let file = File::open(path).map_err(|e| io(path, e))?;
        let length = file.metadata().map_err(|e| io(path, e))?.len();
        // torch writes archives whose offset cannot be detected, and none has one.
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let mut zip = ZipArchive::with_config(config, file).map_err(|e| corrupt(path, e.to_string()))?;
        let (mut sum, mut names) = (0u64, Vec::new());
        for i in 0..zip.len() {
            let entry = zip.by_index_raw(i).map_err(|e| corrupt(path, e.to_string()))?;
            sum = sum.saturating_add(entry.size());
            names.push(entry.name().map_err(|e| corrupt(path, e.to_string()))?.into_owned());
        }
        if names.iter().any(|name| EXPORTED.iter().any(|own| name.ends_with(own))) {
            let what = "it is an exported program (.pt2) of torch.export: save model.state_dict() instead";
            return Err(corrupt(path, what));
        }
        let most = length.saturating_mul(8).saturating_add(1 << 20);
        if sum > most {
            let what = format!("its {length} bytes would unpack to {sum}, but weights hardly compress");
            return Err(corrupt(path, what));
        }
        Ok(Archive { path: path.to_owned(), names, zip })
    }

    /// Unpacked size of an entry in bytes, from the archive's directory.
    pub(super) fn size(&mut self, name: &str) -> Result<u64> {
        let entry = self.zip.by_name(name);
        Ok(entry.map_err(|e| corrupt(&self.path, format!("{name}: {e}")))?.size())
    }

    /// Reads a whole entry of at most `most` bytes.
    pub(super) fn read(&mut self, name: &str, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.with(name, |entry| entry.take(most + 1).read_to_end(&mut bytes))?;
        if bytes.len() as u64 > most {
            return Err(corrupt(&self.path, format!("{name} is longer than {most} bytes")));
        }
        Ok(bytes)
    }

    /// Reads `bytes` bytes of an entry after the first `skip`. The caller has checked the entry's size.
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::CompressionMethod;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(path: &Path, entries: &[(&str, &[u8])], method: CompressionMethod) {
        let mut archive = zip::ZipWriter::new(File::create(path).unwrap());
        for (name, bytes) in entries {
            archive.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap();
    }

    #[test]
    fn entries_are_read_whole_and_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.zip");
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            archive(&path, &[("x", b"0123456789"), ("y/z", b"ab")], method);
            let mut archive = Archive::open(&path).unwrap();
            assert_eq!(
                (archive.path.as_path(), archive.names.as_slice()),
                (path.as_path(), ["x".into(), "y/z".into()].as_slice())
            );
            assert_eq!(archive.size("x").unwrap(), 10);
            assert_eq!(archive.size("y/z").unwrap(), 2);
            assert_eq!(archive.read("x", 10).unwrap(), b"0123456789");
            let message = archive.read("x", 9).unwrap_err().to_string();
            assert!(message.ends_with("x is longer than 9 bytes"), "{message}");
            assert_eq!(archive.part("x", 3, 4).unwrap(), b"3456");
            assert_eq!(archive.part("x", 0, 10).unwrap(), b"0123456789");
            let message = archive.part("x", 3, 8).unwrap_err().to_string();
            assert!(message.ends_with("unexpected end of file"), "{message}");
            for message in [archive.size("q").unwrap_err(), archive.part("q", 0, 1).unwrap_err()] {
                let message = message.to_string();
                assert!(message.contains(path.to_str().unwrap()) && message.contains("q: "), "{message}");
            }
        }
    }

    #[test]
    fn unpacked_size_limit_is_eight_times_the_file_plus_one_mib() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.zip");
        let opened = |parts: [usize; 2]| {
            let zeros = parts.map(|len| vec![0; len]);
            archive(&path, &[("x", &zeros[0]), ("y", &zeros[1])], CompressionMethod::Deflated);
            let length = std::fs::metadata(&path).unwrap().len() as usize;
            (Archive::open(&path).map(drop).map_err(|e| e.to_string()), length)
        };
        // Deflate packs about a thousand zeros into one byte, so a few thousand more or less change little.
        let length = opened([1 << 19, 1 << 19]).1;
        let most = (1 << 20) + 8 * length;
        assert_eq!(opened([1 << 19, most - (1 << 19)]).0, Ok(()));
        let sum = most + 400;
        let (refused, length) = opened([1 << 19, sum - (1 << 19)]);
        assert!(sum > (1 << 20) + 8 * length, "the archive grew");
        let reason = format!("its {length} bytes would unpack to {sum}, but weights hardly compress");
        assert!(refused.unwrap_err().ends_with(&reason));
    }

    /// A damaged entry is bad data, not a failure of the disk.
    #[test]
    fn damaged_entries_are_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.zip");
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let text: Vec<u8> = (0..500u32).map(|i| (i * i % 251) as u8).collect();
            archive(&path, &[("x", &text)], method);
            let whole = std::fs::read(&path).unwrap();
            let mut refused = 0;
            for at in 0..whole.len() {
                let mut damaged = whole.clone();
                damaged[at] ^= 0x10;
                std::fs::write(&path, damaged).unwrap();
                if let Err(error) = Archive::open(&path).and_then(|mut archive| archive.read("x", 1000)) {
                    assert_eq!(error.kind(), vgg_error::ErrorKind::BadData, "byte {at}: {error}");
                    refused += 1;
                }
            }
            assert!(refused > whole.len() / 2, "{refused} of {} bytes", whole.len());
        }
    }

    #[test]
    fn exported_programs_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pt2");
        let inner = dir.path().join("inner.pt");
        archive(&inner, &[("x", b"0123456789")], CompressionMethod::Stored);
        let inner = std::fs::read(&inner).unwrap();
        let entries: [(&str, &[u8]); 2] =
            [("exported/data/model.pt", &inner), ("exported/archive_format", b"pt2")];
        archive(&path, &entries, CompressionMethod::Stored);
        let message = Archive::open(&path).err().unwrap().to_string();
        assert!(message.contains("(.pt2) of torch.export: save model.state_dict()"), "{message}");
    }

    #[test]
    fn missing_and_invalid_archives_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.zip");
        let missing = Archive::open(&path).err().unwrap();
        assert!(matches!(missing, crate::Error::File(vgg_files::Error::Missing { path: p }) if p == path));
        std::fs::write(&path, b"PK\x03\x04 and nothing more").unwrap();
        let corrupt = Archive::open(&path).err().unwrap();
        assert!(matches!(corrupt, crate::Error::File(vgg_files::Error::Corrupt { .. })));
    }
}
