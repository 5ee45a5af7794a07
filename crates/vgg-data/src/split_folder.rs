//! The folders of the splits, and what else people have in the place of a data set.

use std::ffi::OsString;
use std::path::Path;

use vgg_error::printable;

use crate::listing::{EntryKind, entries, folders_in, images_below};
use crate::shards::INDEX_FILE;
use crate::{Error, Result, Split};

/// The folder of a split in `root`, if there is one. Other spellings than `train` and `val` are common; a test set
/// serves as the validation set if there is no other.
pub(crate) fn split_folder(root: &Path, split: Split) -> Result<Option<OsString>> {
    let names: &[&str] = match split {
        Split::Train => &["train", "training"],
        Split::Val => &["val", "valid", "validation", "test"],
    };
    let there = folders_in(root)?;
    let exact = |name: &&str| there.iter().find(|folder| *folder.as_os_str() == **name);
    let in_any_case = |name: &&str| there.iter().find(|folder| folder.eq_ignore_ascii_case(name));
    let found = names.iter().find_map(|name| exact(name).or_else(|| in_any_case(name)));
    Ok(found.cloned())
}

/// The error of a data set without a split: what is there instead, and what to do.
pub(crate) fn missing_split(root: &Path, split: Split) -> Error {
    let expected = match split {
        Split::Train => "train/<class>/*",
        Split::Val => "val/<class>/* (or valid, validation, test)",
    };
    let reason = match instead(root) {
        Ok(Some(what)) => format!("the folder has no {expected}; {what}"),
        Ok(None) => format!("the folder has no {expected}"),
        Err(e) => return e,
    };
    Error::Missing { path: root.to_owned(), reason }
}

/// Why a path is not a folder, and what to do.
pub(crate) fn not_a_folder(root: &Path) -> String {
    let name = root.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let is_archive = [".tar", ".zip", ".gz", ".tgz"].iter().any(|suffix| name.ends_with(suffix));
    match root.exists() {
        false => "the folder does not exist".into(),
        true if is_archive => "it is an archive: unpack it and pass the folder".into(),
        true => "it is a file: pass the folder of the data set".into(),
    }
}

/// What a folder without splits has.
fn instead(root: &Path) -> Result<Option<String>> {
    if root.join("ILSVRC/Data/CLS-LOC").is_dir() {
        return Ok(Some("it has the layout of Kaggle's ImageNet and must be prepared first".into()));
    }
    let mut folders = Vec::new();
    let mut archives = Vec::new();
    for entry in entries(root)? {
        let name = printable(&entry.name).to_string();
        match entry.kind {
            EntryKind::Folder => folders.push(name),
            _ if name.ends_with(".index") => {
                let what =
                    format!("it has {name} of a prepared data set, but no {INDEX_FILE}: copy this file too");
                return Ok(Some(what));
            }
            _ if name.contains(".tar") => archives.push(name),
            _ => {}
        }
    }
    if archives.iter().any(|name| name.starts_with("ILSVRC2012_")) {
        return Ok(Some("it has the archives of ImageNet, which must be prepared first".into()));
    }
    for folder in &folders {
        let path = root.join(folder);
        if path.join(INDEX_FILE).is_file()
            || split_folder(&path, Split::Train)?.or(split_folder(&path, Split::Val)?).is_some()
        {
            return Ok(Some(format!("the data set is in its folder {folder}: pass {}", printable(&path))));
        }
    }
    let has_images =
        |folder: &String| images_below(&root.join(folder)).is_ok_and(|found| !found.files.is_empty());
    let class_folders: Vec<String> = folders.iter().filter(|folder| has_images(folder)).cloned().collect();
    Ok(match class_folders.as_slice() {
        [] if !images_below(root)?.files.is_empty() => {
            Some("it has images without class folders: move each into the folder of its class".into())
        }
        [] if !archives.is_empty() => Some(format!("it has archives: unpack {}", some(&archives))),
        [] if !folders.is_empty() => Some(format!("it has the folders {}", some(&folders))),
        [] => None,
        classes if classes.iter().all(|name| ["train", "val", "test"].contains(&name.as_str())) => {
            Some(format!("it has only {}", some(classes)))
        }
        classes => Some(format!(
            "it has folders with images that belong to no split ({}): if they are classes, divide their images between \
             train/<class> and val/<class>",
            some(classes)
        )),
    })
}

/// Why a folder of a split has no classes.
pub(crate) fn without_classes(split: &Path) -> Result<String> {
    let files = entries(split)?;
    let archives: Vec<String> = files
        .iter()
        .map(|entry| printable(&entry.name).to_string())
        .filter(|name| name.ends_with(".tar") || name.ends_with(".tar.gz") || name.ends_with(".zip"))
        .collect();
    Ok(match archives.as_slice() {
        [] if !images_below(split)?.files.is_empty() => {
            "the folder has images, but no class folders: move each image into the folder of its class".into()
        }
        [] => "the folder has no class folders".into(),
        archives => {
            format!("the folder has archives: unpack each ({}) into a folder of its name", some(archives))
        }
    })
}

/// The first names of a list.
fn some(names: &[String]) -> String {
    match names {
        [first @ .., _] if first.len() >= 5 => {
            format!("{} and {} more", names[..5].join(", "), names.len() - 5)
        }
        _ => names.join(", "),
    }
}
