//! Class folders: `train/<class>/*` and `val/<class>/*`, or one of them.

use std::path::Path;

use super::{FileEntry, Files, classes};
use crate::folder::Folder;
use crate::split_folder::{missing_split, split_folder};
use crate::{Result, Split, imagenet};

pub(super) fn open(root: &Path) -> Result<Files> {
    let mut folders = Vec::new();
    for split in [Split::Train, Split::Val] {
        if split_folder(root, split)?.is_some() {
            folders.push((split, Folder::open(root, split)?));
        }
    }
    if folders.is_empty() {
        return Err(missing_split(root, Split::Train));
    }
    let classes = classes(&folders[0].1.classes, |wnid| imagenet::words(wnid).map(str::to_owned));
    let entries =
        |folder: Folder| folder.samples.into_iter().map(|sample| FileEntry::of_sample(&sample)).collect();
    let splits = folders.into_iter().map(|(split, folder)| (split, entries(folder))).collect();
    Ok(Files::new("class folders", root, classes, splits))
}
