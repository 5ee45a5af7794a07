//! Joins the records of a split's units into its index, its names and its part of the manifest.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use vgg_files::read_checksummed_json;

use super::hashed::Hashed;
use super::unit::{Placed, UnitRecord, count_path, record_path};
use crate::error::io_error;
use crate::shards::{IndexFile, Record};
use crate::{
    Anomaly, Error, PixelStatistics, Result, ShardFile, Skipped, Split, SplitManifest, eigenvectors,
};

/// Writes the index and the names of a split, and returns its manifest.
///
/// # Errors
/// [`Error::Source`] if images were lost or none can be used; [`Error::Missing`] or [`Error::Layout`] if a
/// shard does not exist or has another length; [`Error::File`] if a record cannot be read.
pub(super) fn join(out: &Path, split: Split, classes: usize) -> Result<SplitManifest> {
    let units: usize = read_checksummed_json(&count_path(out, split))?;
    let mut indices = Indices::create(out, split)?;
    let mut whole = Whole { of_class: vec![0; classes], ..Whole::default() };
    for unit in 0..units {
        let path = record_path(out, split, unit);
        let record: UnitRecord = read_checksummed_json(&path)?;
        whole.add_unit(record, &path, &mut indices)?;
    }
    let (index, names) = (indices.index.commit()?, indices.names.commit()?);
    whole.shards.iter().try_for_each(|shard| check_shard(shard, out))?;
    let refuse = |reason: String| Err(Error::Source { path: out.to_owned(), reason });
    if whole.lost {
        return refuse(format!(
            "images of the split {} were lost; remove the folder and prepare the data set again",
            split.name()
        ));
    }
    if whole.shards.is_empty() {
        let first = whole.skipped.first();
        let first = first.map_or(String::new(), |image| format!(": {}: {}", image.path, image.reason));
        return refuse(format!("no image of the split {} can be used{first}", split.name()));
    }
    Ok(whole.manifest(index, names))
}

/// Checks the length of a shard.
///
/// # Errors
/// [`Error::Missing`] or [`Error::Layout`] if the shard does not exist or has another length.
pub(super) fn check_shard(shard: &ShardFile, out: &Path) -> Result<()> {
    let path = out.join(&shard.file);
    let bytes = fs::metadata(&path).map_err(io_error("read", &path))?.len();
    if bytes == shard.bytes {
        return Ok(());
    }
    let reason = format!("{} has {bytes} bytes, but {} were written", shard.file, shard.bytes);
    Err(Error::Layout { path: out.to_owned(), reason })
}

/// The joined records of all units so far.
#[derive(Default)]
struct Whole {
    of_class: Vec<u64>,
    shards: Vec<ShardFile>,
    statistics: PixelStatistics,
    smallest_sides: BTreeMap<u32, u64>,
    anomalies: Vec<Anomaly>,
    skipped: Vec<Skipped>,
    /// Whether a unit has fewer or more images, stored and skipped, than its input.
    lost: bool,
}

impl Whole {
    fn add_unit(&mut self, unit: UnitRecord, path: &Path, indices: &mut Indices) -> Result<()> {
        let before = self.shards.len() as u32;
        for placed in unit.images {
            let images = self.of_class.get_mut(placed.target as usize).ok_or_else(|| Error::Source {
                path: path.to_owned(),
                reason: format!("{} has the class {}, which does not exist", placed.name, placed.target),
            })?;
            *images += 1;
            indices.add(before, placed)?;
        }
        let came_out = unit.shards.iter().map(|s| s.images).sum::<u64>() + unit.skipped.len() as u64;
        self.lost |= unit.entries != came_out;
        self.shards.extend(unit.shards);
        self.statistics.merge(&unit.statistics);
        for (side, count) in unit.smallest_sides {
            *self.smallest_sides.entry(side).or_default() += count;
        }
        self.anomalies.extend(unit.anomalies);
        self.skipped.extend(unit.skipped);
        Ok(())
    }

    fn manifest(self, index: IndexFile, names: IndexFile) -> SplitManifest {
        let statistics = self.statistics;
        let (eigenvalues, eigenvectors) = eigenvectors(statistics.covariance());
        SplitManifest {
            images: self.of_class.iter().sum(),
            of_class: self.of_class,
            index,
            names,
            shards: self.shards,
            statistics,
            mean_rgb: statistics.mean(),
            covariance: statistics.covariance(),
            eigenvalues,
            eigenvectors,
            smallest_sides: self.smallest_sides,
            anomalies: self.anomalies,
            skipped: self.skipped,
            missing: Vec::new(),
        }
    }
}

/// The files with the index records and the names of the images.
struct Indices {
    index: Index,
    names: Index,
}

struct Index {
    file: String,
    path: PathBuf,
    out: Hashed,
}

impl Indices {
    fn create(out: &Path, split: Split) -> Result<Indices> {
        let create = |extension: &str| {
            let file = format!("{}.{extension}", split.name());
            let path = out.join(&file);
            Ok::<_, Error>(Index { file, out: Hashed::create(&path)?, path })
        };
        Ok(Indices { index: create("index")?, names: create("names")? })
    }

    /// Adds an image of a unit whose first shard has number `before`.
    fn add(&mut self, before: u32, placed: Placed) -> Result<()> {
        let Placed { name, shard, offset, bytes, crc32, target } = placed;
        let (line, shard) = (self.names.out.bytes(), before + shard);
        self.names.write(name.as_bytes())?;
        self.names.write(b"\n")?;
        self.index.write(&Record { offset, name: line, bytes, shard, target, crc32 }.to_bytes())
    }
}

impl Index {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(io_error("write", &self.path))
    }

    fn commit(self) -> Result<IndexFile> {
        let (bytes, blake3) = self.out.commit()?;
        Ok(IndexFile { file: self.file, bytes, blake3 })
    }
}
