//! [`Ilsvrc`]: the official ILSVRC2012 archives. They are the training images (a tar file of 1,000 tar
//! files, or these), the validation images, the development kit and the bounding boxes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::archive::{Member, members};
use super::boxes::{Boxes, read_archive};
use super::devkit::{DEVKIT, Devkit, VALIDATION_IMAGES, validation_index};
use super::{Class, Entry, Source};
use crate::error::io_error;
use crate::{Error, Result, Split};

const TRAIN: &str = "ILSVRC2012_img_train.tar";
const VAL: &str = "ILSVRC2012_img_val.tar";
const TRAIN_BOXES: &str = "ILSVRC2012_bbox_train_v2.tar.gz";
const VAL_BOXES: &str = "ILSVRC2012_bbox_val_v3.tgz";
/// MD5 checksums published by image-net.org.
const TRAIN_MD5: &str = "1d675b47d978889d74fa0da5fadfb00e";
const VAL_MD5: &str = "29b22e2961454d5413ddabcf34fc5622";
/// Number of validation images per class.
const VALIDATION_OF_CLASS: u64 = 50;

/// Checks that may be disabled.
#[derive(Debug, Clone, Copy, Default)]
pub struct IlsvrcOptions {
    /// Accept missing classes, images and splits.
    pub allow_incomplete: bool,
    /// Skip the comparison of MD5 checksums.
    pub skip_md5: bool,
}

/// The archives of the training images.
enum TrainImages {
    /// The official tar file of 1,000 tar files.
    Archive,
    /// The 1,000 tar files, such as `train/n01440764.tar`, relative to the root.
    ClassArchives(Vec<String>),
}

impl TrainImages {
    /// Finds the official archive, or class archives in the folder `train`, `ILSVRC2012_img_train` or the root itself.
    fn find(root: &Path) -> Result<Option<TrainImages>> {
        if root.join(TRAIN).is_file() {
            return Ok(Some(TrainImages::Archive));
        }
        for folder in ["train", "ILSVRC2012_img_train", ""] {
            let at = root.join(folder);
            if !at.is_dir() {
                continue;
            }
            let found = class_archives(&at)?;
            if !found.is_empty() {
                let path = |name: &String| Path::new(folder).join(name).to_string_lossy().into_owned();
                return Ok(Some(TrainImages::ClassArchives(found.iter().map(path).collect())));
            }
        }
        Ok(None)
    }

    fn files(&self) -> Vec<String> {
        match self {
            TrainImages::Archive => vec![TRAIN.to_owned()],
            TrainImages::ClassArchives(files) => files.clone(),
        }
    }
}

