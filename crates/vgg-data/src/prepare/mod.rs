//! Preparation: a data set as it is published becomes shards.
//!
//! A [`Source`] tells its images in an order that is always the same. They are taken by units of a number of bytes; what a
//! unit becomes depends on it alone, so it is made once, by any of several processes, whatever was there before it.

mod archive;
mod boxes;
mod devkit;
mod encode;
mod entry;
mod finish;
mod hashed;
mod ilsvrc;
mod join;
mod known_odd;
mod layouts;
mod matlab;
mod merge;
mod pipeline;
mod plan;
mod unit;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use vgg_files::{Lock, read_json, remove_partial_files, write_json};

pub use entry::{BoundingBox, Class, Entry};
pub use ilsvrc::{Ilsvrc, IlsvrcOptions};
pub use known_odd::unexpected as unexpected_of_known_odd;
pub use layouts::{Files, Layout};
pub use merge::merge;
pub use plan::{Plan, plan};

use crate::shards::UNFINISHED as PROGRESS;
use crate::{Encoding, Error, INDEX_FILE, Manifest, Partition, Result, Split};

/// Where images come from.
pub trait Source {
    /// What it is, for people.
    fn name(&self) -> String;
    /// The classes in the order of their indices.
    fn classes(&self) -> &[Class];
    /// Which splits it has.
    fn splits(&self) -> Vec<Split>;
    /// Folder of all files that are read.
    fn root(&self) -> &Path;
    /// Every file that is read, below the folder, with `/`.
    fn inputs(&self) -> &[String];
    /// Hands every image of a split to `consume`, always in the same order, and looks at the checksums that are known.
    ///
    /// # Errors
    /// What `consume` returns; [`Error::Source`] if the input is not what it should be.
    fn entries(&self, split: Split, consume: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()>;
    /// Images that each class of a split should have, if that is known.
    fn expected(&self, split: Split) -> Option<Vec<u64>>;
    /// Whether images may be missing.
    fn may_miss(&self) -> bool;
    /// Number of images, if it is known before they are read.
    fn images(&self) -> Option<u64> {
        None
    }
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
    /// Which part of the units is made here.
    pub part: Partition,
}

/// What happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// This many images of the split are done or were done before.
    Images(Split, u64),
    /// A unit was there already.
    Kept(Split, usize),
    /// An image cannot be used.
    Skipped(&'a str, &'a str),
}

/// What was begun in a directory: written first, and what a resumed preparation must be again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PrepareState {
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
    path: String,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u128,
}

/// Name of the file that says what was begun, in the folder of progress.
const BEGUN_FILE: &str = "prepare.json";

