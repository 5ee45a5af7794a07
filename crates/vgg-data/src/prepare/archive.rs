//! Reading of tar files as streams, without unpacking to disk. The MD5 checksum is computed during reading.

use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use md5::{Digest, Md5};
use vgg_files::open_regular;

use crate::error::io_error;
use crate::shards::BLOCK;
use crate::{Error, Result};

/// Largest member that is read, more than any image of a data set has.
const MAX_MEMBER_BYTES: u64 = 256 << 20;
/// Largest header of extended attributes, or long name, of a member: tar has no limit, and a name of zeros compresses
/// to nothing.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Passes every file of a tar file to `consume`, then compares the MD5 checksum with `md5`, if given.
///
/// # Errors
/// [`Error::Source`] with archive and member if the archive is damaged; [`Error::Checksum`] if the checksum
/// differs; [`Error::Missing`] or [`Error::Io`] if the file cannot be read; errors of `consume`.
pub(super) fn members(
    path: &Path,
    md5: Option<&str>,
    consume: &mut dyn FnMut(Member) -> Result<()>,
) -> Result<()> {
    let file = open_regular(path).map_err(io_error("open", path))?;
    let mut hashing =
        Hashing { inner: BufReader::with_capacity(1 << 20, file), md5: md5.map(|_| Md5::new()) };
    walk(&mut hashing, path, consume)?;
    let Some(expected) = md5 else { return Ok(()) };
    let found = hashing.md5.map(|md5| hex(&md5.finalize())).unwrap_or_default();
    same_md5(path, &found, expected)
}

/// MD5 checksum of `bytes`, in hexadecimal.
pub(super) fn md5_of(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares two MD5 checksums.
///
/// # Errors
/// [`Error::Checksum`] if they differ.
pub(super) fn same_md5(path: &Path, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Checksum { path: path.to_owned(), found: found.to_owned(), expected: expected.to_owned() })
}

/// A file in an archive.
pub(super) struct Member<'a> {
    /// Path of the archive, followed by the name.
    pub(super) path: PathBuf,
    /// Name in the archive, with `/` as separator.
    pub(super) name: String,
    bytes: u64,
    contents: &'a mut dyn Read,
}

impl Member<'_> {
    /// Last component of the name.
    pub(super) fn file_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    /// Reads the contents.
    pub(super) fn read(&mut self) -> Result<Vec<u8>> {
        self.read_at_most(MAX_MEMBER_BYTES)
    }

    /// Reads the contents of at most `most` bytes.
    pub(super) fn read_at_most(&mut self, most: u64) -> Result<Vec<u8>> {
        let refuse = |reason: String| Error::Source { path: self.path.clone(), reason };
        if self.bytes > most {
            return Err(refuse(format!("its header gives {} bytes; at most {most} are allowed", self.bytes)));
        }
        let mut bytes = Vec::with_capacity(self.bytes as usize);
        self.contents.read_to_end(&mut bytes).map_err(|e| failure(&self.path, e))?;
        if bytes.len() as u64 != self.bytes {
            return Err(refuse(format!("it is truncated after {} of {} bytes", bytes.len(), self.bytes)));
        }
        Ok(bytes)
    }

    /// Passes every file of this member, which is a tar file itself, to `consume`.
    pub(super) fn members(&mut self, consume: &mut dyn FnMut(Member) -> Result<()>) -> Result<()> {
        let path = self.path.clone();
        walk(&mut self.contents, &path, consume)
    }
}

/// Passes every file of a tar file to `consume`, and reads to the end of `reader`, so that a checksum of the
/// whole is complete.
fn walk(reader: impl Read, path: &Path, consume: &mut dyn FnMut(Member) -> Result<()>) -> Result<()> {
    let refuse = |path: &Path, reason: String| Error::Source { path: path.to_owned(), reason };
    let damaged = |e: io::Error| failure(path, e);
    let mut ended = Counting { inner: reader, bytes: 0, start: Vec::new() };
    let mut archive = tar::Archive::new(&mut ended);
    let (mut failed, mut last_end) = (Ok(()), 0);
    let mut long_name = None;
    for member in archive.entries().map_err(damaged)?.raw(true) {
        let mut member = match member {
            Ok(member) => member,
            Err(e) => {
                failed = Err(e);
                break;
            }
        };
        last_end = member.raw_file_position() + member.size().next_multiple_of(BLOCK as u64);
        let kind = member.header().entry_type();
        if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
            let contents = header_contents(&mut member, path)?;
            long_name = match kind.is_gnu_longname() {
                true => Some(contents.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()),
                false => pax_path(&contents).map_err(|what| refuse(path, what))?.or(long_name),
            };
            continue;
        }
        if kind.is_gnu_longlink() || kind.is_pax_global_extensions() {
            continue;
        }
        let name = text_of(&long_name.take().unwrap_or_else(|| member.path_bytes().into_owned()));
        let at = path.join(name.trim_start_matches('/'));
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            return Err(refuse(&at, format!("it is not a regular file; its tar entry type is {kind:?}")));
        }
        let inside = |c: Component| matches!(c, Component::Normal(_) | Component::CurDir);
        if !Path::new(&name).components().all(inside) {
            return Err(refuse(path, format!("its member {name:?} has a path outside the archive")));
        }
        let bytes = member.size();
        consume(Member { path: at, name, bytes, contents: &mut member })?;
    }
    if ended.start.starts_with(&[0x1f, 0x8b]) {
        return Err(refuse(path, "it is compressed with gzip; decompress it first".into()));
    }
    failed.map_err(|e| failure(path, e))?;
    // A tar file ends with a block of zeros after the last member. The padding of a member does not count.
    if ended.bytes < last_end + BLOCK as u64 {
        let reason = format!("it is truncated after {} bytes: its end is missing", ended.bytes);
        return Err(refuse(path, reason));
    }
    let mut rest = [0; 1 << 14];
    loop {
        match ended.read(&mut rest).map_err(|e| failure(path, e))? {
            0 => return Ok(()),
            n if rest[..n].iter().all(|&byte| byte == 0) => {}
            _ => {
                return Err(refuse(path, "data follows its end: it may be two concatenated archives".into()));
            }
        }
    }
}

