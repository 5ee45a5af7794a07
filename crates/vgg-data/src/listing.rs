//! Lists of the files in the folders of a data set: sorted, without litter, with links followed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::error::io_error;
use crate::format::{SNIFFED_BYTES, has_image_extension, sniff, unsupported};

/// Folders that programs leave behind in data sets. They are neither classes nor searched.
const LITTER: [&str; 8] = [
    "@eaDir",
    "__MACOSX",
    "lost+found",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "__pycache__",
    "Thumbs",
];

/// An entry of a folder.
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) kind: EntryKind,
}

pub(crate) enum EntryKind {
    Folder,
    File {
        bytes: u64,
    },
    /// A link whose target does not exist.
    DanglingLink,
    /// A device, a named pipe or a socket.
    Special,
}

/// Image files below a folder.
#[derive(Default)]
pub(crate) struct Images {
    /// Paths relative to the folder and sizes in bytes. Each folder's files are sorted; they follow those of the
    /// folder above, as in torchvision.
    pub(crate) files: Vec<(PathBuf, u64)>,
    /// Number of other files.
    pub(crate) ignored: usize,
    /// Numbers of image files of formats that are not decoded, by name of the format.
    pub(crate) unsupported: BTreeMap<&'static str, usize>,
}

/// Lists a folder, sorted by the bytes of the names, without hidden entries and litter.
pub(crate) fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error("read", folder))? {
        let entry = entry.map_err(io_error("read", folder))?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") || LITTER.iter().any(|litter| name == *litter) {
            continue;
        }
        let path = entry.path();
        // `fs::metadata` follows symbolic links, so a data set may consist of links.
        let kind = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => EntryKind::Folder,
            Ok(metadata) if metadata.is_file() => EntryKind::File { bytes: metadata.len() },
            Ok(_) => EntryKind::Special,
            Err(_) if fs::read_link(&path).is_ok() => EntryKind::DanglingLink,
            Err(e) => return Err(io_error("read", &path)(e)),
        };
        entries.push(Entry { name, kind });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Names of the folders in a folder, sorted.
pub(crate) fn folders_in(folder: &Path) -> Result<Vec<OsString>> {
    let folders = entries(folder)?.into_iter().filter(|entry| matches!(entry.kind, EntryKind::Folder));
    Ok(folders.map(|entry| entry.name).collect())
}

/// Lists the images in a folder and in the folders below it.
///
/// A file is an image if its extension is that of a format that is decoded, even if the file is empty or a dangling
/// link, so that decoding it reports the fault; or if its content is. Other files are counted.
pub(crate) fn images_below(root: &Path) -> Result<Images> {
    let mut images = Images::default();
    search(root, Path::new(""), &mut Vec::new(), &mut images)?;
    Ok(images)
}

/// `above` holds the real paths of the folders above, among which a link could lead back.
fn search(root: &Path, below: &Path, above: &mut Vec<PathBuf>, images: &mut Images) -> Result<()> {
    let folder = root.join(below);
    let real = fs::canonicalize(&folder).map_err(io_error("read", &folder))?;
    if above.contains(&real) {
        return Ok(());
    }
    above.push(real);
    let entries = entries(&folder)?;
    for entry in &entries {
        let path = below.join(&entry.name);
        match is_image(&folder.join(&entry.name), &entry.kind)? {
            Some(bytes) => images.files.push((path, bytes)),
            None if matches!(entry.kind, EntryKind::Folder) => {}
            None => match unsupported(&path) {
                Some(format) => *images.unsupported.entry(format).or_default() += 1,
                None => images.ignored += 1,
            },
        }
    }
    for entry in entries.iter().filter(|entry| matches!(entry.kind, EntryKind::Folder)) {
        search(root, &below.join(&entry.name), above, images)?;
    }
    above.pop();
    Ok(())
}

/// The size of an image file in bytes; `None` if the entry is not an image.
pub(crate) fn is_image(path: &Path, kind: &EntryKind) -> Result<Option<u64>> {
    Ok(match *kind {
        EntryKind::Folder => None,
        EntryKind::DanglingLink | EntryKind::Special => has_image_extension(path).then_some(0),
        EntryKind::File { bytes } if has_image_extension(path) => Some(bytes),
        EntryKind::File { bytes: 0 } => None,
        EntryKind::File { .. } if unsupported(path).is_some() || is_text(path) => None,
        EntryKind::File { bytes } => {
            let mut start = Vec::new();
            let file = fs::File::open(path).map_err(io_error("read", path))?;
            file.take(SNIFFED_BYTES).read_to_end(&mut start).map_err(io_error("read", path))?;
            sniff(&start).then_some(bytes)
        }
    })
}

/// Whether the file need not be opened to know that it is no image.
fn is_text(path: &Path) -> bool {
    let is = |extension: &OsStr| ["txt", "csv", "json", "xml", "mat"].iter().any(|name| extension == *name);
    path.extension().is_some_and(is)
}