/// Prepares a source in `out`, going on where an earlier attempt stopped. A part is left for [`merge`]. When `events` breaks,
/// the preparation ends with [`Error::Interrupted`]; the unit under way will be made again.
///
/// # Errors
/// [`Error::Source`] if the input is not what it should be, or not what it was when an earlier attempt began;
/// [`Error::NoSpace`]; [`Error::Io`] and [`Error::File`], the latter also if another process is at work in `out`.
pub fn prepare(
    source: &dyn Source,
    options: &PrepareOptions,
    out: &Path,
    threads: usize,
    events: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<()> {
    let _lock = Lock::acquire(out)?;
    remove_partial_files(out)?;
    let mut begun = PrepareState {
        source: source.name(),
        options: options.clone(),
        inputs: inputs_of(source)?,
        classes: source.classes().to_vec(),
        expected: source.splits().into_iter().map(|split| (split, source.expected(split))).collect(),
        may_miss: source.may_miss(),
    };
    if out.join(INDEX_FILE).is_file() {
        // Nothing is left to do but what a finished preparation was killed before.
        let manifest = Manifest::read(out)?;
        let inputs = finish::list_of(&begun.inputs);
        begun.inputs.clear();
        same(&begun, &finish::begun(&manifest), out)?;
        if inputs != manifest.inputs {
            let reason = "it was made from other input; take another folder".into();
            return Err(Error::Source { path: out.to_owned(), reason });
        }
        finish::check_shards(&manifest, out)?;
        return finish::remove_progress(out);
    }
    let progress = out.join(PROGRESS);
    match read_json(&progress.join(BEGUN_FILE)) {
        Ok(before) => {
            same(&begun, &before, out)?;
            // Leave for images to be missing may be given later.
            write_json(&progress.join(BEGUN_FILE), &begun)?;
        }
        Err(e) if e.is_missing() => {
            only_ours(out)?;
            plan(source, options, out, threads)?.check()?;
            write_json(&progress.join(BEGUN_FILE), &begun)?;
        }
        Err(e) => return Err(e.into()),
    }
    remove_partial_files(&progress)?;
    for split in source.splits() {
        pipeline::run(source, split, options, out, threads, events)?;
    }
    if !options.part.is_whole() {
        return Ok(());
    }
    finish::finish(&begun, out)
}

/// Looks whether a preparation has a folder to itself.
///
/// # Errors
/// [`Error::Layout`] if the folder holds something already.
fn only_ours(out: &Path) -> Result<()> {
    for entry in std::fs::read_dir(out).map_err(crate::error::at("read", out))? {
        let name = entry.map_err(crate::error::at("read", out))?.file_name();
        if name != ".lock" && name != PROGRESS {
            let reason =
                format!("it holds {} already, and a preparation needs a folder of its own", name.display());
            return Err(Error::Layout { path: out.to_owned(), reason });
        }
    }
    Ok(())
}

/// Compares what is begun with what was begun before; leave for images to be missing may differ.
///
/// # Errors
/// [`Error::Source`] with the differences if what is begun is not what was begun before.
fn same(begun: &PrepareState, before: &PrepareState, out: &Path) -> Result<()> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, before: &dyn Fn() -> String, now: &dyn Fn() -> String| {
        let (before, now) = (before(), now());
        if before != now {
            differences.push(format!("{what}: {before} before, {now} now"));
        }
    };
    compare("source", &|| before.source.clone(), &|| begun.source.clone());
    compare("options", &|| before.options.to_string(), &|| begun.options.to_string());
    let names = |begun: &PrepareState| {
        begun.classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    compare("classes", &|| names(before), &|| names(begun));
    compare("number of inputs", &|| before.inputs.len().to_string(), &|| begun.inputs.len().to_string());
    let tell = |i: &Input| format!("{} of {} bytes, changed {} ns after 1970", i.path, i.bytes, i.modified);
    for (old, new) in before.inputs.iter().zip(&begun.inputs) {
        compare("input", &|| tell(old), &|| tell(new));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let what =
        "another preparation was begun here, or its input has changed; remove it, or take another folder";
    differences.truncate(10);
    Err(Error::Source { path: out.to_owned(), reason: format!("{what}: {}", differences.join("; ")) })
}

fn inputs_of(source: &dyn Source) -> Result<Vec<Input>> {
    let look = |name: &String| {
        let path = source.root().join(name);
        let metadata = std::fs::metadata(&path).map_err(crate::error::at("read", &path))?;
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
        let modified = modified.map_or(0, |since| since.as_nanos());
        Ok(Input { path: name.clone(), bytes: metadata.len(), modified })
    };
    source.inputs().iter().map(look).collect()
}

impl std::fmt::Display for PrepareOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = self
            .smallest_side
            .map_or("images of their own size".into(), |side| format!("smallest side {side}"));
        let encoding = match self.encoding {
            Encoding::Jpeg { quality } => format!("JPEG of quality {quality}"),
            Encoding::Raw => "raw pixels".to_owned(),
        };
        write!(f, "{side}, {encoding}, shards of {} bytes, part {}", self.shard_bytes, self.part)
    }
}
