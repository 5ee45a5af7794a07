//! Tiny ImageNet: 200 classes, with a bounding box per image. Copies without boxes and copies with the validation images
//! in class folders are read too. The test images have no labels and are not used.

use std::collections::HashMap;
use std::path::Path;

use super::{Annotation, FileEntry, Files, classes, lines, wrong};
use crate::folder::{folders_of, images_of};
use crate::prepare::BoundingBox;
use crate::{Result, Split, imagenet};

/// Classes and bounding boxes of the validation images.
const LIST: &str = "val/val_annotations.txt";

pub(super) fn open(root: &Path) -> Result<Files> {
    let names = folders_of(&root.join("train"))?;
    let words: HashMap<String, String> = if root.join("words.txt").is_file() {
        let pairs = lines(root, "words.txt")?;
        pairs.iter().filter_map(|line| line.split_once('\t')).map(|(a, b)| (a.into(), b.into())).collect()
    } else {
        HashMap::new()
    };
    let mut train = Vec::new();
    for (target, wnid) in names.iter().enumerate() {
        let list = format!("train/{wnid}/{wnid}_boxes.txt");
        let mut boxes = HashMap::new();
        let box_lines = if root.join(&list).is_file() { lines(root, &list)? } else { Vec::new() };
        for line in box_lines {
            let fields: Vec<&str> = line.split('\t').collect();
            let found =
                fields.split_first().and_then(|(name, edges)| Some((*name, bounding_box(wnid, edges)?)));
            let (name, one) =
                found.ok_or_else(|| wrong(&root.join(&list), format!("it has the invalid line {line:?}")))?;
            boxes.insert(name.to_owned(), one);
        }
        let folder = format!("train/{wnid}/images");
        for name in images_of(&root.join(&folder))? {
            let mut entry = FileEntry::plain(format!("{folder}/{name}"), target as u32);
            entry.boxes = boxes.remove(&name).map_or(Annotation::None, |one| Annotation::Boxes(vec![one]));
            train.push(entry);
        }
    }
    let val = if root.join(LIST).is_file() { listed_val(root, &names)? } else { val_folders(root, &names)? };
    let words = |wnid: &str| words.get(wnid).cloned().or_else(|| imagenet::words(wnid).map(str::to_owned));
    let splits = vec![(Split::Train, train), (Split::Val, val)];
    let lists = names.iter().map(|wnid| format!("train/{wnid}/{wnid}_boxes.txt")).chain([LIST.to_owned()]);
    let lists = lists.filter(|list| root.join(list).is_file());
    Ok(Files::new("Tiny ImageNet", root, classes(&names, words), splits).also_reads(lists))
}

/// The validation images in the official layout: `val/images` and a list with their classes and boxes.
fn listed_val(root: &Path, names: &[String]) -> Result<Vec<FileEntry>> {
    let mut val = Vec::new();
    for line in lines(root, LIST)? {
        let fields: Vec<&str> = line.split('\t').collect();
        let found = match fields.as_slice() {
            [name, wnid, edges @ ..] => names
                .binary_search_by(|known| known.as_str().cmp(wnid))
                .ok()
                .and_then(|target| Some((*name, target, bounding_box(wnid, edges)?))),
            _ => None,
        };
        let (name, target, one) =
            found.ok_or_else(|| wrong(&root.join(LIST), format!("it has the invalid line {line:?}")))?;
        let mut entry = FileEntry::plain(format!("val/images/{name}"), target as u32);
        entry.boxes = Annotation::Boxes(vec![one]);
        val.push(entry);
    }
    val.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(val)
}

/// The validation images in class folders: `val/<wnid>/images/*` or `val/<wnid>/*`.
fn val_folders(root: &Path, names: &[String]) -> Result<Vec<FileEntry>> {
    let mut val = Vec::new();
    for (target, wnid) in names.iter().enumerate() {
        let folder = format!("val/{wnid}");
        let inner = format!("{folder}/images");
        let folder = if root.join(&inner).is_dir() { inner } else { folder };
        if !root.join(&folder).is_dir() {
            return Err(wrong(
                &root.join("val"),
                format!("it has neither val_annotations.txt nor a folder for the class {wnid}"),
            ));
        }
        let images = images_of(&root.join(&folder))?.into_iter();
        val.extend(images.map(|name| FileEntry::plain(format!("{folder}/{name}"), target as u32)));
    }
    Ok(val)
}

fn bounding_box(wnid: &str, edges: &[&str]) -> Option<BoundingBox> {
    let edges: Vec<f64> = edges.iter().map(|edge| edge.parse().ok()).collect::<Option<_>>()?;
    let [xmin, ymin, xmax, ymax] = edges.try_into().ok()?;
    Some(BoundingBox { name: wnid.to_owned(), xmin, ymin, xmax, ymax })
}
