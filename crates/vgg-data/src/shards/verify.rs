//! [`verify`]: checks a prepared data set against its hashes and its index.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use vgg_files::hash_file;

use super::file::{LocalShard, check_contents};
use super::index::Index;
use super::{Manifest, Record, ShardFile};
use crate::error::io_error;
use crate::{Error, Result};

/// Result of [`verify`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Number of shards that were read.
    pub shards: usize,
    /// Number of images in the valid shards.
    pub images: u64,
    /// Problems, each with the file name.
    pub problems: Vec<String>,
}

/// Reads all files of a prepared data set and checks hashes, counts, names and classes. `progress` is called
/// with the number of bytes of shards that have been read.
///
/// # Errors
/// [`Error::Missing`], [`Error::Layout`] or [`Error::File`] if the manifest cannot be read. Other problems
/// are in the result.
pub fn verify(root: &Path, progress: &mut dyn FnMut(u64)) -> Result<Verified> {
    let manifest = match Manifest::read(root) {
        Err(Error::File(e)) if e.is_missing() => {
            let reason =
                "no index.json: this is not a prepared data set, or its preparation is incomplete".into();
            return Err(Error::Missing { path: root.to_owned(), reason });
        }
        other => other?,
    };
    let (mut verified, mut bytes) = (Verified::default(), 0);
    if let Some(Err(problem)) =
        manifest.class_list.as_ref().map(|list| check_contents(root, &list.file, list))
    {
        verified.problems.push(problem.to_string());
    }
    for (split, own) in &manifest.splits {
        let index = match Index::open(root, &manifest, *split) {
            Ok(index) => index,
            Err(problem) => {
                verified.problems.push(problem.to_string());
                continue;
            }
        };
        let mut first = 0;
        for shard in &own.shards {
            let end = first + shard.images as usize;
            match members(root, shard, &index, first..end) {
                Ok(images) => verified.images += images,
                Err(problem) => verified.problems.push(format!("{}: {problem}", shard.file)),
            }
            first = end;
            verified.shards += 1;
            bytes += shard.bytes;
            progress(bytes);
        }
    }
    Ok(verified)
}

/// Checks hash, members and index records of a shard, whose images are those of `range`. Returns their number.
fn members(
    root: &Path,
    shard: &ShardFile,
    index: &Index,
    range: Range<usize>,
) -> std::result::Result<u64, String> {
    let path = root.join(&shard.file);
    // Its length, before it is read: it may be a device.
    drop(LocalShard::open(root, 0, shard).map_err(|e| e.to_string())?);
    if hash_file(&path).map_err(|e| e.to_string())? != shard.blake3 {
        return Err("its hash differs from index.json: the file is damaged".into());
    }
    let file = File::open(&path).map_err(io_error("open", &path)).map_err(|e| e.to_string())?;
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    let (mut image, mut images) = (String::new(), 0);
    let mut records = range.map(|image| index.record(image));
    let mut record = None;
    let damaged = |e: std::io::Error| e.to_string();
    for member in archive.entries().map_err(damaged)? {
        let mut member = member.map_err(damaged)?;
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let (key, extension) =
            name.split_once('.').ok_or_else(|| format!("its member {name} has no extension"))?;
        match extension {
            "json" => {}
            "cls" => {
                let mut text = String::new();
                member.read_to_string(&mut text).map_err(damaged)?;
                let record: Record =
                    record.take().ok_or_else(|| format!("{name} does not follow an image"))?;
                let target: u32 = text.parse().map_err(|_| format!("{name} has no valid class"))?;
                if key != image || target != record.target {
                    return Err(format!(
                        "{name} does not belong to the preceding image, or its class differs from the index"
                    ));
                }
                images += 1;
            }
            _ => {
                let next = records.next().ok_or("some of its images are not in the index")?;
                let next = next.map_err(|e| e.to_string())?;
                if (next.offset, u64::from(next.bytes)) != (member.raw_file_position(), member.size()) {
                    return Err(format!("{name} is not at the position in the index"));
                }
                if index.name(&next).map_err(|e| e.to_string())? != name.as_bytes() {
                    return Err(format!("{name} has another name in the list of names"));
                }
                let mut bytes = Vec::new();
                member.read_to_end(&mut bytes).map_err(damaged)?;
                if crc32fast::hash(&bytes) != next.crc32 {
                    return Err(format!("the CRC-32 of {name} differs from the index"));
                }
                image = key.to_owned();
                record = Some(next);
            }
        }
    }
    if images != shard.images || record.is_some() {
        return Err(format!("it has {images} images instead of {}", shard.images));
    }
    Ok(images)
}
