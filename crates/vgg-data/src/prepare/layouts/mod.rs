//! [`Files`]: unpacked data sets as lists of files with classes. Each layout has a module.

mod caltech;
mod cifar;
mod folders;
mod imagenet;
mod tiny;
mod voc;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use vgg_error::printable;

use super::boxes::{MAX_XML_BYTES, parse};
use super::{BoundingBox, Class, Entry, Source};
use crate::error::io_error;
use crate::folder::Sample;
use crate::{Error, Result, Split, read_image};

/// An unpacked data set.
pub struct Files {
    name: String,
    root: PathBuf,
    classes: Vec<Class>,
    splits: Vec<(Split, Vec<FileEntry>)>,
    /// Input files, relative to the root.
    inputs: Vec<String>,
    /// Expected number of images of each class, if known.
    expected: BTreeMap<Split, Vec<u64>>,
    allow_missing: bool,
}

/// The layout of an unpacked data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Class folders: `train/<class>/*` and optionally `val/<class>/*`.
    Folders,
    /// ImageNet from Kaggle, `ILSVRC/Data/CLS-LOC/{train,val}` and `LOC_val_solution.csv`, or class folders.
    Imagenet {
        /// Whether classes and images may be missing.
        allow_incomplete: bool,
    },
    /// Tiny ImageNet: `train/<wnid>/images`, `val/images`, `val/val_annotations.txt`.
    TinyImagenet,
    /// Caltech-101 and Caltech-256: a folder per class, without splits. The splits are drawn at random.
    Caltech {
        /// Number of training images per class.
        train_per_class: usize,
        /// Largest number of other images per class, which become the split `val`.
        test_per_class: usize,
        /// Seed of the random split.
        seed: u64,
    },
    /// PASCAL VOC: `JPEGImages`, `Annotations`, `ImageSets/Main`.
    Voc {
        /// Seed of the random split, which is used if there are no `ImageSets`.
        seed: u64,
    },
    /// The binary version of CIFAR-10.
    Cifar10,
}

/// An image of an unpacked data set.
struct FileEntry {
    /// Path relative to the root, with `/` as separator.
    path: String,
    /// The path by which to open the file, if `path` is an escaped form of it.
    escaped_from: Option<PathBuf>,
    stem: String,
    target: u32,
    boxes: Annotation,
    /// Why the image cannot be used, such as a missing annotation that would give its class.
    bad: Option<String>,
    /// Offset of a CIFAR record in the file; `None` if the image is the whole file.
    record: Option<u64>,
}

/// Bounding boxes of an image.
enum Annotation {
    None,
    /// An XML file with this path relative to the root.
    Xml(String),
    Boxes(Vec<BoundingBox>),
}

impl FileEntry {
    fn plain(path: String, target: u32) -> FileEntry {
        FileEntry {
            stem: stem_of(&path),
            path,
            escaped_from: None,
            target,
            boxes: Annotation::None,
            bad: None,
            record: None,
        }
    }

    fn of_sample(sample: &Sample) -> FileEntry {
        FileEntry {
            escaped_from: sample.escaped_from.clone(),
            ..FileEntry::plain(sample.path.clone(), sample.target)
        }
    }
}

impl Files {
    /// Lists the files of a data set.
    ///
    /// # Errors
    /// [`Error::Missing`] if a file or folder does not exist; [`Error::Layout`] or [`Error::Source`] if the
    /// data set does not have this layout; [`Error::Incomplete`] if classes or images are missing and may not
    /// be; [`Error::Io`] if a file cannot be read.
    pub fn open(root: &Path, layout: Layout) -> Result<Files> {
        if !root.is_dir() {
            return Err(Error::Missing { path: root.to_owned(), reason: "the folder does not exist".into() });
        }
        let mut files = match layout {
            Layout::Folders => folders::open(root),
            Layout::Imagenet { allow_incomplete } => imagenet::open(root, allow_incomplete),
            Layout::TinyImagenet => tiny::open(root),
            Layout::Caltech { train_per_class, test_per_class, seed } => {
                caltech::open(root, [train_per_class, test_per_class], seed)
            }
            Layout::Voc { seed } => voc::open(root, seed),
            Layout::Cifar10 => cifar::open(root),
        }?;
        files.disambiguate_names();
        Ok(files)
    }

    fn new(name: &str, root: &Path, classes: Vec<Class>, splits: Vec<(Split, Vec<FileEntry>)>) -> Files {
        let mut inputs: Vec<String> = Vec::new();
        for entry in splits.iter().flat_map(|(_, entries)| entries) {
            // The list of inputs cannot hold a name that is not UTF-8.
            if entry.escaped_from.is_none() {
                inputs.push(entry.path.clone());
            }
            if let Annotation::Xml(xml) = &entry.boxes {
                inputs.push(xml.clone());
            }
        }
        inputs.sort_unstable();
        inputs.dedup();
        Files {
            name: name.to_owned(),
            root: root.to_owned(),
            classes,
            splits,
            inputs,
            expected: BTreeMap::new(),
            allow_missing: false,
        }
    }

