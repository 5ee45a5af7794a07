//! The ILSVRC2012 development kit: the classes with their numbers, and the class of each validation image.

use std::collections::BTreeMap;
use std::path::Path;

use super::Class;
use super::archive::{Member, gzipped_members, md5_of, members, same_md5};
use super::matlab::{StructArray, Value, struct_array};
use crate::{Error, Result, imagenet};

/// Name of the official archive, its published MD5 checksum, and its two files that are read.
pub(super) const DEVKIT: &str = "ILSVRC2012_devkit_t12.tar.gz";
const DEVKIT_MD5: &str = "fa75699e90414af021442c21a62c3abf";
const META: &str = "meta.mat";
const TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";
/// Number of validation images of ILSVRC2012.
pub(super) const VALIDATION_IMAGES: usize = 50_000;
/// Number of classes of ILSVRC2012.
pub(super) const CLASSES: usize = 1000;

/// Contents of the development kit.
pub(super) struct Devkit {
    /// Classes sorted by WNID; the position is the class index.
    pub(super) classes: Vec<Class>,
    /// Number of training images of each class.
    pub(super) training_images: Vec<u64>,
    /// Class index of each validation image, in order of image number.
    pub(super) validation: Vec<u32>,
}

impl Devkit {
    /// Reads `meta.mat` and the ground truth of the validation images.
    pub(super) fn new(meta: &[u8], ground_truth: &[u8]) -> std::result::Result<Devkit, String> {
        let array = struct_array(meta, "synsets").map_err(|e| format!("meta.mat: {e}"))?;
        let mut synsets = synsets(&array).map_err(|e| format!("meta.mat: {e}"))?;
        // The class index is the position in WNID order, as in networks and class folders, not ILSVRC2012_ID.
        synsets.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        let mut index_of = BTreeMap::new();
        for (index, (class, _)) in synsets.iter().enumerate() {
            if let Some(id) = class.ilsvrc2012_id
                && index_of.insert(id, index as u32).is_some()
            {
                return Err(format!("meta.mat: two classes have the number {id}"));
            }
        }
        let validation = validation(ground_truth, &index_of)?;
        let (classes, training_images) = synsets.into_iter().unzip();
        Ok(Devkit { classes, training_images, validation })
    }

    /// The classes of ILSVRC2012 without the classes of the validation images, for training images alone.
    pub(super) fn without_validation() -> Devkit {
        let class = |(wnid, words): (&str, &str)| Class {
            name: wnid.to_owned(),
            words: Some(words.to_owned()),
            ilsvrc2012_id: imagenet::ilsvrc2012_id(wnid),
        };
        Devkit {
            classes: imagenet::classes().map(class).collect(),
            training_images: imagenet::train_images().collect(),
            validation: Vec::new(),
        }
    }

    /// Finds the development kit in a folder: the official archive, its decompressed tar file, or the unpacked folder.
    /// Returns it with the name of the file or folder.
    ///
    /// # Errors
    /// [`Error::Checksum`] if `check_md5` is set and the MD5 checksum of the official archive differs;
    /// [`Error::Source`] if the development kit cannot be read.
    pub(super) fn find(root: &Path, check_md5: bool) -> Result<Option<(Devkit, String)>> {
        let tar = DEVKIT.trim_end_matches(".gz");
        let folder = tar.trim_end_matches(".tar");
        let path = |name: &str| root.join(name);
        if path(DEVKIT).is_file() {
            let bytes = vgg_files::read_bytes(&path(DEVKIT))?;
            if check_md5 {
                same_md5(&path(DEVKIT), &md5_of(&bytes), DEVKIT_MD5)?;
            }
            let read =
                |take: &mut dyn FnMut(Member) -> Result<()>| gzipped_members(&*bytes, &path(DEVKIT), take);
            return Ok(Some((Devkit::from_members(&path(DEVKIT), read)?, DEVKIT.to_owned())));
        }
        if path(tar).is_file() {
            let read = |take: &mut dyn FnMut(Member) -> Result<()>| members(&path(tar), None, take);
            return Ok(Some((Devkit::from_members(&path(tar), read)?, tar.to_owned())));
        }
        let Some(data) = [format!("{folder}/data"), folder.to_owned(), "data".to_owned()]
            .into_iter()
            .find(|data| path(data).join(META).is_file())
        else {
            return Ok(None);
        };
        let [meta, truth] = [META, TRUTH].map(|name| vgg_files::read_bytes(&path(&data).join(name)));
        let kit = Devkit::new(&meta?, &truth?);
        let kit = kit.map_err(|reason| Error::Source { path: path(&data), reason })?;
        Ok(Some((kit, format!("{data}/{META}"))))
    }

