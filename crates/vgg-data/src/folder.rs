//! Data sets in folders: `train/<class>/*` and `val/<class>/*`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use vgg_files::{Hash, hash_bytes};

use crate::error::at;
use crate::{Error, Image, Result, decode, misnamed, sniff};

/// Which part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Images to learn from.
    Train,
    /// Images to validate on.
    Val,
}

impl Split {
    /// Name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
        }
    }
}

impl std::str::FromStr for Split {
    type Err = String;
    fn from_str(name: &str) -> std::result::Result<Split, String> {
        match name {
            "train" => Ok(Split::Train),
            "val" => Ok(Split::Val),
            _ => Err(format!("there is no split {name}; it is train or val")),
        }
    }
}

/// An image of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Path below the data set, with `/`.
    pub path: String,
    /// Class index: position of its folder in sorted order.
    pub target: u32,
    /// Length of the file.
    pub bytes: u64,
}

/// One split of a data set in folders, scanned and sorted.
///
/// Decoded images are kept in memory up to a budget, so that later epochs need not decode them again. That changes no
/// pixel.
pub struct Folder {
    root: PathBuf,
    split: Split,
    classes: Vec<String>,
    samples: Vec<Sample>,
    ignored: usize,
    cache: Vec<OnceLock<Arc<Image>>>,
    budget_bytes: AtomicU64,
    misnamed: Mutex<BTreeMap<usize, &'static str>>,
}

impl Folder {
    /// Scans a split. Classes are the sorted folders of `train`; every split must have all of them.
    ///
    /// Files are known by content: JPEG and PNG are taken whatever their name. A file that is neither is ignored, unless
    /// it is empty or named like an image: then it is a sample that will fail to decode, and is not passed over in
    /// silence.
    ///
    /// # Errors
    /// [`Error::Missing`] if a folder is not there or holds no images, [`Error::Layout`] if the splits disagree on the
    /// classes.
    pub fn open(root: &Path, split: Split) -> Result<Folder> {
        if !root.is_dir() {
            return Err(Error::Missing { path: root.to_owned(), reason: "there is no such folder".into() });
        }
        let classes = class_folders(&root.join(Split::Train.name()))?;
        let own = class_folders(&root.join(split.name()))?;
        same_classes(root, split, &classes, &own)?;
        let mut folder = Folder {
            root: root.to_owned(),
            split,
            classes,
            samples: Vec::new(),
            ignored: 0,
            cache: Vec::new(),
            budget_bytes: AtomicU64::new(0),
            misnamed: Mutex::default(),
        };
        for (target, class) in folder.classes.clone().iter().enumerate() {
            folder.scan_class(class, target as u32)?;
        }
        folder.cache.resize_with(folder.samples.len(), OnceLock::new);
        Ok(folder)
    }

    /// Keeps up to `bytes` of decoded images in memory.
    pub fn with_cache(self, bytes: u64) -> Folder {
        self.budget_bytes.store(bytes, Relaxed);
        self
    }

    /// Names of the classes, in the order of their indices.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The images, sorted by class and name.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no image; a scanned folder always has some.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Which split this is.
    pub fn split(&self) -> Split {
        self.split
    }

    /// Where the data set is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Files that are no images and were passed over.
    pub fn ignored(&self) -> usize {
        self.ignored
    }

    /// Images decoded so far whose names claim another format: path and what they are.
    pub fn misnamed(&self) -> Vec<(&str, &'static str)> {
        let found = self.misnamed.lock().map(|found| found.clone()).unwrap_or_default();
        found.into_iter().map(|(index, format)| (self.samples[index].path.as_str(), format)).collect()
    }

    /// Hash of the names, sizes and classes of all images of the split.
    pub fn hash(&self) -> Hash {
        let mut text = self.classes.join("\n");
        for s in &self.samples {
            text.push_str(&format!("\n{}\t{}\t{}", s.path, s.bytes, s.target));
        }
        hash_bytes(text.as_bytes())
    }

    /// The pixels of an image.
    ///
    /// # Errors
    /// [`Error::Decode`] if it is no image, [`Error::Missing`] or [`Error::Io`] if it cannot be read.
    pub fn image(&self, index: usize) -> Result<Arc<Image>> {
        if let Some(image) = self.cache[index].get() {
            return Ok(image.clone());
        }
        let path = self.root.join(&self.samples[index].path);
        let bytes = fs::read(&path).map_err(at("read", &path))?;
        let image = Arc::new(decode(&bytes, &path)?);
        if let (Some(format), Ok(mut found)) = (misnamed(&bytes, &path), self.misnamed.lock()) {
            found.insert(index, format);
        }
        let size = image.len() as u64;
        if self.budget_bytes.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(size)).is_ok() {
            // Another thread may have been faster; its image is the same.
            let _ = self.cache[index].set(image.clone());
        }
        Ok(image)
    }

    fn scan_class(&mut self, class: &str, target: u32) -> Result<()> {
        let relative = format!("{}/{class}", self.split.name());
        let folder = self.root.join(&relative);
        let before = self.samples.len();
        for name in sorted_names(&folder, |kind| kind.is_file())? {
            let path = folder.join(&name);
            let bytes = fs::metadata(&path).map_err(at("read", &path))?.len();
            if is_image(&path, bytes)? {
                self.samples.push(Sample { path: format!("{relative}/{name}"), target, bytes });
            } else {
                self.ignored += 1;
            }
        }
        if self.samples.len() == before {
            return Err(Error::Missing { path: folder, reason: "holds no JPEG or PNG image".into() });
        }
        Ok(())
    }
}

fn class_folders(path: &Path) -> Result<Vec<String>> {
    if !path.is_dir() {
        let reason = "there is no such folder; a data set has train/<class>/* and val/<class>/*".into();
        return Err(Error::Missing { path: path.to_owned(), reason });
    }
    let classes = sorted_names(path, |kind| kind.is_dir())?;
    if classes.is_empty() {
        return Err(Error::Missing { path: path.to_owned(), reason: "has no class folders".into() });
    }
    Ok(classes)
}

fn same_classes(root: &Path, split: Split, train: &[String], own: &[String]) -> Result<()> {
    let name = split.name();
    let missing: Vec<&str> = train.iter().filter(|c| !own.contains(c)).map(String::as_str).collect();
    let extra: Vec<&str> = own.iter().filter(|c| !train.contains(c)).map(String::as_str).collect();
    let reason = match (missing.as_slice(), extra.as_slice()) {
        ([], []) => return Ok(()),
        ([], extra) => format!("{name} has class folders that train lacks: {}", extra.join(", ")),
        (missing, _) => format!("{name} lacks the class folders {}, which train has", missing.join(", ")),
    };
    Err(Error::Layout { path: root.to_owned(), reason })
}

/// Names in a folder, without hidden ones, sorted by bytes.
fn sorted_names(folder: &Path, keep: impl Fn(&fs::Metadata) -> bool) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(at("read", folder))? {
        let entry = entry.map_err(at("read", folder))?;
        let name = entry.file_name().into_string().map_err(|name| Error::Layout {
            path: folder.to_owned(),
            reason: format!("the name {name:?} is not UTF-8"),
        })?;
        // Follows links, so that a data set may be made of them.
        let path = entry.path();
        if !name.starts_with('.') && keep(&fs::metadata(&path).map_err(at("read", &path))?) {
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
    let file = fs::File::open(path).map_err(at("read", path))?;
    file.take(16).read_to_end(&mut start).map_err(at("read", path))?;
    Ok(sniff(&start))
}
