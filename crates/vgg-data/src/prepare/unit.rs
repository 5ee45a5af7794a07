//! Writes a unit of the input to one shard, or several if it exceeds the limit, and then its record.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vgg_files::{Hash, Hasher, write_checksummed_json};

use super::PROGRESS;
use super::encode::{Stored, count_side};
use super::entry::Entry;
use super::hashed::Hashed;
use crate::error::io_error;
use crate::shards::BLOCK;
use crate::{Anomaly, PixelStatistics, Result, ShardFile, Skipped, Split};

/// Record of a finished unit. It is written after the shards.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct UnitRecord {
    /// Hash of the names, classes, contents and bounding boxes of all input images.
    pub(super) input: Hash,
    /// Number of input images.
    pub(super) entries: u64,
    pub(super) shards: Vec<ShardFile>,
    pub(super) images: Vec<Placed>,
    pub(super) statistics: PixelStatistics,
    pub(super) smallest_sides: BTreeMap<u32, u64>,
    pub(super) anomalies: Vec<Anomaly>,
    pub(super) skipped: Vec<Skipped>,
}

/// Location of an image in the unit's shards.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Placed {
    pub(super) name: String,
    /// Index of the shard in the unit.
    pub(super) shard: u32,
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) crc32: u32,
    pub(super) target: u32,
}

/// Path of a unit's record.
pub(super) fn record_path(out: &Path, split: Split, unit: usize) -> PathBuf {
    out.join(PROGRESS).join(format!("{}-{unit:06}.json", split.name()))
}

/// Path of the file with the number of units of a split.
pub(super) fn count_path(out: &Path, split: Split) -> PathBuf {
    out.join(PROGRESS).join(format!("{}.json", split.name()))
}

/// Writes the shards of one unit.
pub(super) struct UnitWriter<'a> {
    out: &'a Path,
    split: Split,
    unit: usize,
    limit: u64,
    shard: Option<Shard>,
    record: UnitRecord,
}

struct Shard {
    name: String,
    tar: tar::Builder<Hashed>,
    images: u64,
}

/// The `.json` member of an image.
#[derive(Serialize)]
struct Description<'a> {
    class: &'a str,
    target: u32,
    source: &'a str,
    /// Height of the source image.
    height: usize,
    width: usize,
    /// Height of the stored image.
    stored_height: usize,
    stored_width: usize,
    /// Bounding boxes in pixels of the source image; null if the source has none for this image.
    boxes: Option<&'a [super::BoundingBox]>,
}

impl<'a> UnitWriter<'a> {
    pub(super) fn new(out: &'a Path, split: Split, unit: usize, limit: u64) -> UnitWriter<'a> {
        let record = UnitRecord {
            input: Hasher::default().hash(),
            entries: 0,
            shards: Vec::new(),
            images: Vec::new(),
            statistics: PixelStatistics::default(),
            smallest_sides: BTreeMap::new(),
            anomalies: Vec::new(),
            skipped: Vec::new(),
        };
        UnitWriter { out, split, unit, limit, shard: None, record }
    }

    /// Records an image that cannot be used.
    pub(super) fn leave_out(&mut self, entry: &Entry, reason: String) {
        self.record.skipped.push(Skipped { path: entry.source.clone(), reason });
    }

    /// Appends an image to the current shard.
    pub(super) fn add(&mut self, entry: &Entry, class: &str, stored: &Stored) -> Result<()> {
        let key = entry.key(class);
        let description = Description {
            class,
            target: entry.target,
            source: &entry.source,
            height: stored.came.0,
            width: stored.came.1,
            stored_height: stored.size.0,
            stored_width: stored.size.1,
            boxes: entry.boxes.as_deref(),
        };
        let json = serde_json::to_vec(&description).map_err(|e| crate::Error::Config(e.to_string()))?;
        let target = entry.target.to_string();
        let blocks = |bytes: usize| (BLOCK + bytes.next_multiple_of(BLOCK)) as u64;
        let needed = blocks(stored.bytes.len()) + blocks(target.len()) + blocks(json.len());
        // A tar file ends with two blocks.
        if self
            .shard
            .as_ref()
            .is_some_and(|s| s.tar.get_ref().bytes() + needed + 2 * BLOCK as u64 > self.limit)
        {
            self.close()?;
        }
        let which = self.record.shards.len();
        let path = self.out.join(self.shard_name(which));
        let shard = match &mut self.shard {
            Some(shard) => shard,
            none => none.insert(Shard::create(&path)?),
        };
        let offset = shard.tar.get_ref().bytes() + BLOCK as u64;
        let members =
            [(stored.extension, stored.bytes.as_slice()), ("cls", target.as_bytes()), ("json", &json)];
        for (extension, bytes) in members {
            append(&mut shard.tar, &format!("{key}.{extension}"), bytes).map_err(io_error("write", &path))?;
        }
        shard.images += 1;
        self.record.images.push(Placed {
            name: format!("{key}.{}", stored.extension),
            shard: which as u32,
            offset,
            bytes: stored.bytes.len() as u32,
            crc32: crc32fast::hash(&stored.bytes),
            target: entry.target,
        });
        self.record.statistics.merge(&stored.statistics);
        count_side(&mut self.record.smallest_sides, stored.came.0.min(stored.came.1));
        for what in &stored.anomalies {
            self.record.anomalies.push(Anomaly { path: entry.source.clone(), what: (*what).to_owned() });
        }
        Ok(())
    }

    /// Closes the last shard and writes the record.
    pub(super) fn finish(mut self, input: Hash, entries: u64) -> Result<UnitRecord> {
        self.close()?;
        (self.record.input, self.record.entries) = (input, entries);
        write_checksummed_json(&record_path(self.out, self.split, self.unit), &self.record)?;
        Ok(self.record)
    }

    fn close(&mut self) -> Result<()> {
        let Some(shard) = self.shard.take() else { return Ok(()) };
        let path = self.out.join(&shard.name);
        let hashed = shard.tar.into_inner().map_err(io_error("write", &path))?;
        let (bytes, blake3) = hashed.commit()?;
        self.record.shards.push(ShardFile { file: shard.name, bytes, images: shard.images, blake3 });
        Ok(())
    }

    fn shard_name(&self, which: usize) -> String {
        let (split, unit) = (self.split.name(), self.unit);
        if which == 0 { format!("{split}-{unit:06}.tar") } else { format!("{split}-{unit:06}-{which}.tar") }
    }
}

impl Shard {
    fn create(path: &Path) -> Result<Shard> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Shard { name, tar: tar::Builder::new(Hashed::create(path)?), images: 0 })
    }
}

/// Appends a member whose header depends only on name and contents.
fn append(tar: &mut tar::Builder<Hashed>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_path(name)?;
    header.set_cksum();
    tar.append(&header, bytes)
}
