//! From the parts of one preparation, made on several machines, to a data set.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vgg_files::{Lock, read_json, write_bytes, write_with};

use super::finish::{finish, remove_progress};
use super::unit::{count_path, record_path};
use super::{BEGUN_FILE, PROGRESS, PrepareState};
use crate::error::at;
use crate::{Error, INDEX_FILE, Partition, Result};

/// Joins directories that hold the parts of one preparation into `out`, an empty folder, which becomes the same as if there
/// had been one part. Shards are linked where that is possible, and copied otherwise; the parts stay as they are.
///
/// # Errors
/// [`Error::Source`] if a part is missing, is there twice, or is not of the same preparation; [`Error::Layout`] if `out` holds
/// something; [`Error::Io`].
pub fn merge(parts: &[PathBuf], out: &Path, allow_incomplete: bool) -> Result<()> {
    let _lock = Lock::acquire(out)?;
    begin_anew(out)?;
    let refuse = |path: &Path, reason: String| Error::Source { path: path.to_owned(), reason };
    let mut whole: Option<PrepareState> = None;
    let mut seen = BTreeMap::new();
    for dir in parts {
        let mut begun: PrepareState = match read_json(&dir.join(PROGRESS).join(BEGUN_FILE)) {
            Err(e) if e.is_missing() && dir.join(INDEX_FILE).is_file() => {
                return Err(refuse(dir, "it is a whole data set, no part of one".into()));
            }
            Err(e) if e.is_missing() => return Err(refuse(dir, "it holds no part of a preparation".into())),
            other => other?,
        };
        let part = begun.options.part;
        if let Some(first) = seen.insert(part, dir) {
            return Err(refuse(dir, format!("it is part {part}, as {} is", first.display())));
        }
        begun.options.part = Partition::WHOLE;
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
    let count = seen.keys().next_back().map_or(1, |part| part.count);
    let mut all = (0..count).map(|index| Partition { index, count });
    if let Some(missing) = all.find(|part| !seen.contains_key(part)) {
        return Err(refuse(out, format!("part {missing} is missing")));
    }
    let progress = out.join(PROGRESS);
    write_bytes(&progress.join(MERGES), b"")?;
    for dir in parts {
        let splits: Vec<&str> = begun.expected.keys().map(|split| split.name()).collect();
        let ours = |name: &str| splits.iter().any(|split| name.starts_with(split));
        bring(dir, out, &|name| name.ends_with(".tar") && ours(name))?;
        bring(&dir.join(PROGRESS), &progress, &|name| name.ends_with(".json") && ours(name))?;
    }
    for &split in begun.expected.keys() {
        let units: usize = read_json(&count_path(out, split))?;
        if let Some(unit) = (0..units).find(|&unit| !record_path(out, split, unit).is_file()) {
            let part = Partition { index: unit % count, count };
            let reason = format!("part {part} is not finished; give its command again");
            return Err(refuse(seen[&part], reason));
        }
    }
    finish(&begun, out)
}

/// Says that the files of a folder are those of a merge, which lie in its parts as well.
const MERGES: &str = "merge";

/// Looks whether a merge has a folder to itself; what an earlier one left there, which failed or was killed, is removed.
fn begin_anew(out: &Path) -> Result<()> {
    if out.join(PROGRESS).join(MERGES).is_file() && !out.join(INDEX_FILE).is_file() {
        for entry in fs::read_dir(out).map_err(at("read", out))? {
            let path = entry.map_err(at("read", out))?.path();
            if path.is_file() && !path.ends_with(".lock") {
                fs::remove_file(&path).map_err(at("remove", &path))?;
            }
        }
    }
    super::only_ours(out)?;
    remove_progress(out)
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