/// Names of the class archives in a folder, such as `n01440764.tar`, sorted.
///
/// # Errors
/// [`Error::Layout`] if some are compressed, or other classes are in folders: these would be left out.
fn class_archives(folder: &Path) -> Result<Vec<String>> {
    let mut archives = Vec::new();
    let mut others = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io_error("read", folder))? {
        let entry = entry.map_err(io_error("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_other = name.strip_suffix(".tar.gz").is_some_and(is_wnid)
            || is_wnid(&name) && !folder.join(format!("{name}.tar")).is_file() && entry.path().is_dir();
        if name.strip_suffix(".tar").is_some_and(is_wnid) {
            archives.push(name);
        } else if is_other {
            others.push(name);
        }
    }
    archives.sort_unstable();
    others.sort_unstable();
    let has_compressed = others.iter().any(|name| name.ends_with(".gz"));
    if !others.is_empty() && (has_compressed || !archives.is_empty()) {
        let reason = format!(
            "some classes are not in plain tar files ({}{}): decompress archives, and pack the class folders or unpack all \
             archives",
            others[0],
            if others.len() > 1 { ", .." } else { "" }
        );
        return Err(Error::Layout { path: folder.to_owned(), reason });
    }
    Ok(archives)
}

/// The official ILSVRC2012 archives in a folder.
pub struct Ilsvrc {
    root: PathBuf,
    inputs: Vec<String>,
    train: Option<TrainImages>,
    has_val: bool,
    devkit: Devkit,
    train_boxes: Option<Boxes>,
    val_boxes: Option<Boxes>,
    options: IlsvrcOptions,
}

impl Ilsvrc {
    /// Finds the archives in a folder, and reads the development kit and the bounding boxes. The training images may
    /// also be 1,000 class archives in `train`; the development kit may be decompressed or unpacked.
    ///
    /// If images may be missing, the archives of one split suffice; training images then need no development kit.
    ///
    /// # Errors
    /// [`Error::Missing`] if an archive does not exist, with its download address; [`Error::Checksum`] if the
    /// MD5 checksum of the development kit differs; [`Error::Source`] if the development kit or the bounding
    /// boxes cannot be read.
    pub fn open(dir: &Path, options: IlsvrcOptions) -> Result<Ilsvrc> {
        let train = TrainImages::find(dir)?;
        let has_val = dir.join(VAL).is_file();
        let devkit = Devkit::find(dir, !options.skip_md5)?;
        if let Some(TrainImages::ClassArchives(files)) = &train
            && !has_val
            && dir.join("val").is_dir()
        {
            let reason = format!(
                "the training images are archives ({}, ...), but val is a folder: unpack the archives into class folders, or \
                 replace val by {VAL}",
                files[0]
            );
            return Err(Error::Layout { path: dir.to_owned(), reason });
        }
        let mut missing = Vec::new();
        let one_suffices = options.allow_incomplete && (train.is_some() || has_val);
        if train.is_none() && !one_suffices {
            missing.push(TRAIN);
        }
        if !has_val && !one_suffices {
            missing.push(VAL);
        }
        if devkit.is_none() && (has_val || !options.allow_incomplete) {
            missing.push(DEVKIT);
        }
        if !missing.is_empty() {
            let reason = format!(
                "the folder has no {}; download from https://image-net.org/download-images after registration (ILSVRC2012, \
                 tasks 1 and 2), or from academictorrents.com",
                missing.join(", ")
            );
            return Err(Error::Missing { path: dir.to_owned(), reason });
        }
        let mut inputs = train.as_ref().map_or(Vec::new(), TrainImages::files);
        inputs.extend(has_val.then(|| VAL.to_owned()));
        let devkit = match devkit {
            Some((devkit, name)) => {
                inputs.push(name);
                devkit
            }
            None => Devkit::without_validation(),
        };
        let mut boxes = |name: &str| {
            let path = dir.join(name);
            path.is_file()
                .then(|| {
                    inputs.push(name.to_owned());
                    read_archive(&path)
                })
                .transpose()
        };
        let (train_boxes, val_boxes) = (boxes(TRAIN_BOXES)?, boxes(VAL_BOXES)?);
        Ok(Ilsvrc { root: dir.to_owned(), inputs, train, has_val, devkit, train_boxes, val_boxes, options })
    }

    /// Whether a folder has archives of images.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub fn are_in(dir: &Path) -> Result<bool> {
        Ok(dir.join(VAL).is_file() || TrainImages::find(dir)?.is_some())
    }

    /// Names of the optional archives of bounding boxes that do not exist.
    pub fn missing_box_archives(&self) -> Vec<&'static str> {
        let all = [(&self.train_boxes, TRAIN_BOXES), (&self.val_boxes, VAL_BOXES)];
        all.into_iter().filter(|(boxes, _)| boxes.is_none()).map(|(_, name)| name).collect()
    }

    /// A path in an archive, relative to the root.
    fn relative_to_root(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }

    fn entry(&self, image: &mut Member, stem: String, target: u32, boxes: Option<&Boxes>) -> Result<Entry> {
        Ok(Entry {
            source: self.relative_to_root(&image.path),
            path: image.path.clone(),
            boxes: boxes.and_then(|boxes| boxes.get(&stem).cloned()),
            stem,
            target,
            bytes: image.read()?,
            bad: None,
        })
    }

    fn train_entries(&self, consume: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let md5 = (!self.options.skip_md5).then_some(TRAIN_MD5);
        let mut seen = HashSet::new();
        match &self.train {
            None => Ok(()),
            Some(TrainImages::Archive) => members(&self.root.join(TRAIN), md5, &mut |mut class_archive| {
                let path = class_archive.path.clone();
                let target = self.class_of_archive(&path, class_archive.file_name(), &mut seen)?;
                let mut names = HashSet::new();
                class_archive.members(&mut |image| self.train_image(image, target, &mut names, consume))
            }),
            Some(TrainImages::ClassArchives(files)) => files.iter().try_for_each(|file| {
                let path = self.root.join(file);
                let name = file.rsplit('/').next().unwrap_or(file);
                let target = self.class_of_archive(&path, name, &mut seen)?;
                let mut names = HashSet::new();
                members(&path, None, &mut |image| self.train_image(image, target, &mut names, consume))
            }),
        }
    }

    /// Class index of a class archive. `seen` has the names of the earlier archives.
    fn class_of_archive(&self, path: &Path, name: &str, seen: &mut HashSet<String>) -> Result<u32> {
        let refuse = |reason: &str| Error::Source { path: path.to_owned(), reason: reason.into() };
        let wnid = name.strip_suffix(".tar").unwrap_or_default();
        let target = self.devkit.classes.binary_search_by(|class| class.name.as_str().cmp(wnid));
        let foreign = |_| refuse("it is not named after a class of ILSVRC-2012, as n01440764.tar is");
        let target = target.map_err(foreign)? as u32;
        if !seen.insert(wnid.to_owned()) {
            return Err(refuse("it occurs twice"));
        }
        Ok(target)
    }

    fn train_image(
        &self,
        mut image: Member,
        target: u32,
        names: &mut HashSet<String>,
        consume: &mut dyn FnMut(Entry) -> Result<()>,
    ) -> Result<()> {
        let stem = unique_stem(&image, names)?;
        consume(self.entry(&mut image, stem, target, self.train_boxes.as_ref())?)
    }

    fn val_entries(&self, consume: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let md5 = (!self.options.skip_md5).then_some(VAL_MD5);
        let mut names = HashSet::new();
        members(&self.root.join(VAL), md5, &mut |mut image| {
            let stem = unique_stem(&image, &mut names)?;
            // The label depends on the number in the name, not on the order in the archive.
            let target = validation_index(&stem).and_then(|index| self.devkit.validation.get(index));
            let Some(&target) = target else {
                let reason = format!("its name is not ILSVRC2012_val_N with N from 1 to {VALIDATION_IMAGES}");
                return Err(Error::Source { path: image.path.clone(), reason });
            };
            consume(self.entry(&mut image, stem, target, self.val_boxes.as_ref())?)
        })
    }
}

