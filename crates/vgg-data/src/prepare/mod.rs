//! Preparation: converts a published data set to shards.
//!
//! A [`Source`] lists its images in a fixed order. They are grouped into units of limited size. The shards of
//! a unit depend only on the unit, so an interrupted preparation keeps its finished units, and several
//! machines can share the units.

mod archive;
mod boxes;
mod devkit;
mod encode;
mod entry;
mod estimate;
mod finish;
mod hashed;
mod ilsvrc;
mod join;
mod known_anomalies;
mod layouts;
mod matlab;
mod merge;
mod pipeline;
mod unit;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use vgg_error::printable;
use vgg_files::{Lock, read_checksummed_json, remove_partial_files, write_checksummed_json};

pub use entry::{BoundingBox, Class, Entry};
pub use estimate::{Estimate, estimate};
pub use ilsvrc::{Ilsvrc, IlsvrcOptions};
pub use known_anomalies::unrecorded_anomalies;
pub use layouts::{Files, Layout};
pub use merge::merge;

use crate::shards::UNFINISHED as PROGRESS;
use crate::{Encoding, Error, INDEX_FILE, Manifest, Partition, Result, Split};

/// A published data set.
pub trait Source {
    /// Name of the source for messages and the manifest.
    fn name(&self) -> String;
    /// The classes, in order of class index.
    fn classes(&self) -> &[Class];
    /// The splits of the source.
    fn splits(&self) -> Vec<Split>;
    /// Root folder of the input files.
    fn root(&self) -> &Path;
    /// All input files, relative to the root, with `/` as separator.
    fn inputs(&self) -> &[String];
    /// Passes every image of a split to `consume`, always in the same order, and checks the known checksums.
    ///
    /// # Errors
    /// Errors of `consume`; [`Error::Source`] if the input is damaged or has another layout;
    /// [`Error::Checksum`] if a checksum differs; [`Error::Missing`] or [`Error::Io`] if a file cannot be
    /// read.
    fn entries(&self, split: Split, consume: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()>;
    /// Expected number of images of each class of a split, if known.
    fn expected(&self, split: Split) -> Option<Vec<u64>>;
    /// Whether images may be missing.
    fn allow_missing(&self) -> bool;
    /// Number of images, if known before reading them.
    fn images(&self) -> Option<u64> {
        None
    }
}

/// Settings of a preparation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareOptions {
    /// Smallest side to which larger images are reduced; `None` keeps the original size.
    pub smallest_side: Option<usize>,
    /// Format of the stored images.
    pub encoding: Encoding,
    /// Largest size of a shard, and of the input of a unit, in bytes.
    pub shard_bytes: u64,
    /// The part of the units to prepare.
    pub part: Partition,
}

/// Progress of a preparation.
#[derive(Debug)]
pub enum Event<'a> {
    /// Number of images of the split that have been read, including finished units and other parts.
    Images(Split, u64),
    /// The unit of this number was finished by an earlier preparation and is kept.
    Kept(Split, usize),
    /// An image cannot be used: path and reason.
    Skipped(&'a str, &'a str),
}

/// Source and settings of an unfinished preparation. It is written first; a resumed preparation must match
/// it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PrepareState {
    source: String,
    options: PrepareOptions,
    inputs: Vec<Input>,
    classes: Vec<Class>,
    /// Expected number of images of each class.
    expected: BTreeMap<Split, Option<Vec<u64>>>,
    /// Whether images may be missing.
    allow_missing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Input {
    path: String,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u128,
}

/// Name of the file of the [`PrepareState`], in the folder of unfinished preparations.
const BEGUN_FILE: &str = "prepare.json";