    /// Reads the archive at `path`; `read` passes its members.
    fn from_members(
        path: &Path,
        read: impl FnOnce(&mut dyn FnMut(Member) -> Result<()>) -> Result<()>,
    ) -> Result<Devkit> {
        let refuse = |reason: String| Error::Source { path: path.to_owned(), reason };
        let (mut meta, mut truth) = (None, None);
        read(&mut |mut member| {
            match member.file_name() {
                META => meta = Some(member.read()?),
                TRUTH => truth = Some(member.read()?),
                _ => {}
            }
            Ok(())
        })?;
        let missing = |name: &str| refuse(format!("it has no {name}"));
        let meta = meta.ok_or_else(|| missing(META))?;
        let truth = truth.ok_or_else(|| missing(TRUTH))?;
        Devkit::new(&meta, &truth).map_err(refuse)
    }
}

/// The number of a validation image, from its name ILSVRC2012_val_N, as index.
pub(super) fn validation_index(stem: &str) -> Option<usize> {
    stem.strip_prefix("ILSVRC2012_val_")?.parse::<usize>().ok()?.checked_sub(1)
}

/// The classes of ILSVRC-2012, the leaves of the synset tree, with their numbers of training images.
fn synsets(array: &StructArray) -> std::result::Result<Vec<(Class, u64)>, String> {
    let at = |name: &str| {
        let found = array.fields.iter().position(|field| field == name);
        found.ok_or_else(|| format!("its synsets have no field {name}"))
    };
    let [id, wnid, words, children, images] =
        [at("ILSVRC2012_ID")?, at("WNID")?, at("words")?, at("num_children")?, at("num_train_images")?];
    let number = |element: &[Value], field: usize| match &element[field] {
        Value::Numbers(numbers) if numbers.len() == 1 => Ok(numbers[0] as u64),
        _ => Err(format!("field {} is not a number", array.fields[field])),
    };
    let text = |element: &[Value], field: usize| match &element[field] {
        Value::Text(text) => Ok(text.clone()),
        Value::Numbers(_) => Err(format!("field {} is not text", array.fields[field])),
    };
    let mut classes = Vec::new();
    for element in &array.elements {
        if number(element, children)? > 0 {
            continue;
        }
        let class = Class {
            name: text(element, wnid)?,
            words: Some(text(element, words)?),
            ilsvrc2012_id: u32::try_from(number(element, id)?).ok(),
        };
        classes.push((class, number(element, images)?));
    }
    if classes.len() != CLASSES {
        return Err(format!(
            "it has {} classes without children, but ILSVRC2012 has {CLASSES}",
            classes.len()
        ));
    }
    Ok(classes)
}

fn validation(truth: &[u8], index_of: &BTreeMap<u32, u32>) -> std::result::Result<Vec<u32>, String> {
    let name = TRUTH;
    let text = std::str::from_utf8(truth).map_err(|_| format!("{name}: it is not text"))?;
    let mut targets = Vec::with_capacity(VALIDATION_IMAGES);
    // `str::lines` also accepts Windows line ends.
    for (number, line) in text.lines().enumerate() {
        let id = line.trim().parse::<u32>().ok().and_then(|id| index_of.get(&id));
        let what = || {
            format!(
                "{name}: line {} is {line:?}, which is not a class number from 1 to {CLASSES}",
                number + 1
            )
        };
        targets.push(*id.ok_or_else(what)?);
    }
    if targets.len() != VALIDATION_IMAGES {
        return Err(format!(
            "{name}: it has {} lines, but there are {VALIDATION_IMAGES} images",
            targets.len()
        ));
    }
    Ok(targets)
}
