//! PASCAL VOC. An image may show objects of several classes. All bounding boxes are kept; the image has the
//! class of the largest. An image without a valid annotation is skipped.

use std::path::Path;

use super::{Annotation, FileEntry, Files, annotation, classes, lines, wrong};
use crate::folder::images_of;
use crate::prepare::BoundingBox;
use crate::{Error, KeyedRng, Permutation, Purpose, Result, Split};

/// Without `ImageSets`, one in this many images is a validation image.
const IMAGES_PER_VAL_IMAGE: usize = 5;

pub(super) fn open(root: &Path, seed: u64) -> Result<Files> {
    // The archives contain VOCdevkit/VOC2007 or VOCdevkit/VOC2012.
    let there: Vec<&str> = ["VOCdevkit/VOC2012", "VOCdevkit/VOC2007"]
        .into_iter()
        .filter(|inner| root.join(inner).is_dir())
        .collect();
    let inner = match there.as_slice() {
        [_, _] => {
            return Err(wrong(
                root,
                "the folder contains VOC2007 and VOC2012; use the folder of one of them",
            ));
        }
        other => other.first(),
    };
    let prefix = inner.map_or(String::new(), |inner| format!("{inner}/"));
    let first = |names: [&'static str; 2]| {
        names.into_iter().find(|name| root.join(format!("{prefix}{name}")).is_dir())
    };
    let missing = |name: &str| wrong(root, format!("the folder has no subfolder {name}"));
    let images = first(["JPEGImages", "images"]).ok_or_else(|| missing("JPEGImages"))?;
    let annotations = first(["Annotations", "annotations"]).ok_or_else(|| missing("Annotations"))?;
    let names = images_of(&root.join(format!("{prefix}{images}")))?;
    let mut found = Vec::new();
    for name in names {
        let path = format!("{prefix}{images}/{name}");
        let entry = FileEntry::plain(path, 0);
        let xml = format!("{prefix}{annotations}/{}.xml", entry.stem);
        found.push(match largest_object(&root.join(&xml)) {
            Ok(class) => (FileEntry { boxes: Annotation::Xml(xml), ..entry }, Some(class)),
            Err(Error::Source { reason, .. } | Error::Missing { reason, .. }) => {
                (FileEntry { bad: Some(format!("its annotation {xml}: {reason}")), ..entry }, None)
            }
            Err(other) => return Err(other),
        });
    }
    let mut names: Vec<String> = found.iter().filter_map(|(_, class)| class.clone()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err(wrong(
            &root.join(format!("{prefix}{annotations}")),
            "no image has an annotation with an object",
        ));
    }
    for (entry, class) in &mut found {
        let place = class.as_ref().and_then(|class| names.binary_search(class).ok());
        entry.target = place.unwrap_or_default() as u32;
    }
    let mut entries: Vec<FileEntry> = found.into_iter().map(|(entry, _)| entry).collect();
    let val = validation(root, &prefix, &entries, seed)?;
    let mut in_val = val.into_iter();
    let (val, train) = entries.drain(..).partition(|_| in_val.next().unwrap_or(false));
    let splits = vec![(Split::Train, train), (Split::Val, val)];
    let lists = ["test", "val"].map(|list| format!("{prefix}ImageSets/Main/{list}.txt"));
    let lists = lists.into_iter().filter(|list| root.join(list).is_file());
    Ok(Files::new("PASCAL VOC", root, classes(&names, |_| None), splits).also_reads(lists))
}

/// Class of the largest object of an annotation.
fn largest_object(xml: &Path) -> Result<String> {
    let boxes = annotation(xml)?;
    let area = |b: &BoundingBox| (b.xmax - b.xmin) * (b.ymax - b.ymin);
    let largest = boxes.into_iter().max_by(|a, b| area(a).total_cmp(&area(b)));
    Ok(largest.ok_or_else(|| wrong(xml, "it has no objects"))?.name)
}

/// Whether each image is a validation image: those listed in `ImageSets/Main/test.txt`, else in `val.txt`,
/// else a random fifth.
fn validation(root: &Path, prefix: &str, entries: &[FileEntry], seed: u64) -> Result<Vec<bool>> {
    for list in ["test", "val"] {
        let name = format!("{prefix}ImageSets/Main/{list}.txt");
        if root.join(&name).is_file() {
            let stems: std::collections::HashSet<String> = lines(root, &name)?.into_iter().collect();
            return Ok(entries.iter().map(|entry| stems.contains(&entry.stem)).collect());
        }
    }
    let order = Permutation::new(&mut KeyedRng::new(seed, 0, 0, Purpose::Order), entries.len());
    Ok((0..entries.len()).map(|image| order.at(image) < entries.len() / IMAGES_PER_VAL_IMAGE).collect())
}
