//! Completes a data set from its finished units: writes `classes.json` and finally `index.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;
use vgg_files::{Hasher, hash_file, write_json};

use super::join::{check_shard, join};
use super::{Class, Input, PROGRESS, PrepareOptions, PrepareState};
use crate::error::io_error;
use crate::shards::Index;
use crate::{Error, IndexFile, InputList, Manifest, Partition, Result, Split, SplitManifest};

/// A class in `classes.json`: its index, name, words, ILSVRC2012_ID, and number of images in each split.
#[derive(Serialize)]
struct ClassLine<'a> {
    index: usize,
    #[serde(flatten)]
    class: &'a Class,
    images: BTreeMap<&'static str, u64>,
}

/// Joins the units of `out` into a data set.
///
/// # Errors
/// [`Error::Incomplete`] if images are missing and may not be; errors of [`join`]; [`Error::File`] or
/// [`Error::Io`] if a file cannot be written or removed.
pub(super) fn finish(state: &PrepareState, out: &Path) -> Result<()> {
    let names = state.classes.iter().map(|class| class.name.clone()).collect();
    let options = &state.options;
    let mut manifest = Manifest::new(state.source.clone(), options.encoding, options.smallest_side, names);
    manifest.shard_bytes = options.shard_bytes;
    manifest.inputs = list_of(&state.inputs);
    for (&split, expected) in &state.expected {
        let mut own = join(out, split, state.classes.len())?;
        own.missing = missing(state, split, expected.as_deref(), &own.of_class);
        if !own.missing.is_empty() && !state.allow_missing {
            return Err(Error::Incomplete { path: out.to_owned(), reason: all_missing(&own) });
        }
        manifest.splits.insert(split, own);
    }
    let images =
        |index: usize| manifest.splits.iter().map(move |(split, own)| (split.name(), own.of_class[index]));
    let line = |(index, class)| ClassLine { index, class, images: images(index).collect() };
    let lines: Vec<ClassLine> = state.classes.iter().enumerate().map(line).collect();
    let file = "classes.json".to_owned();
    let path = out.join(&file);
    write_json(&path, &lines)?;
    let bytes = fs::metadata(&path).map_err(io_error("read", &path))?.len();
    manifest.class_list = Some(IndexFile { file, bytes, blake3: hash_file(&path)? });
    check_indices(&manifest, out)?;
    manifest.write(out)?;
    remove_progress(out)
}

/// Checks the records of all images, so that a damaged unit record is not published.
fn check_indices(manifest: &Manifest, out: &Path) -> Result<()> {
    manifest.splits.keys().try_for_each(|&split| Index::open(out, manifest, split).map(drop))
}

/// One line for each class whose number of images differs from the expected number.
fn missing(state: &PrepareState, split: Split, expected: Option<&[u64]>, of_class: &[u64]) -> Vec<String> {
    let pairs = of_class.iter().zip(expected.unwrap_or(of_class)).zip(&state.classes);
    let differs = pairs.filter(|((found, expected), _)| found != expected);
    let tell = |((found, expected), class): ((&u64, &u64), &Class)| {
        let words = class.words.as_ref().map_or(String::new(), |words| format!(" ({words})"));
        format!("{} {}{words}: {found} of {expected} images", split.name(), class.name)
    };
    differs.map(tell).collect()
}

/// Message of [`Error::Incomplete`]: the incomplete classes and the skipped images.
fn all_missing(split: &SplitManifest) -> String {
    const SHOWN: usize = 20;
    let mut text = String::from("the images differ from the official data set:");
    let skipped = split.skipped.iter().map(|image| format!("{}: {}", image.path, image.reason));
    let lines: Vec<String> = split.missing.iter().cloned().chain(skipped).collect();
    for line in lines.iter().take(SHOWN) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    if lines.len() > SHOWN {
        text.push_str(&format!("\n  and {} more", lines.len() - SHOWN));
    }
    text
}

/// Reconstructs the [`PrepareState`] of a finished preparation, as far as the manifest states it.
pub(super) fn state(manifest: &Manifest) -> PrepareState {
    let class = |name: &String| Class { name: name.clone(), words: None, ilsvrc2012_id: None };
    PrepareState {
        source: manifest.source.clone(),
        options: PrepareOptions {
            smallest_side: manifest.smallest_side,
            encoding: manifest.encoding,
            shard_bytes: manifest.shard_bytes,
            part: Partition::WHOLE,
        },
        inputs: Vec::new(),
        classes: manifest.classes.iter().map(class).collect(),
        expected: BTreeMap::new(),
        allow_missing: true,
    }
}

/// Checks the lengths of all shards.
///
/// # Errors
/// [`Error::Missing`] or [`Error::Layout`] if a shard does not exist or has another length.
pub(super) fn check_shards(manifest: &Manifest, out: &Path) -> Result<()> {
    manifest.splits.values().flat_map(|split| &split.shards).try_for_each(|shard| check_shard(shard, out))
}

/// Removes the progress folder, which is not needed after `index.json` is written.
pub(super) fn remove_progress(out: &Path) -> Result<()> {
    let progress = out.join(PROGRESS);
    match fs::remove_dir_all(&progress) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", &progress)(e)),
        _ => Ok(()),
    }
}

/// Hashes the names and lengths of all inputs, of which there may be millions.
pub(super) fn list_of(inputs: &[Input]) -> InputList {
    let mut hasher = Hasher::default();
    for input in inputs {
        hasher.update(format!("{}\t{}\n", input.path, input.bytes).as_bytes());
    }
    let bytes = inputs.iter().map(|input| input.bytes).sum();
    InputList { files: inputs.len() as u64, bytes, blake3: hasher.hash() }
}
