//! [`verify`]: checks a prepared data set against its hashes and its index.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use vgg_error::printable;
use vgg_files::{hash_bytes, hash_file, read_bytes};

use super::{INDEX_FILE, IndexFile, Manifest, Record, ShardFile};
use crate::error::io_error;
use crate::{Error, Result, Split};

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
    if let Some(Err(problem)) = manifest.class_list.as_ref().map(|list| contents(root, list)) {
        verified.problems.push(problem);
    }
    for (split, own) in &manifest.splits {
        let (records, names) =
            match contents(root, &own.index).and_then(|i| Ok((i, contents(root, &own.names)?))) {
                Ok(indices) => indices,
                Err(problem) => {
                    verified.problems.push(problem);
                    continue;
                }
            };
        let records: Vec<Record> =
            records.as_chunks::<{ Record::BYTES }>().0.iter().map(Record::from_bytes).collect();
        let mut of_class = vec![0; manifest.classes.len()];
        for (number, shard) in own.shards.iter().enumerate() {
            // Records are sorted by shard.
            let first = records.partition_point(|r| (r.shard as usize) < number);
            let end = records.partition_point(|r| r.shard as usize <= number);
            match members(root, shard, &records[first..end], &names, &mut of_class) {
                Ok(images) => verified.images += images,
                Err(problem) => verified.problems.push(format!("{}: {problem}", shard.file)),
            }
            verified.shards += 1;
            bytes += shard.bytes;
            progress(bytes);
        }
        if of_class != own.of_class && verified.problems.is_empty() {
            verified.problems.push(counts(*split));
        }
    }
    Ok(verified)
}

fn counts(split: Split) -> String {
    format!("the numbers of images per class in {} differ from {INDEX_FILE}", split.name())
}

fn contents(root: &Path, file: &IndexFile) -> std::result::Result<Vec<u8>, String> {
    let path = root.join(&file.file);
    let bytes = read_bytes(&path).map_err(|e| e.to_string())?;
    if hash_bytes(&bytes) != file.blake3 {
        return Err(format!("{}: its hash differs from index.json: the file is damaged", printable(&path)));
    }
    Ok(bytes)
}

/// Checks hash, members and index records of a shard, and returns its number of images.
fn members(
    root: &Path,
    shard: &ShardFile,
    records: &[Record],
    names: &[u8],
    of_class: &mut [u64],
) -> std::result::Result<u64, String> {
    let path = root.join(&shard.file);
    if hash_file(&path).map_err(|e| e.to_string())? != shard.blake3 {
        return Err("its hash differs from index.json: the file is damaged".into());
    }
    let file = File::open(&path).map_err(io_error("open", &path)).map_err(|e| e.to_string())?;
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    let (mut image, mut images) = (String::new(), 0);
    let mut records = records.iter();
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
                let record = records.next().ok_or("some of its images are not in the index")?;
                let target: u32 = text.parse().map_err(|_| format!("{name} has no valid class"))?;
                if key != image || target != record.target {
                    return Err(format!(
                        "{name} does not belong to the preceding image, or its class differs from the index"
                    ));
                }
                *of_class.get_mut(target as usize).ok_or_else(|| format!("{name} has no valid class"))? += 1;
                images += 1;
            }
            _ => {
                let place = (member.raw_file_position(), member.size());
                let record = records.as_slice().first();
                if record.map(|r| (r.offset, u64::from(r.bytes))) != Some(place) {
                    return Err(format!("{name} is not at the position in the index"));
                }
                let line = record.and_then(|record| names.get(record.name as usize..)).unwrap_or_default();
                if line.split(|&byte| byte == b'\n').next() != Some(name.as_bytes()) {
                    return Err(format!("{name} has another name in the list of names"));
                }
                image = key.to_owned();
            }
        }
    }
    if images != shard.images || records.next().is_some() {
        return Err(format!("it has {images} images instead of {}", shard.images));
    }
    Ok(images)
}
