//! Preparation: a data set as it is published becomes shards.
//!
//! A [`Source`] tells its images in an order that is always the same. They are taken by units of a number of bytes; what a
//! unit becomes depends on it alone, so it is made once, by any of several processes, whatever was there before it.

mod archive;
mod boxes;
mod class_folders;
mod devkit;
mod encode;
mod entry;
mod finish;
mod ilsvrc;
mod matlab;
mod pipeline;
mod plan;
mod unit;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use vgg_files::{Lock, read_json, remove_partial_files, write_json};

pub use class_folders::ClassFolders;
pub use entry::{BoundingBox, Class, Entry};
pub use finish::merge;
pub use ilsvrc::{Ilsvrc, IlsvrcOptions};
pub use plan::{Plan, plan};

use crate::{Encoding, Error, INDEX_FILE, Result, Split};

/// Where images come from.
pub trait Source {
    /// What it is, for people.
    fn name(&self) -> String;
    /// The classes in the order of their indices.
    fn classes(&self) -> &[Class];
    /// Which splits it has.
    fn splits(&self) -> Vec<Split>;
    /// Every file that is read.
    fn inputs(&self) -> &[PathBuf];
    /// Hands every image of a split to `consume`, always in the same order, and looks at the checksums that are known.
    ///
    /// # Errors
    /// What `consume` returns; [`Error::Source`] if the input is not what it should be.
    fn entries(&self, split: Split, consume: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()>;
    /// Images that each class of a split should have, if that is known.
    fn expected(&self, split: Split) -> Option<Vec<u64>>;
    /// Whether images may be missing.
    fn may_miss(&self) -> bool;
}

/// How to prepare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareOptions {
    /// Smallest side that larger images are reduced to; `None` keeps them as they are.
    pub smallest_side: Option<usize>,
    /// How images are stored.
    pub encoding: Encoding,
    /// Bytes of a shard at most, and of the input that goes into one.
    pub shard_bytes: u64,
    /// Which part of the units is made here, from 1, and how many parts there are.
    pub part: (usize, usize),
}

/// What happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// This many images of the split are done or were done before.
    Images(Split, u64),
    /// A unit was there already.
    Kept(Split, usize),
    /// An image cannot be used.
    LeftOut(&'a str, &'a str),
}

/// What was begun in a directory: written first, and what a resumed preparation must be again.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Begun {
    source: String,
    options: PrepareOptions,
    inputs: Vec<Input>,
    classes: Vec<Class>,
    /// Images that each class should have.
    expected: BTreeMap<Split, Option<Vec<u64>>>,
    /// Whether there may be fewer.
    may_miss: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Input {
    path: PathBuf,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u128,
}

/// Name of the file that says what was begun.
const BEGUN_FILE: &str = "prepare.json";
/// Folder of what is known of finished units, until all are.
const PROGRESS: &str = "progress";

/// Prepares a source in `out`, going on where an earlier attempt stopped. A part is left for [`merge`]. When `events` breaks,
/// the preparation ends with [`Error::Interrupted`]; the unit under way will be made again.
///
/// # Errors
/// [`Error::Source`] if the input is not what it should be, or not what it was when an earlier attempt began; [`Error::Io`];
/// those of locks.
pub fn prepare(
    source: &dyn Source,
    options: &PrepareOptions,
    out: &Path,
    threads: usize,
    events: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<()> {
    let _lock = Lock::acquire(out)?;
    let begun = begin(source, options, out)?;
    remove_partial_files(out)?;
    if out.join(INDEX_FILE).is_file() {
        return finish::remove_progress(out);
    }
    plan(source, options, out, threads)?.check()?;
    std::fs::create_dir_all(out.join(PROGRESS)).map_err(crate::error::at("create", out))?;
    remove_partial_files(&out.join(PROGRESS))?;
    for split in source.splits() {
        pipeline::run(source, split, options, out, threads, events)?;
    }
    if options.part.1 > 1 {
        return Ok(());
    }
    finish::finish(&begun, out)
}

/// Says what is begun, or finds that it is what was begun before.
fn begin(source: &dyn Source, options: &PrepareOptions, out: &Path) -> Result<Begun> {
    let begun = Begun {
        source: source.name(),
        options: options.clone(),
        inputs: source.inputs().iter().map(|path| input(path)).collect::<Result<_>>()?,
        classes: source.classes().to_vec(),
        expected: source.splits().into_iter().map(|split| (split, source.expected(split))).collect(),
        may_miss: source.may_miss(),
    };
    let path = out.join(BEGUN_FILE);
    let before: Begun = match read_json(&path) {
        Ok(before) => before,
        Err(e) if e.is_missing() => {
            write_json(&path, &begun)?;
            return Ok(begun);
        }
        Err(e) => return Err(e.into()),
    };
    let mut differences = Vec::new();
    let mut compare = |what: &str, before: String, now: String| {
        if before != now {
            differences.push(format!("{what}: {before} before, {now} now"));
        }
    };
    compare("source", before.source, begun.source.clone());
    compare("options", format!("{:?}", before.options), format!("{:?}", begun.options));
    let names =
        |classes: &[Class]| classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>().join(" ");
    compare("classes", names(&before.classes), names(&begun.classes));
    let list = |inputs: &[Input]| {
        let one = |i: &Input| format!("{} of {} bytes, changed at {}", i.path.display(), i.bytes, i.modified);
        inputs.iter().map(one).collect::<Vec<_>>()
    };
    let (old, new) = (list(&before.inputs), list(&begun.inputs));
    for (old, new) in old.iter().zip(&new) {
        compare("input", old.clone(), new.clone());
    }
    compare("inputs", old.len().to_string(), new.len().to_string());
    if differences.is_empty() {
        return Ok(begun);
    }
    let what = format!(
        "another preparation was begun here; remove it, or take another folder: {}",
        differences.join("; ")
    );
    Err(Error::Source { path: out.to_owned(), reason: what })
}

fn input(path: &Path) -> Result<Input> {
    let metadata = std::fs::metadata(path).map_err(crate::error::at("read", path))?;
    let modified = metadata.modified().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
    Ok(Input { path: path.to_owned(), bytes: metadata.len(), modified: modified.map_or(0, |d| d.as_nanos()) })
}
