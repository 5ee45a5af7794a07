//! Atomic writing of files, reading, and removal of the partial files of interrupted writers.

use std::fs;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::disk::{self, Sink};
use crate::error::{Error, Result, at};

/// Writes a file atomically with `fill`. `path` keeps its old contents until the new file is complete and
/// synced. If an operation fails, the partial file is removed.
///
/// # Errors
/// [`Error::Io`] with the path if `fill` or a file system operation fails.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let mut file = FileWriter::create(path)?;
    fill(&mut file).map_err(at("write", path))?;
    file.commit()
}

/// A file with a temporary name until [`FileWriter::commit`]. If dropped before, it is removed.
pub struct FileWriter {
    path: PathBuf,
    partial: PathBuf,
    out: Option<BufWriter<Sink>>,
}

impl FileWriter {
    /// Creates the temporary file in the folder of `path`. Creates the folder if it does not exist.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder or the file cannot be created.
    pub fn create(path: &Path) -> Result<FileWriter> {
        if let Some(parent) = path.parent() {
            disk::create_dir_all(parent).map_err(at("create", parent))?;
        }
        FileWriter::create_in_folder(path)
    }

    /// Creates the temporary file in the folder of `path`, which must exist.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created, or if `path` is a device, a pipe or a directory, which the file
    /// would replace.
    pub fn create_in_folder(path: &Path) -> Result<FileWriter> {
        if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file() && !there.is_symlink()) {
            return Err(at("write", path)(std::io::Error::other("it is not a regular file")));
        }
        let partial = beside(path);
        let file = Sink::create(&partial).map_err(at("write", path))?;
        let out = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(FileWriter { path: path.to_owned(), partial, out })
    }

    /// Syncs the file, renames it to `path` and syncs the folder.
    ///
    /// # Errors
    /// [`Error::Io`] if one of these fails. Unless it is the last, `path` keeps its old contents.
    pub fn commit(mut self) -> Result<()> {
        let out = self.out.take().ok_or(std::io::Error::other("committed twice"));
        let synced = out.and_then(|out| out.into_inner().map_err(|e| e.into_error())?.sync());
        synced.and_then(|()| disk::rename(&self.partial, &self.path)).map_err(at("write", &self.path))?;
        sync_parent(&self.path)
    }
}

impl FileWriter {
    /// Flushes and syncs the bytes written so far.
    pub(crate) fn sync(&mut self) -> std::io::Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        out.flush()?;
        out.get_ref().sync()
    }
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.as_mut().map_or(Ok(0), |out| out.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        // After a commit the temporary file does not exist. Otherwise the write has failed already, and a
        // second error is not reported.
        let _ = disk::remove_file(&self.partial);
    }
}

/// Removes the partial files and directories that killed writers left in `directory`. A directory that a
/// [`crate::DirectoryWriter`] had moved away to replace it gets its name back. The caller must hold the
/// directory's lock. If `directory` does not exist, nothing is done.
///
/// # Errors
/// [`Error::Io`] if a file cannot be listed, renamed or removed.
pub fn remove_partial_files(directory: &Path) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(at("read", directory))?,
    };
    for entry in entries {
        let path = entry.map_err(at("read", directory))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((rest, kind)) = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')) else {
            continue;
        };
        // `rest` is the name, a dot, and the identifiers of the writer.
        let whole = rest.rsplit_once('.').map(|(name, _)| directory.join(name));
        match (kind, whole) {
            ("old", Some(whole)) if !whole.exists() => {
                disk::rename(&path, &whole).map_err(at("restore", &whole))?;
            }
            ("partial" | "old", Some(_)) if path.is_dir() => {
                disk::remove_dir_all(&path).map_err(at("remove", &path))?;
            }
            ("partial" | "old", Some(_)) => disk::remove_file(&path).map_err(at("remove", &path))?,
            _ => {}
        }
    }
    Ok(())
}

/// Writes `bytes` to a file atomically.
///
/// # Errors
/// As [`write_with`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |out| out.write_all(bytes))
}

/// Creates a directory and its missing parents, durably.
///
/// # Errors
/// [`Error::Io`] if one cannot be created or synced.
pub fn create_directory(path: &Path) -> Result<()> {
    disk::create_dir_all(path).map_err(at("create", path))
}

/// Removes a file, if it exists.
///
/// # Errors
/// [`Error::Io`] if it cannot be removed.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(at("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Opens a regular file. A device has no end, and opening a named pipe waits for its writer.
///
/// # Errors
/// The system's error; [`std::io::ErrorKind::Other`] if it is a directory, a device or a pipe.
pub fn open_regular(path: &Path) -> std::io::Result<fs::File> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() {
        return fs::File::open(path);
    }
    let what = if metadata.is_dir() { "it is a directory" } else { "it is not a regular file" };
    Err(std::io::Error::other(what))
}

/// Largest file that [`read_bytes`] reads.
const MAX_READ_BYTES: u64 = 1 << 30;

/// Reads a file of at most 1 GiB.
///
/// # Errors
/// [`Error::Missing`] if it does not exist; [`Error::Io`] if it cannot be read or is not a regular file;
/// [`Error::Corrupt`] if it is larger.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let file = open_regular(path).map_err(at("read", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_READ_BYTES + 1).read_to_end(&mut bytes).map_err(at("read", path))?;
    if bytes.len() as u64 > MAX_READ_BYTES {
        return Err(Error::corrupt(path, "it has more than 1 GiB"));
    }
    Ok(bytes)
}

/// A unique temporary name in the folder of `path`. It starts with at most 50 characters of the name, because names
/// have at most 255 bytes.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(50).collect();
    // The process id is not enough: processes in different containers can have the same.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Relaxed));
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_nanos());
    path.with_file_name(format!(".{name}.{process}-{number}-{now}.partial"))
}

pub(crate) fn write_synced(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, Sink::create(path)?);
    fill(&mut out)?;
    out.into_inner().map_err(|e| e.into_error())?.sync()
}

/// Syncs the parent of `path`, which makes a rename durable.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    let parent = disk::parent(path);
    disk::sync_directory(parent).map_err(at("sync", parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_write_keeps_the_old_file_and_leaves_no_partial_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/file.txt");
        write_bytes(&path, b"old").unwrap();
        let failed = write_with(&path, |out| {
            out.write_all(b"half of the new")?;
            Err(std::io::Error::other("disk on fire"))
        });
        assert!(failed.unwrap_err().to_string().contains("disk on fire"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn only_regular_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        for path in [Path::new("/dev/null"), &folder] {
            let message = write_bytes(path, b"x").unwrap_err().to_string();
            assert!(message.contains("it is not a regular file"), "{message}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // The longest name, also if it is cut inside a character.
        for name in ["a".repeat(255), "ä".repeat(127)] {
            write_bytes(&dir.path().join(&name), b"x").unwrap();
            assert_eq!(fs::read(dir.path().join(&name)).unwrap(), b"x");
        }
    }
}
