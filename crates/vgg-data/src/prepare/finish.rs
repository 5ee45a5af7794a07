//! From finished units to a data set: its indices, `classes.json`, and at last `index.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vgg_files::{Hasher, Lock, read_json, write_json, write_with};

use super::unit::{UnitRecord, count_path, record_path};
use super::{BEGUN_FILE, Begun, Class, Input, PROGRESS, PrepareOptions};
use crate::error::at;
use crate::shards::Record;
use crate::{
    Error, INDEX_FILE, InputList, LeftOut, Manifest, PixelStatistics, Result, ShardFile, Split,
    SplitManifest, eigenvectors,
};

/// A class in `classes.json`: its index, its number in the development kit, and how many images there are.
#[derive(Serialize)]
struct ClassLine<'a> {
    index: usize,
    #[serde(flatten)]
    class: &'a Class,
    images: BTreeMap<&'static str, u64>,
}

/// Joins the units of `out` into a data set.
pub(super) fn finish(begun: &Begun, out: &Path) -> Result<()> {
    let names = begun.classes.iter().map(|class| class.name.clone()).collect();
    let options = &begun.options;
    let mut manifest = Manifest::new(begun.source.clone(), options.encoding, options.smallest_side, names);
    manifest.shard_bytes = options.shard_bytes;
    manifest.inputs = list_of(&begun.inputs);
    for (&split, expected) in &begun.expected {
        let mut own = join(out, split, begun.classes.len())?;
        own.missing = missing(begun, split, expected.as_deref(), &own.of_class);
        if !own.missing.is_empty() && !begun.may_miss {
            return Err(Error::Source { path: out.to_owned(), reason: all_missing(&own) });
        }
        manifest.splits.insert(split, own);
    }
    let images =
        |index: usize| manifest.splits.iter().map(move |(split, own)| (split.name(), own.of_class[index]));
    let line = |(index, class)| ClassLine { index, class, images: images(index).collect() };
    let lines: Vec<ClassLine> = begun.classes.iter().enumerate().map(line).collect();
    write_json(&out.join("classes.json"), &lines)?;
    write_json(&out.join(INDEX_FILE), &manifest)?;
    remove_progress(out)
}

/// What the images of each class should come to and do not, a line for each class.
fn missing(begun: &Begun, split: Split, expected: Option<&[u64]>, of_class: &[u64]) -> Vec<String> {
    let pairs = of_class.iter().zip(expected.unwrap_or(of_class)).zip(&begun.classes);
    let differs = pairs.filter(|((found, expected), _)| found != expected);
    let tell = |((found, expected), class): ((&u64, &u64), &Class)| {
        let words = class.words.as_ref().map_or(String::new(), |words| format!(" ({words})"));
        format!("{} {}{words}: {found} of {expected} images", split.name(), class.name)
    };
    differs.map(tell).collect()
}

/// What is missing, and why as far as that is known.
fn all_missing(split: &SplitManifest) -> String {
    const SHOWN: usize = 20;
    let mut text = String::from("images are missing (--allow-incomplete takes what there is):");
    let left_out = split.left_out.iter().map(|image| format!("{}: {}", image.path, image.reason));
    let lines: Vec<String> = split.missing.iter().cloned().chain(left_out).collect();
    for line in lines.iter().take(SHOWN) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    if lines.len() > SHOWN {
        text.push_str(&format!("\n  and {} more", lines.len() - SHOWN));
    }
    text
}

/// What was begun when `manifest` was made, as far as it says.
pub(super) fn begun(manifest: &Manifest) -> Begun {
    let class = |name: &String| Class { name: name.clone(), words: None, ilsvrc2012_id: None };
    Begun {
        source: manifest.source.clone(),
        options: PrepareOptions {
            smallest_side: manifest.smallest_side,
            encoding: manifest.encoding,
            shard_bytes: manifest.shard_bytes,
            part: (1, 1),
        },
        inputs: Vec::new(),
        classes: manifest.classes.iter().map(class).collect(),
        expected: BTreeMap::new(),
        may_miss: true,
    }
}

/// # Errors
/// [`Error::Missing`] or [`Error::Layout`] if a shard is not there, or has another length than it should.
pub(super) fn check_shards(manifest: &Manifest, out: &Path) -> Result<()> {
    manifest.splits.values().flat_map(|split| &split.shards).try_for_each(|shard| check_shard(shard, out))
}

fn check_shard(shard: &ShardFile, out: &Path) -> Result<()> {
    let path = out.join(&shard.file);
    let bytes = fs::metadata(&path).map_err(at("read", &path))?.len();
    if bytes == shard.bytes {
        return Ok(());
    }
    let reason = format!("{} has {bytes} bytes where {} were written", shard.file, shard.bytes);
    Err(Error::Layout { path: out.to_owned(), reason })
}

/// Removes what is needed only until `index.json` is there.
pub(super) fn remove_progress(out: &Path) -> Result<()> {
    let progress = out.join(PROGRESS);
    match fs::remove_dir_all(&progress) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(at("remove", &progress)(e)),
        _ => Ok(()),
    }
}

