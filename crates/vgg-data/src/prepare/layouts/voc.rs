//! PASCAL VOC. An image may show objects of several classes. All bounding boxes are kept; the image has the
//! class of the largest.

use std::path::Path;

use super::{Annotation, FileEntry, Files, classes, lines, wrong};
use crate::error::io_error;
use crate::folder::images_of;
use crate::prepare::BoundingBox;
use crate::prepare::boxes::parse;
use crate::{KeyedRng, Permutation, Purpose, Result, Split};

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
        let xml_path = root.join(&xml);
        let bytes = std::fs::read(&xml_path).map_err(io_error("read", &xml_path))?;
        let boxes = parse(&bytes).map_err(|reason| wrong(&xml_path, reason))?;
        let area = |b: &BoundingBox| (b.xmax - b.xmin) * (b.ymax - b.ymin);
        let largest = boxes.iter().max_by(|a, b| area(a).total_cmp(&area(b)));
        let largest = largest.ok_or_else(|| wrong(&xml_path, "it has no objects"))?.name.clone();
        found.push((FileEntry { boxes: Annotation::Xml(xml), ..entry }, largest));
    }
    let mut names: Vec<String> = found.iter().map(|(_, class)| class.clone()).collect();
    names.sort_unstable();
    names.dedup();
    for (entry, class) in &mut found {
        entry.target = names.binary_search(class).unwrap_or_default() as u32;
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
