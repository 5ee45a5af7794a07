//! Unpacked ImageNet: in the layout of the Kaggle competition, in class folders, or with the class in each name.

use std::collections::HashMap;
use std::path::Path;

use vgg_error::printable;

use super::{Annotation, FileEntry, Files, classes, lines, wrong};
use crate::folder::{folders_of, images_of};
use crate::listing::folders_in;
use crate::prepare::devkit::{DEVKIT, Devkit, validation_index};
use crate::{Error, Result, Split, imagenet};

const IMAGES: &str = "ILSVRC/Data/CLS-LOC";
const ANNOTATIONS: &str = "ILSVRC/Annotations/CLS-LOC";
const SOLUTION: &str = "LOC_val_solution.csv";

pub(super) fn open(root: &Path, allow_incomplete: bool) -> Result<Files> {
    let known = Known(imagenet::classes().map(|(wnid, _)| wnid.to_owned()).collect());
    let kaggle = root.join(IMAGES).is_dir();
    let prefix = if kaggle { format!("{IMAGES}/") } else { String::new() };
    let mut splits = Vec::new();
    for split in [Split::Train, Split::Val] {
        let folder = format!("{prefix}{}", split.name());
        // One split suffices if images may be missing.
        if allow_incomplete && !root.join(&folder).is_dir() {
            continue;
        }
        let entries = match split {
            Split::Val if kaggle => known.kaggle_val(root)?,
            _ => known.images(root, &folder, allow_incomplete)?,
        };
        splits.push((split, entries));
    }
    if splits.is_empty() {
        return Err(wrong(root, "it has neither train nor val"));
    }
    let name = if kaggle { "Kaggle's files of ILSVRC2012" } else { "class folders of ILSVRC2012" };
    let mut classes = classes(&known.0, |wnid| imagenet::words(wnid).map(str::to_owned));
    classes.iter_mut().for_each(|class| class.ilsvrc2012_id = imagenet::ilsvrc2012_id(&class.name));
    let reads_solution = kaggle && splits.iter().any(|(split, _)| *split == Split::Val);
    let mut files =
        Files::new(name, root, classes, splits).also_reads(reads_solution.then(|| SOLUTION.to_owned()));
    files.expected =
        [(Split::Train, imagenet::train_images().collect()), (Split::Val, vec![50; 1000])].into();
    files.allow_missing = allow_incomplete;
    Ok(files)
}

/// The sorted WNIDs of ILSVRC-2012.
struct Known(Vec<String>);

impl Known {
    fn index(&self, wnid: &str) -> Option<u32> {
        self.0.binary_search_by(|known| known.as_str().cmp(wnid)).ok().map(|i| i as u32)
    }

    /// Lists the images of a split: `folder/<wnid>/*`, or `folder/*` with the class in the name or, for validation
    /// images, in the development kit.
    fn images(&self, root: &Path, folder: &str, allow_incomplete: bool) -> Result<Vec<FileEntry>> {
        let at = root.join(folder);
        if !at.is_dir() || !folders_in(&at)?.is_empty() {
            return self.folders(root, folder, allow_incomplete);
        }
        let names = images_of(&at)?;
        let mut devkit = None;
        let mut entries = Vec::new();
        for name in names {
            let mut entry = FileEntry::plain(format!("{folder}/{name}"), 0);
            // Such as n01440764_10026_n01440764.JPEG or ILSVRC2012_val_00000001_n01751748.JPEG.
            let in_name = entry.stem.rsplit_once('_').and_then(|(_, wnid)| self.index(wnid));
            entry.target = match (in_name, validation_index(&entry.stem)) {
                (Some(target), _) => target,
                (None, Some(index)) => {
                    if devkit.is_none() {
                        devkit = Devkit::find(root, false)?.map(|(devkit, _)| devkit);
                    }
                    let validation = devkit.as_ref().map(|devkit| &devkit.validation);
                    let needed = || {
                        wrong(
                            &at,
                            format!(
                                "the images have no class folders; put {DEVKIT}, which has their classes, into {}",
                                printable(root)
                            ),
                        )
                    };
                    let of_image = validation.ok_or_else(needed)?.get(index);
                    *of_image.ok_or_else(|| wrong(&at, format!("{name} is not a validation image")))?
                }
                (None, None) => {
                    let reason = format!("{name} has no class: expected class folders, such as n01440764");
                    return Err(wrong(&at, reason));
                }
            };
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(wrong(&at, "it has no images"));
        }
        Ok(entries)
    }

    /// Lists the images `folder/<wnid>/*`.
    fn folders(&self, root: &Path, folder: &str, allow_incomplete: bool) -> Result<Vec<FileEntry>> {
        let at = root.join(folder);
        let there = folders_of(&at)?;
        let missing: Vec<&str> =
            self.0.iter().filter(|wnid| !there.contains(wnid)).map(String::as_str).collect();
        if missing.len() == self.0.len() {
            let reason = "no folder is named after a class of ILSVRC-2012 (a WNID such as n01440764)";
            return Err(wrong(&at, reason));
        }
        if !missing.is_empty() && !allow_incomplete {
            let some = missing[..missing.len().min(10)].join(", ");
            let count = missing.len();
            let reason = format!("{count} of 1000 classes are missing: {some}");
            return Err(Error::Incomplete { path: at, reason });
        }
        let mut entries = Vec::new();
        for wnid in &there {
            let foreign = || wrong(&at, format!("{wnid} is not a class of ILSVRC-2012"));
            let target = self.index(wnid).ok_or_else(foreign)?;
            let names = images_of(&at.join(wnid))?;
            if names.is_empty() && !allow_incomplete {
                return Err(Error::Incomplete {
                    path: at.join(wnid),
                    reason: "the class has no images".into(),
                });
            }
            for name in names {
                let mut entry = FileEntry::plain(format!("{folder}/{wnid}/{name}"), target);
                entry.boxes = annotation(root, &format!("train/{wnid}/{}", entry.stem));
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn kaggle_val(&self, root: &Path) -> Result<Vec<FileEntry>> {
        // Columns: ImageId,PredictionString. The latter is one or more of: WNID, four edges of a box.
        let mut class_of = HashMap::new();
        for line in lines(root, SOLUTION)?.iter().skip(1) {
            let fields =
                line.split_once(',').and_then(|(stem, rest)| Some((stem, rest.split_whitespace().next()?)));
            let found = fields.and_then(|(stem, wnid)| Some((stem.to_owned(), self.index(wnid)?)));
            let (stem, target) = found
                .ok_or_else(|| wrong(&root.join(SOLUTION), format!("it has the invalid line {line:?}")))?;
            class_of.insert(stem, target);
        }
        let mut entries = Vec::new();
        for name in images_of(&root.join(IMAGES).join("val"))? {
            let mut entry = FileEntry::plain(format!("{IMAGES}/val/{name}"), 0);
            let unknown = || wrong(&root.join(SOLUTION), format!("it has no class for {name}"));
            entry.target = *class_of.get(&entry.stem).ok_or_else(unknown)?;
            entry.boxes = annotation(root, &format!("val/{}", entry.stem));
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn annotation(root: &Path, stem: &str) -> Annotation {
    let xml = format!("{ANNOTATIONS}/{stem}.xml");
    if root.join(&xml).is_file() { Annotation::Xml(xml) } else { Annotation::None }
}
