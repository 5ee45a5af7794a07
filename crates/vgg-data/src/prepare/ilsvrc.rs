//! [`Ilsvrc`]: the official ILSVRC2012 archives. They are the training images (a tar file of 1,000 tar
//! files), the validation images, the development kit and the bounding boxes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::archive::{Member, md5_of, members, same_md5};
use super::boxes::{Boxes, read_archive};
use super::devkit::{Devkit, VALIDATION_IMAGES};
use super::{Class, Entry, Source};
use crate::{Error, Result, Split};

const TRAIN: &str = "ILSVRC2012_img_train.tar";
const VAL: &str = "ILSVRC2012_img_val.tar";
const DEVKIT: &str = "ILSVRC2012_devkit_t12.tar.gz";
const TRAIN_BOXES: &str = "ILSVRC2012_bbox_train_v2.tar.gz";
const VAL_BOXES: &str = "ILSVRC2012_bbox_val_v3.tgz";
/// MD5 checksums published by image-net.org.
const TRAIN_MD5: &str = "1d675b47d978889d74fa0da5fadfb00e";
const VAL_MD5: &str = "29b22e2961454d5413ddabcf34fc5622";
const DEVKIT_MD5: &str = "fa75699e90414af021442c21a62c3abf";
/// Number of validation images per class.
const VALIDATION_OF_CLASS: u64 = 50;

/// Checks that may be disabled.
#[derive(Debug, Clone, Copy, Default)]
pub struct IlsvrcOptions {
    /// Accept missing classes and images.
    pub allow_incomplete: bool,
    /// Skip the comparison of MD5 checksums.
    pub skip_md5: bool,
}

/// The official ILSVRC2012 archives in a folder.
pub struct Ilsvrc {
    root: PathBuf,
    inputs: Vec<String>,
    devkit: Devkit,
    train_boxes: Option<Boxes>,
    val_boxes: Option<Boxes>,
    options: IlsvrcOptions,
}

impl Ilsvrc {
    /// Finds the archives in a folder, and reads the development kit and the bounding boxes.
    ///
    /// # Errors
    /// [`Error::Missing`] if an archive does not exist, with its download address; [`Error::Checksum`] if the
    /// MD5 checksum of the development kit differs; [`Error::Source`] if the development kit or the bounding
    /// boxes cannot be read.
    pub fn open(dir: &Path, options: IlsvrcOptions) -> Result<Ilsvrc> {
        let required = [TRAIN, VAL, DEVKIT];
        let missing: Vec<&str> = required.into_iter().filter(|name| !dir.join(name).is_file()).collect();
        if !missing.is_empty() {
            let reason = format!(
                "the folder has no {}; download from https://image-net.org/download-images after registration (ILSVRC2012, \
                 tasks 1 and 2), or from academictorrents.com",
                missing.join(", ")
            );
            return Err(Error::Missing { path: dir.to_owned(), reason });
        }
        let kit = dir.join(DEVKIT);
        let bytes = vgg_files::read_bytes(&kit)?;
        if !options.skip_md5 {
            same_md5(&kit, &md5_of(&bytes), DEVKIT_MD5)?;
        }
        let devkit = Devkit::from_archive(&bytes, &kit)?;
        let mut inputs = required.map(String::from).to_vec();
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
        Ok(Ilsvrc { root: dir.to_owned(), inputs, devkit, train_boxes, val_boxes, options })
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
        })
    }

    fn train_entries(&self, consume: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let md5 = (!self.options.skip_md5).then_some(TRAIN_MD5);
        let mut seen = HashSet::new();
        members(&self.root.join(TRAIN), md5, &mut |mut class_archive| {
            let path = class_archive.path.clone();
            let refuse = |reason: String| Error::Source { path: path.clone(), reason };
            let wnid = class_archive.file_name().strip_suffix(".tar").unwrap_or_default().to_owned();
            let target = self.devkit.classes.binary_search_by(|class| class.name.cmp(&wnid));
            let foreign = "it is not named after a class of ILSVRC-2012, as n01440764.tar is";
            let target = target.map_err(|_| refuse(foreign.into()))? as u32;
            if !seen.insert(wnid.clone()) {
                return Err(refuse("it occurs twice".into()));
            }
            let mut names = HashSet::new();
            class_archive.members(&mut |mut image| {
                let stem = unique_stem(&image, &mut names)?;
                consume(self.entry(&mut image, stem, target, self.train_boxes.as_ref())?)
            })
        })
    }

    fn val_entries(&self, consume: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let md5 = (!self.options.skip_md5).then_some(VAL_MD5);
        let mut names = HashSet::new();
        members(&self.root.join(VAL), md5, &mut |mut image| {
            let stem = unique_stem(&image, &mut names)?;
            // The label depends on the number in the name, not on the order in the archive.
            let number = stem.strip_prefix("ILSVRC2012_val_").and_then(|digits| digits.parse::<usize>().ok());
            let target = number.and_then(|n| self.devkit.validation.get(n.checked_sub(1)?));
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
        vec![Split::Train, Split::Val]
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