/// The contents of a header of extended attributes or a long name.
fn header_contents(member: &mut tar::Entry<impl Read>, path: &Path) -> Result<Vec<u8>> {
    let bytes = member.size();
    if bytes > MAX_HEADER_BYTES {
        let reason = format!("a name or header of {bytes} bytes; at most {MAX_HEADER_BYTES} are allowed");
        return Err(Error::Source { path: path.to_owned(), reason });
    }
    let mut contents = Vec::new();
    member.read_to_end(&mut contents).map_err(|e| failure(path, e))?;
    Ok(contents)
}

/// The path in a header of extended attributes, of lines `LENGTH KEY=VALUE`, if it has one.
fn pax_path(header: &[u8]) -> std::result::Result<Option<Vec<u8>>, String> {
    let mut rest = header;
    let mut path = None;
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ');
        let length = space.and_then(|space| std::str::from_utf8(&rest[..space]).ok()?.parse::<usize>().ok());
        let record =
            space.zip(length).and_then(|(space, length)| rest.get(space + 1..length.checked_sub(1)?));
        let (Some(length), Some(record)) = (length, record) else {
            return Err("a header of extended attributes is damaged".into());
        };
        if record.starts_with(b"size=") {
            return Err(
                "a size among extended attributes, as of a member above 8 GiB, is not supported".into()
            );
        }
        path = record.strip_prefix(b"path=").map(<[u8]>::to_vec).or(path);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(path)
}

/// A name as text. Bytes that are not UTF-8 become `\xHH`, so that different names stay different.
fn text_of(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// An operating system error as [`Error::Io`] or [`Error::Missing`]; any other as [`Error::Source`].
fn failure(path: &Path, e: io::Error) -> Error {
    if e.raw_os_error().is_some() {
        return io_error("read", path)(e);
    }
    Error::Source { path: path.to_owned(), reason: format!("it is damaged or has another format: {e}") }
}

/// Passes every file of a gzip-compressed tar file to `consume`.
pub(super) fn gzipped_members(
    reader: impl Read,
    path: &Path,
    consume: &mut dyn FnMut(Member) -> Result<()>,
) -> Result<()> {
    walk(MultiGzDecoder::new(reader), path, consume)
}

/// Counts the bytes that are read, and stores the first two.
struct Counting<R> {
    inner: R,
    bytes: u64,
    start: Vec<u8>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if self.start.len() < 2 {
            self.start.extend(buffer[..n].iter().take(2 - self.start.len()));
        }
        self.bytes += n as u64;
        Ok(n)
    }
}

struct Hashing<R> {
    inner: R,
    md5: Option<Md5>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(md5) = &mut self.md5 {
            md5.update(&buffer[..n]);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_covers_the_whole_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        header.set_path("a").unwrap();
        header.set_cksum();
        tar.append(&header, b"abc".as_slice()).unwrap();
        // Padding as tar writes it, far beyond the position where a reader of members stops.
        let bytes = [tar.into_inner().unwrap(), vec![0; 40_000]].concat();
        std::fs::write(&path, &bytes).unwrap();
        members(&path, Some(&md5_of(&bytes)), &mut |mut member| member.read().map(drop)).unwrap();
        let error = members(&path, Some(&md5_of(&bytes[1..])), &mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("MD5 checksum") && error.contains(&md5_of(&bytes)), "{error}");
    }

    #[test]
    fn long_names_are_read_within_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        let long = "long/".repeat(60) + "name.xml";
        let write = |name: &str, pax: bool| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.set_size(3);
            header.set_mode(0o644);
            if pax {
                tar.append_pax_extensions([("path", name.as_bytes())]).unwrap();
                header.set_path("short").unwrap();
                header.set_cksum();
                tar.append(&header, b"abc".as_slice()).unwrap();
            } else {
                let mut header = tar::Header::new_gnu();
                header.set_size(3);
                tar.append_data(&mut header, name, b"abc".as_slice()).unwrap();
            }
            std::fs::write(&path, tar.into_inner().unwrap()).unwrap();
        };
        let names = || {
            let mut names = Vec::new();
            members(&path, None, &mut |member| {
                names.push(member.name);
                Ok(())
            })
            .map(|()| names)
        };
        for pax in [false, true] {
            write(&long, pax);
            assert_eq!(names().unwrap(), std::slice::from_ref(&long));
        }
        write(&"a/".repeat(1 << 20), true);
        let message = names().unwrap_err().to_string();
        assert!(message.contains("at most 1048576 are allowed"), "{message}");
    }
}
