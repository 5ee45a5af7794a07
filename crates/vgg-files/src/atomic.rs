//! Files that appear whole or not at all.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Serialize, de::DeserializeOwned};

use crate::disk::{self, Sink};
use crate::error::{Error, Result, at};

/// Writes a file through `fill`. Until it is whole and synced, `path` keeps what it had; if anything fails, nothing
/// is left behind.
///
/// # Errors
/// [`Error::Io`] with the path, or whatever `fill` returns.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let mut file = FileWriter::create(path)?;
    fill(&mut file).map_err(at("write", path))?;
    file.commit()
}

/// A file under another name until it is committed. Dropped before, it leaves nothing behind.
pub struct FileWriter {
    path: PathBuf,
    partial: PathBuf,
    out: Option<BufWriter<Sink>>,
}

impl FileWriter {
    /// Begins the file beside `path`, in a folder that is made if need be.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(path: &Path) -> Result<FileWriter> {
        if let Some(parent) = path.parent() {
            disk::create_dir_all(parent).map_err(at("create", parent))?;
        }
        FileWriter::create_in_folder(path)
    }

    /// Begins the file beside `path`, in a folder that must be there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create_in_folder(path: &Path) -> Result<FileWriter> {
        let partial = beside(path);
        let file = Sink::create(&partial).map_err(at("write", path))?;
        let out = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(FileWriter { path: path.to_owned(), partial, out })
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// [`Error::Io`]; `path` keeps what it had.
    pub fn commit(mut self) -> Result<()> {
        let out = self.out.take().ok_or(std::io::Error::other("committed twice"));
        let synced = out.and_then(|out| out.into_inner().map_err(|e| e.into_error())?.sync());
        synced.and_then(|()| disk::rename(&self.partial, &self.path)).map_err(at("write", &self.path))?;
        sync_parent(&self.path)
    }
}

impl FileWriter {
    /// Brings to the disk what was written so far.
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
        // After a commit there is nothing under this name. Otherwise the write has failed already; that its litter stays
        // behind as well would be no better news.
        let _ = disk::remove_file(&self.partial);
    }
}

/// Removes what writers left in `directory` that died: files and directories under the names that they have until they are
/// whole. What a [`crate::DirectoryWriter`] was about to replace gets its name back. Only who holds the directory's lock may do
/// so; a directory that is not there has nothing in it.
///
/// # Errors
/// [`Error::Io`].
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
        // Between the two stands the number of the process.
        let whole = rest.rsplit_once('.').map(|(name, _)| directory.join(name));
        match (kind, whole) {
            ("old", Some(whole)) if !whole.exists() => {
                disk::rename(&path, &whole).map_err(at("put back", &whole))?;
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

/// Writes `bytes` as [`write_with`] does.
///
/// # Errors
/// As [`write_with`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |out| out.write_all(bytes))
}

/// Writes `value` as indented JSON with a final newline.
///
/// # Errors
/// As [`write_with`]; [`Error::Corrupt`] if the value has no JSON form.
pub fn write_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| Error::corrupt(path, e))?;
    json.push(b'\n');
    write_bytes(path, &json)
}

/// Creates a directory and its missing parents. Their names are on the disk when this returns.
///
/// # Errors
/// [`Error::Io`].
pub fn create_directory(path: &Path) -> Result<()> {
    disk::create_dir_all(path).map_err(at("create", path))
}

/// Removes a file, if it is there.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(at("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Reads a file.
///
/// # Errors
/// [`Error::Missing`] or [`Error::Io`].
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(at("read", path))
}

/// Reads JSON.
///
/// # Errors
/// [`Error::Missing`], [`Error::Io`], or [`Error::Corrupt`] with what the parser said.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = read_bytes(path)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(path, e))
}

/// A name beside `path` that no other process uses.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The number of a process is not enough: containers have the same ones.
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

/// Makes a rename in `path`'s parent durable.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    let parent = disk::parent(path);
    disk::sync_directory(parent).map_err(at("sync", parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_litter() {
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
    fn bad_json_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        assert!(read_json::<u32>(&path).unwrap_err().is_missing());
        write_bytes(&path, b"[1, 2").unwrap();
        let error = read_json::<Vec<u32>>(&path).unwrap_err().to_string();
        assert!(error.contains("x.json") && error.contains("EOF"), "{error}");
    }
}