impl Source for Ilsvrc {
    fn name(&self) -> String {
        "ILSVRC2012, official archives".into()
    }

    fn classes(&self) -> &[Class] {
        &self.devkit.classes
    }

    fn splits(&self) -> Vec<Split> {
        let train = self.train.is_some().then_some(Split::Train);
        train.into_iter().chain(self.has_val.then_some(Split::Val)).collect()
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn inputs(&self) -> &[String] {
        &self.inputs
    }

    fn entries(&self, split: Split, consume: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        match split {
            Split::Train => self.train_entries(consume),
            Split::Val => self.val_entries(consume),
        }
    }

    fn expected(&self, split: Split) -> Option<Vec<u64>> {
        Some(match split {
            Split::Train => self.devkit.training_images.clone(),
            Split::Val => vec![VALIDATION_OF_CLASS; self.devkit.classes.len()],
        })
    }

    fn allow_missing(&self) -> bool {
        self.options.allow_incomplete
    }
}

/// Whether a name has the form of a WNID, such as n01440764.
fn is_wnid(name: &str) -> bool {
    name.strip_prefix('n')
        .is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// File stem of an image.
///
/// # Errors
/// [`Error::Source`] if `names` contains it already.
fn unique_stem(image: &Member, names: &mut HashSet<String>) -> Result<String> {
    let name = image.file_name();
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned();
    if !names.insert(stem.clone()) {
        return Err(Error::Source { path: image.path.clone(), reason: "it occurs twice".into() });
    }
    Ok(stem)
}
