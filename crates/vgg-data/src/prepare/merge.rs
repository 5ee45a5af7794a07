//! [`merge`]: joins the parts of one preparation, written on several machines, into a data set.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vgg_error::printable;
use vgg_files::{Lock, read_checksummed_json, write_bytes, write_with};

use super::finish::{finish, remove_progress};
use super::unit::{count_path, record_path};
use super::{BEGUN_FILE, PROGRESS, PrepareState};
use crate::error::io_error;
use crate::{Error, INDEX_FILE, Partition, Result};

/// Joins the folders with the parts of one preparation into `out`, an empty folder. The result is identical
/// to a preparation in one part. Shards are hard-linked, or copied if that fails. The parts are not changed.
///
/// # Errors
/// [`Error::Source`] if a part is missing, unfinished, given twice, or of another preparation;
/// [`Error::Layout`] if `out` has other files; [`Error::Incomplete`] if images are missing and neither
/// `allow_incomplete` nor a part allows it; [`Error::Io`] or [`Error::File`] on an I/O error.
pub fn merge(parts: &[PathBuf], out: &Path, allow_incomplete: bool) -> Result<()> {
    let _lock = Lock::acquire(out)?;
    begin_anew(out)?;
    let refuse = |path: &Path, reason: String| Error::Source { path: path.to_owned(), reason };
    let mut whole: Option<PrepareState> = None;
    let mut seen = BTreeMap::new();
    for dir in parts {
        let mut state: PrepareState = match read_checksummed_json(&dir.join(PROGRESS).join(BEGUN_FILE)) {
            Err(e) if e.is_missing() && dir.join(INDEX_FILE).is_file() => {
                return Err(refuse(dir, "it is a whole data set, not a part of one".into()));
            }
            Err(e) if e.is_missing() => {
                return Err(refuse(dir, "it does not contain a part of a preparation".into()));
            }
            other => other?,
        };
        let part = state.options.part;
        if let Some(first) = seen.insert(part, dir) {
            return Err(refuse(dir, format!("it is part {part}, and so is {}", printable(first))));
        }
        state.options.part = Partition::WHOLE;
        // Each machine may have its own copy of the input, with other modification times.
        state.inputs.iter_mut().for_each(|input| input.modified = 0);
        match &mut whole {
            None => whole = Some(state),
            Some(whole) => {
                super::same(&state, whole, dir)?;
                whole.allow_missing |= state.allow_missing;
            }
        }
    }
    let Some(mut state) = whole else { return Err(refuse(out, "no parts to merge were given".into())) };
    state.allow_missing |= allow_incomplete;
    let count = seen.keys().next_back().map_or(1, |part| part.count);
    let mut all = (0..count).map(|index| Partition { index, count });
    if let Some(missing) = all.find(|part| !seen.contains_key(part)) {
        return Err(refuse(out, format!("part {missing} is missing among the given folders")));
    }
    let progress = out.join(PROGRESS);
    write_bytes(&progress.join(MERGES), b"")?;
    for dir in parts {
        let splits: Vec<&str> = state.expected.keys().map(|split| split.name()).collect();
        let ours = |name: &str| splits.iter().any(|split| name.starts_with(split));
        bring(dir, out, &|name| name.ends_with(".tar") && ours(name))?;
        bring(&dir.join(PROGRESS), &progress, &|name| name.ends_with(".json") && ours(name))?;
    }
    for &split in state.expected.keys() {
        let units: usize = read_checksummed_json(&count_path(out, split))?;
        if let Some(unit) = (0..units).find(|&unit| !record_path(out, split, unit).is_file()) {
            let part = Partition { index: unit % count, count };
            let reason = format!("part {part} is not finished; run its preparation again");
            return Err(refuse(seen[&part], reason));
        }
    }
    finish(&state, out)
}

/// Marker file of an unfinished merge. It states that the folder only has files that the parts also have.
const MERGES: &str = "merge";

/// Removes the files of an earlier unfinished merge from `out`, and checks that it has no other files.
fn begin_anew(out: &Path) -> Result<()> {
    if out.join(PROGRESS).join(MERGES).is_file() && !out.join(INDEX_FILE).is_file() {
        for entry in fs::read_dir(out).map_err(io_error("read", out))? {
            let path = entry.map_err(io_error("read", out))?.path();
            if path.is_file() && !path.ends_with(".lock") {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
    }
    super::only_ours(out)?;
    remove_progress(out)
}

/// Hard-links or copies the files of a folder whose names `which` accepts.
fn bring(from: &Path, to: &Path, which: &dyn Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(from).map_err(io_error("read", from))? {
        let path = entry.map_err(io_error("read", from))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let target = to.join(&name);
        if !which(&name) || name.starts_with('.') || target.exists() {
            continue;
        }
        if fs::hard_link(&path, &target).is_err() {
            let mut file = vgg_files::open_regular(&path).map_err(io_error("read", &path))?;
            write_with(&target, |out| std::io::copy(&mut file, out).map(drop))?;
        }
    }
    Ok(())
}
