//! Data sets in class folders: `train/<class>/*` and `val/<class>/*`.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use vgg_files::{Hash, hash_bytes};

use crate::error::io_error;
use crate::{Error, Result, Split, sniff};

/// An image of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Path relative to the root, with `/` as separator.
    pub(crate) path: String,
    /// Class index: position of the class folder in sorted order.
    pub(crate) target: u32,
    /// Size of the file in bytes.
    pub(crate) bytes: u64,
}

/// One split of a data set in class folders, scanned and sorted.
pub(crate) struct Folder {
    pub(crate) root: PathBuf,
    split: Split,
    pub(crate) classes: Vec<String>,
    pub(crate) samples: Vec<Sample>,
    /// Number of files that are not images and were ignored.
    pub(crate) ignored: usize,
}

impl Folder {
    /// Scans a split, as described at [`crate::ImageSet::open`]. Classes are the sorted folders of `train`;
    /// every split must have exactly these.
    pub(crate) fn open(root: &Path, split: Split) -> Result<Folder> {
        if !root.is_dir() {
            return Err(Error::Missing { path: root.to_owned(), reason: "the folder does not exist".into() });
        }
        let classes = class_folders(&root.join(Split::Train.name()))?;
        let own = class_folders(&root.join(split.name()))?;
        same_classes(root, split, &classes, &own)?;
        let mut folder = Folder { root: root.to_owned(), split, classes, samples: Vec::new(), ignored: 0 };
        for (target, class) in folder.classes.clone().iter().enumerate() {
            folder.scan_class(class, target as u32)?;
        }
        Ok(folder)
    }

    /// Hash of the paths, sizes and classes of all images.
    pub(crate) fn hash(&self) -> Hash {
        let mut text = self.classes.join("\n");
        for s in &self.samples {
            text.push_str(&format!("\n{}\t{}\t{}", s.path, s.bytes, s.target));
        }
        hash_bytes(text.as_bytes())
    }

    fn scan_class(&mut self, class: &str, target: u32) -> Result<()> {
        let relative = format!("{}/{class}", self.split.name());
        let folder = self.root.join(&relative);
        let before = self.samples.len();
        for name in sorted_names(&folder, |kind| kind.is_file())? {
            let path = folder.join(&name);
            let bytes = fs::metadata(&path).map_err(io_error("read", &path))?.len();
            if is_image(&path, bytes)? {
                self.samples.push(Sample { path: format!("{relative}/{name}"), target, bytes });
            } else {
                self.ignored += 1;
            }
        }
        if self.samples.len() == before {
            return Err(Error::Missing {
                path: folder,
                reason: "the folder has no JPEG or PNG images".into(),
            });
        }
        Ok(())
    }
}

fn class_folders(path: &Path) -> Result<Vec<String>> {
    if !path.is_dir() {
        let reason = "the folder does not exist; expected train/<class>/* and val/<class>/*".into();
        return Err(Error::Missing { path: path.to_owned(), reason });
    }
    let classes = sorted_names(path, |kind| kind.is_dir())?;
    if classes.is_empty() {
        return Err(Error::Missing {
            path: path.to_owned(),
            reason: "the folder has no class folders".into(),
        });
    }
    Ok(classes)
}

fn same_classes(root: &Path, split: Split, train: &[String], own: &[String]) -> Result<()> {
    let name = split.name();
    let missing: Vec<&str> = train.iter().filter(|c| !own.contains(c)).map(String::as_str).collect();
    let extra: Vec<&str> = own.iter().filter(|c| !train.contains(c)).map(String::as_str).collect();
    let reason = match (missing.as_slice(), extra.as_slice()) {
        ([], []) => return Ok(()),
        ([], extra) => format!("{name} has class folders that train does not have: {}", extra.join(", ")),
        (missing, _) => format!("{name} does not have these class folders of train: {}", missing.join(", ")),
    };
    Err(Error::Layout { path: root.to_owned(), reason })
}

/// Names of the subfolders of a folder, sorted.
#[cfg(feature = "prepare")]
pub(crate) fn folders_of(folder: &Path) -> Result<Vec<String>> {
    let names = sorted_names(folder, |kind| kind.is_dir())?;
    if names.is_empty() {
        return Err(Error::Missing {
            path: folder.to_owned(),
            reason: "the folder has no class folders".into(),
        });
    }
    Ok(names)
}

/// Names of the files in a folder that are images by content or extension, sorted.
#[cfg(feature = "prepare")]
pub(crate) fn images_of(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for name in sorted_names(folder, |kind| kind.is_file())? {
        let path = folder.join(&name);
        let bytes = fs::metadata(&path).map_err(io_error("read", &path))?.len();
        let text = name.ends_with(".txt") || name.ends_with(".mat");
        if !text && is_image(&path, bytes)? {
            names.push(name);
        }
    }
    Ok(names)
}

/// Names of the entries of a folder that `keep` accepts, sorted by bytes, without hidden entries.
fn sorted_names(folder: &Path, keep: impl Fn(&fs::Metadata) -> bool) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error("read", folder))? {
        let entry = entry.map_err(io_error("read", folder))?;
        let name = entry.file_name().into_string().map_err(|name| Error::Layout {
            path: folder.to_owned(),
            reason: format!("the file name {name:?} is not UTF-8"),
        })?;
        // `fs::metadata` follows symbolic links, so a data set may consist of links.
        let path = entry.path();
        if !name.starts_with('.') && keep(&fs::metadata(&path).map_err(io_error("read", &path))?) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_image(path: &Path, bytes: u64) -> Result<bool> {
    const IMAGE_NAMES: [&str; 8] = ["jpg", "jpeg", "png", "gif", "bmp", "webp", "tif", "tiff"];
    let named = path.extension().is_some_and(|e| IMAGE_NAMES.iter().any(|n| e.eq_ignore_ascii_case(n)));
    if named || bytes == 0 {
        return Ok(true);
    }
    let mut start = Vec::new();
    let file = fs::File::open(path).map_err(io_error("read", path))?;
    file.take(16).read_to_end(&mut start).map_err(io_error("read", path))?;
    Ok(sniff(&start))
}