    /// Adds input files other than images and annotations, such as lists of labels.
    fn also_reads(mut self, names: impl IntoIterator<Item = String>) -> Files {
        self.inputs.extend(names);
        self.inputs.sort_unstable();
        self
    }

    /// Uses the path as the stem of images of one class that have the same stem, such as `a.jpg` and `a.png`.
    fn disambiguate_names(&mut self) {
        for (_, entries) in &mut self.splits {
            let mut seen = std::collections::HashMap::<(u32, String), u32>::new();
            for entry in entries.iter() {
                *seen.entry((entry.target, entry.stem.clone())).or_default() += 1;
            }
            for entry in entries {
                if entry.record.is_none() && seen[&(entry.target, entry.stem.clone())] > 1 {
                    entry.stem = entry.path.clone();
                }
            }
        }
    }

    /// The entry of an image. If the image or its annotation cannot be used, the entry has the reason.
    fn entry(&self, file: &FileEntry) -> Result<Entry> {
        let path = self.root.join(file.escaped_from.as_deref().unwrap_or(Path::new(&file.path)));
        let mut bad = file.bad.clone();
        let bytes = match file.record {
            Some(start) => cifar::image(&path, start)?,
            None => match read_image(&path) {
                Err(Error::Decode { reason, .. }) => {
                    bad = bad.or(Some(reason));
                    Vec::new()
                }
                other => other?,
            },
        };
        let boxes = match &file.boxes {
            Annotation::None => None,
            Annotation::Boxes(boxes) => Some(boxes.clone()),
            Annotation::Xml(xml) => match annotation(&self.root.join(xml)) {
                Ok(boxes) => Some(boxes),
                Err(Error::Source { path, reason }) => {
                    bad = bad.or_else(|| Some(format!("its annotation {}: {reason}", printable(&path))));
                    None
                }
                Err(other) => return Err(other),
            },
        };
        let source = file.record.map_or(file.path.clone(), |start| format!("{} at {start}", file.path));
        Ok(Entry { path, source, stem: file.stem.clone(), target: file.target, bytes, boxes, bad })
    }
}

impl Source for Files {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn splits(&self) -> Vec<Split> {
        self.splits.iter().map(|(split, _)| *split).collect()
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn inputs(&self) -> &[String] {
        &self.inputs
    }

    fn entries(&self, split: Split, consume: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let own = self.splits.iter().filter(|(own, _)| *own == split);
        own.flat_map(|(_, entries)| entries).try_for_each(|file| consume(self.entry(file)?))
    }

    fn expected(&self, split: Split) -> Option<Vec<u64>> {
        self.expected.get(&split).cloned()
    }

    fn allow_missing(&self) -> bool {
        self.allow_missing
    }

    fn images(&self) -> Option<u64> {
        Some(self.splits.iter().map(|(_, entries)| entries.len() as u64).sum())
    }
}

/// Classes of these sorted names.
fn classes(names: &[String], words: impl Fn(&str) -> Option<String>) -> Vec<Class> {
    names.iter().map(|name| Class { name: name.clone(), words: words(name), ilsvrc2012_id: None }).collect()
}

fn stem_of(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned()
}

/// The non-empty lines of the text file `name` in `root`.
fn lines(root: &Path, name: &str) -> Result<Vec<String>> {
    let path = root.join(name);
    let bytes = vgg_files::read_bytes(&path)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong(&path, "it is not UTF-8"))?;
    Ok(text.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect())
}

/// The bounding boxes of an annotation.
///
/// # Errors
/// [`Error::Source`] if it is not a valid annotation; [`Error::Missing`] or [`Error::Io`] if it cannot be read.
fn annotation(path: &Path) -> Result<Vec<BoundingBox>> {
    let file = vgg_files::open_regular(path).map_err(io_error("read", path))?;
    let mut text = Vec::new();
    file.take(MAX_XML_BYTES + 1).read_to_end(&mut text).map_err(io_error("read", path))?;
    if text.len() as u64 > MAX_XML_BYTES {
        return Err(wrong(path, format!("it is larger than {MAX_XML_BYTES} bytes")));
    }
    parse(&text).map_err(|reason| wrong(path, reason))
}

fn wrong(path: &Path, reason: impl Into<String>) -> Error {
    Error::Source { path: path.to_owned(), reason: reason.into() }
}