/// Writes the index of a split, and tells what the split is.
fn join(out: &Path, split: Split, classes: usize) -> Result<SplitManifest> {
    let units: usize = read_json(&count_path(out, split))?;
    let index = format!("{}.index", split.name());
    let (mut shards, mut of_class, mut statistics) =
        (Vec::new(), vec![0_u64; classes], PixelStatistics::default());
    let (mut smallest_sides, mut odd, mut left_out) = (BTreeMap::<u32, u64>::new(), Vec::new(), Vec::new());
    let mut hasher = Hasher::default();
    let (mut failed, mut lost) = (None, false);
    let written = write_with(&out.join(&index), |file| {
        for unit in 0..units {
            let record: UnitRecord = match read_json(&record_path(out, split, unit)) {
                Ok(record) => record,
                Err(e) => {
                    failed = Some(e);
                    return Err(std::io::Error::other("a unit is missing"));
                }
            };
            for (offset, bytes, shard, target) in record.images {
                let shard = shards.len() as u32 + shard;
                let record = Record { offset, bytes, shard, target }.to_bytes();
                hasher.update(&record);
                file.write_all(&record)?;
                of_class[target as usize] += 1;
            }
            lost |= record.entries
                != record.shards.iter().map(|s| s.images).sum::<u64>() + record.left_out.len() as u64;
            shards.extend(record.shards);
            statistics.merge(&record.statistics);
            for (side, count) in record.smallest_sides {
                *smallest_sides.entry(side).or_default() += count;
            }
            odd.extend(record.odd);
            left_out.extend(record.left_out);
        }
        Ok(())
    });
    if let Some(e) = failed {
        return Err(e.into());
    }
    written?;
    shards.iter().try_for_each(|shard| check_shard(shard, out))?;
    if lost {
        let reason =
            format!("images of the split {} were lost; remove the folder and begin anew", split.name());
        return Err(Error::Source { path: out.to_owned(), reason });
    }
    if shards.is_empty() {
        let first = left_out
            .first()
            .map_or(String::new(), |image: &LeftOut| format!(": {}: {}", image.path, image.reason));
        let reason = format!("no image of the split {} can be used{first}", split.name());
        return Err(Error::Source { path: out.to_owned(), reason });
    }
    let (eigenvalues, eigenvectors) = eigenvectors(statistics.covariance());
    Ok(SplitManifest {
        images: of_class.iter().sum(),
        of_class,
        index,
        index_blake3: hasher.hash(),
        shards,
        statistics,
        mean_rgb: statistics.mean(),
        covariance: statistics.covariance(),
        eigenvalues,
        eigenvectors,
        smallest_sides,
        odd,
        left_out,
        missing: Vec::new(),
    })
}

/// Names and lengths of all inputs as one hash: there may be millions.
pub(super) fn list_of(inputs: &[Input]) -> InputList {
    let mut hasher = Hasher::default();
    for input in inputs {
        hasher.update(format!("{}\t{}\n", input.path, input.bytes).as_bytes());
    }
    let bytes = inputs.iter().map(|input| input.bytes).sum();
    InputList { files: inputs.len() as u64, bytes, blake3: hasher.hash() }
}

/// Joins directories that hold the parts of one preparation into `out`, an empty folder, which becomes the same as if there
/// had been one part. Shards are linked where that is possible, and copied otherwise; the parts stay as they are.
///
/// # Errors
/// [`Error::Source`] if a part is missing, is there twice, or is not of the same preparation; [`Error::Layout`] if `out` holds
/// something; [`Error::Io`].
pub fn merge(parts: &[PathBuf], out: &Path, allow_incomplete: bool) -> Result<()> {
    let _lock = Lock::acquire(out)?;
    super::only_ours(out)?;
    remove_progress(out)?;
    let refuse = |path: &Path, reason: String| Error::Source { path: path.to_owned(), reason };
    let mut whole: Option<Begun> = None;
    let mut seen = BTreeMap::new();
    for dir in parts {
        let mut begun: Begun = read_json(&dir.join(PROGRESS).join(BEGUN_FILE))?;
        let part = begun.options.part;
        if let Some(first) = seen.insert(part, dir) {
            return Err(refuse(
                dir,
                format!("it is part {} of {}, as {} is", part.0, part.1, first.display()),
            ));
        }
        begun.options.part = (1, 1);
        // Each machine may have its own copy of the input.
        begun.inputs.iter_mut().for_each(|input| input.modified = 0);
        match &mut whole {
            None => whole = Some(begun),
            Some(whole) => {
                super::same(&begun, whole, dir)?;
                whole.may_miss |= begun.may_miss;
            }
        }
    }
    let Some(mut begun) = whole else { return Err(refuse(out, "there are no parts to merge".into())) };
    begun.may_miss |= allow_incomplete;
    let of = seen.keys().next_back().map_or(1, |part| part.1);
    if let Some(missing) = (1..=of).find(|&i| !seen.contains_key(&(i, of))) {
        return Err(refuse(out, format!("part {missing} of {of} is missing")));
    }
    let progress = out.join(PROGRESS);
    fs::create_dir_all(&progress).map_err(at("create", &progress))?;
    for dir in parts {
        let splits: Vec<&str> = begun.expected.keys().map(|split| split.name()).collect();
        let ours = |name: &str| splits.iter().any(|split| name.starts_with(split));
        bring(dir, out, &|name| name.ends_with(".tar") && ours(name))?;
        bring(&dir.join(PROGRESS), &progress, &|name| name.ends_with(".json") && ours(name))?;
    }
    finish(&begun, out)
}

/// Links or copies the files of a folder.
fn bring(from: &Path, to: &Path, which: &dyn Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(from).map_err(at("read", from))? {
        let path = entry.map_err(at("read", from))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let target = to.join(&name);
        if !which(&name) || name.starts_with('.') || target.exists() {
            continue;
        }
        if fs::hard_link(&path, &target).is_err() {
            let mut file = fs::File::open(&path).map_err(at("read", &path))?;
            write_with(&target, |out| std::io::copy(&mut file, out).map(drop))?;
        }
    }
    Ok(())
}
