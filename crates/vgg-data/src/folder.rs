//! Data sets in class folders: `train/<class>/*` and `val/<class>/*`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization;
use vgg_error::printable;
use vgg_files::{Hash, hash_bytes};

use crate::listing::{entries, folders_in, images_below, is_image};
use crate::split_folder::{missing_split, not_a_folder, split_folder};
use crate::{Error, Result, Split};

/// An image of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Path relative to the root, with `/` as separator, in printable form.
    pub(crate) path: String,
    /// The path by which to open the file, if `path` is an escaped form of it.
    pub(crate) escaped_from: Option<PathBuf>,
    /// Class index: position of the class in sorted order.
    pub(crate) target: u32,
    /// Size of the file in bytes.
    pub(crate) bytes: u64,
}

impl Sample {
    fn new(path: PathBuf, target: u32, bytes: u64) -> Sample {
        let text = printable(&path).to_string();
        let escaped_from = (path.as_os_str() != text.as_str()).then_some(path);
        Sample { path: text, escaped_from, target, bytes }
    }

    /// Path of the file relative to the root.
    pub(crate) fn file(&self) -> &Path {
        self.escaped_from.as_deref().unwrap_or(Path::new(&self.path))
    }
}

/// One split of a data set in class folders, scanned and sorted.
pub(crate) struct Folder {
    pub(crate) root: PathBuf,
    /// Folder of the split, such as `val` or `valid`.
    pub(crate) split_folder: OsString,
    pub(crate) classes: Vec<String>,
    pub(crate) samples: Vec<Sample>,
    /// Number of files that are not images and were ignored.
    pub(crate) ignored: usize,
    /// Numbers of images of formats that are not decoded, by name of the format.
    pub(crate) unsupported: BTreeMap<&'static str, usize>,
    /// Number of images beside the class folders, which have no class.
    pub(crate) without_class: usize,
}

/// A class: its name in Unicode's composed form (NFC), as systems store `café` in different ways, and its folder.
struct ClassFolder {
    name: String,
    folder: OsString,
}

impl Folder {
    /// Scans a split, as described at [`crate::ImageSet::open`]. Classes are those of the training split, if
    /// there is one; then this split must have exactly these.
    pub(crate) fn open(root: &Path, split: Split) -> Result<Folder> {
        if !root.is_dir() {
            return Err(Error::Missing { path: root.to_owned(), reason: not_a_folder(root) });
        }
        let Some(split_name) = split_folder(root, split)? else { return Err(missing_split(root, split)) };
        let own = class_folders(&root.join(&split_name))?;
        if let Some(train) = split_folder(root, Split::Train)?.filter(|_| split != Split::Train) {
            same_classes(root, &split_name, &class_folders(&root.join(train))?, &own)?;
        }
        let mut folder = Folder {
            root: root.to_owned(),
            split_folder: split_name,
            classes: own.iter().map(|class| class.name.clone()).collect(),
            samples: Vec::new(),
            ignored: 0,
            unsupported: BTreeMap::new(),
            without_class: 0,
        };
        folder.scan(&own)?;
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

    fn scan(&mut self, classes: &[ClassFolder]) -> Result<()> {
        let folder = self.root.join(&self.split_folder);
        for entry in entries(&folder)? {
            self.without_class += usize::from(is_image(&folder.join(&entry.name), &entry.kind)?.is_some());
        }
        let mut empty = Vec::new();
        for (target, class) in classes.iter().enumerate() {
            let relative = Path::new(&self.split_folder).join(&class.folder);
            let found = images_below(&self.root.join(&relative))?;
            if found.files.is_empty() {
                empty.push(printable(&class.name).to_string());
            }
            let samples = found.files.into_iter();
            self.samples
                .extend(samples.map(|(path, bytes)| Sample::new(relative.join(path), target as u32, bytes)));
            self.ignored += found.ignored;
            for (format, count) in found.unsupported {
                *self.unsupported.entry(format).or_default() += count;
            }
        }
        if empty.is_empty() {
            return Ok(());
        }
        let mut reason = match empty.as_slice() {
            [_] => format!("the class folder {} has no images", empty[0]),
            _ => format!("{} class folders have no images: {}", empty.len(), empty.join(", ")),
        };
        if !self.unsupported.is_empty() {
            let formats: Vec<&str> = self.unsupported.keys().copied().collect();
            reason.push_str(&format!("; images in these formats cannot be read: {}", formats.join(", ")));
        }
        Err(Error::Missing { path: self.root.join(&self.split_folder), reason })
    }
}

/// The classes of a split, sorted by name.
fn class_folders(path: &Path) -> Result<Vec<ClassFolder>> {
    let folders = folders_in(path)?;
    let class =
        |folder: OsString| ClassFolder { name: printable(&folder).to_string().nfc().collect(), folder };
    let mut classes: Vec<ClassFolder> = folders.into_iter().map(class).collect();
    classes.sort_by(|a, b| a.name.cmp(&b.name));
    if classes.is_empty() {
        let reason = crate::split_folder::without_classes(path)?;
        return Err(Error::Missing { path: path.to_owned(), reason });
    }
    match classes.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(Error::Layout {
            path: path.to_owned(),
            reason: format!("two class folders have the name {} in different Unicode forms", pair[0].name),
        }),
        None => Ok(classes),
    }
}

fn same_classes(root: &Path, split: &OsString, train: &[ClassFolder], own: &[ClassFolder]) -> Result<()> {
    let without = |these: &[ClassFolder], others: &[ClassFolder]| {
        let absent = these.iter().filter(|class| !others.iter().any(|other| other.name == class.name));
        absent.map(|class| class.name.clone()).collect::<Vec<String>>()
    };
    let (missing, extra) = (without(train, own), without(own, train));
    let mut faults = Vec::new();
    if !missing.is_empty() {
        faults.push(format!("does not have these class folders of train: {}", missing.join(", ")));
    }
    if !extra.is_empty() {
        faults.push(format!("has class folders that train does not have: {}", extra.join(", ")));
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::Layout {
        path: root.to_owned(),
        reason: format!("{} {}", printable(split), faults.join("; it ")),
    })
}

/// Names of the subfolders of a folder, sorted.
///
/// # Errors
/// [`Error::Missing`] if there are none; [`Error::Layout`] if a name is not UTF-8.
#[cfg(feature = "prepare")]
pub(crate) fn folders_of(folder: &Path) -> Result<Vec<String>> {
    let names = folders_in(folder)?;
    if names.is_empty() {
        let reason = "the folder has no class folders".into();
        return Err(Error::Missing { path: folder.to_owned(), reason });
    }
    names.into_iter().map(|name| utf8(folder, name)).collect()
}

/// Names of the images in a folder, sorted.
///
/// # Errors
/// [`Error::Layout`] if the name of an image is not UTF-8.
#[cfg(feature = "prepare")]
pub(crate) fn images_of(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in entries(folder)? {
        if is_image(&folder.join(&entry.name), &entry.kind)?.is_some() {
            names.push(utf8(folder, entry.name)?);
        }
    }
    Ok(names)
}

#[cfg(feature = "prepare")]
fn utf8(folder: &Path, name: OsString) -> Result<String> {
    name.into_string().map_err(|name| Error::Layout {
        path: folder.to_owned(),
        reason: format!("the name {} is not UTF-8", printable(&name)),
    })
}
