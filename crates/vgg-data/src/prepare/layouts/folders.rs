//! Class folders: `train/<class>/*` and optionally `val/<class>/*`.

use std::path::Path;

use super::{FileEntry, Files, classes};
use crate::folder::Folder;
use crate::{Result, Split, imagenet};

pub(super) fn open(root: &Path) -> Result<Files> {
    let mut folders = vec![(Split::Train, Folder::open(root, Split::Train)?)];
    if root.join(Split::Val.name()).is_dir() {
        folders.push((Split::Val, Folder::open(root, Split::Val)?));
    }
    let classes = classes(&folders[0].1.classes, |wnid| imagenet::words(wnid).map(str::to_owned));
    let entries = |folder: Folder| {
        folder.samples.into_iter().map(|sample| FileEntry::plain(sample.path, sample.target)).collect()
    };
    let splits = folders.into_iter().map(|(split, folder)| (split, entries(folder))).collect();
    Ok(Files::new("class folders", root, classes, splits))
}