/// Prepares a source in `out`. It resumes an interrupted preparation after its last finished unit. If
/// `options.part` is not the whole, [`merge`] completes the data set.
///
/// # Errors
/// Errors of [`Source::entries`]; [`Error::Source`] if the source, the options or the input differ from an
/// earlier preparation in `out`; [`Error::Layout`] if `out` has other files; [`Error::NoSpace`] if there is
/// too little space; [`Error::Incomplete`] if images are missing and [`Source::allow_missing`] is false;
/// [`Error::Interrupted`] if `events` returns `Break`; [`Error::Io`] or [`Error::File`] if a file cannot be
/// written, or another process is using `out`.
pub fn prepare(
    source: &dyn Source,
    options: &PrepareOptions,
    out: &Path,
    threads: usize,
    events: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<()> {
    let _lock = Lock::acquire(out)?;
    remove_partial_files(out)?;
    let mut state = PrepareState {
        source: source.name(),
        options: options.clone(),
        inputs: inputs_of(source)?,
        classes: source.classes().to_vec(),
        expected: source.splits().into_iter().map(|split| (split, source.expected(split))).collect(),
        allow_missing: source.allow_missing(),
    };
    if out.join(INDEX_FILE).is_file() {
        // The data set is complete, but an earlier process may have been killed before its cleanup.
        let manifest = Manifest::read(out)?;
        let inputs = finish::list_of(&state.inputs);
        state.inputs.clear();
        same(&state, &finish::state(&manifest), out)?;
        if inputs != manifest.inputs {
            let reason = "the data set was prepared from other input; choose another folder".into();
            return Err(Error::Source { path: out.to_owned(), reason });
        }
        finish::check_shards(&manifest, out)?;
        return finish::remove_progress(out);
    }
    let progress = out.join(PROGRESS);
    match read_checksummed_json(&progress.join(BEGUN_FILE)) {
        Ok(before) => {
            same(&state, &before, out)?;
            // `allow_missing` may differ from the earlier preparation.
            write_checksummed_json(&progress.join(BEGUN_FILE), &state)?;
        }
        Err(e) if e.is_missing() => {
            only_ours(out)?;
            estimate(source, options, out, threads)?.check()?;
            write_checksummed_json(&progress.join(BEGUN_FILE), &state)?;
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
    finish::finish(&state, out)
}

/// Checks that a folder is empty, apart from the lock file and the progress folder.
///
/// # Errors
/// [`Error::Layout`] if the folder has other files.
fn only_ours(out: &Path) -> Result<()> {
    for entry in std::fs::read_dir(out).map_err(crate::error::io_error("read", out))? {
        let name = entry.map_err(crate::error::io_error("read", out))?.file_name();
        if name != ".lock" && name != PROGRESS {
            let reason = format!("the output folder must be empty, but contains {}", printable(&name));
            return Err(Error::Layout { path: out.to_owned(), reason });
        }
    }
    Ok(())
}

/// Compares a preparation with an earlier one in the same folder. [`Source::allow_missing`] may differ.
///
/// # Errors
/// [`Error::Source`] with the differences, if there are any.
fn same(state: &PrepareState, before: &PrepareState, out: &Path) -> Result<()> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, before: String, now: String| {
        if before != now {
            differences.push(format!("{what}: {before} before, {now} now"));
        }
    };
    compare("source", before.source.clone(), state.source.clone());
    for ((what, old), (_, new)) in before.options.in_words().into_iter().zip(state.options.in_words()) {
        compare(what, old, new);
    }
    let names = |state: &PrepareState| {
        state.classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    compare("classes", names(before), names(state));
    compare("number of inputs", before.inputs.len().to_string(), state.inputs.len().to_string());
    let tell = |i: &Input| format!("{} ({} bytes, modified {} ns after 1970)", i.path, i.bytes, i.modified);
    for (old, new) in before.inputs.iter().zip(&state.inputs) {
        compare("input", tell(old), tell(new));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let what = "an earlier preparation in this folder had other settings or input; remove it, or choose another folder";
    differences.truncate(10);
    Err(Error::Source { path: out.to_owned(), reason: format!("{what}: {}", differences.join("; ")) })
}

fn inputs_of(source: &dyn Source) -> Result<Vec<Input>> {
    let look = |name: &String| {
        let path = source.root().join(name);
        // A dangling link is a bad image, which is skipped later.
        let metadata = std::fs::metadata(&path).or_else(|e| match std::fs::read_link(&path) {
            Ok(_) => std::fs::symlink_metadata(&path),
            Err(_) => Err(e),
        });
        let metadata = metadata.map_err(crate::error::io_error("read", &path))?;
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
        let modified = modified.map_or(0, |since| since.as_nanos());
        Ok(Input { path: name.clone(), bytes: metadata.len(), modified })
    };
    source.inputs().iter().map(look).collect()
}

impl PrepareOptions {
    /// The name and the value of each option, for messages.
    fn in_words(&self) -> [(&'static str, String); 4] {
        let side = self.smallest_side.map_or("original".into(), |side| side.to_string());
        let encoding = match self.encoding {
            Encoding::Jpeg { quality } => format!("JPEG quality {quality}"),
            Encoding::Raw => "raw pixels".to_owned(),
        };
        let shard = format!("{} MiB", self.shard_bytes as f64 / f64::from(1 << 20));
        [
            ("smallest side", side),
            ("encoding", encoding),
            ("maximum size of a shard", shard),
            ("part", self.part.to_string()),
        ]
    }
}
