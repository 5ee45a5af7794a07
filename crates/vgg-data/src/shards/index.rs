//! [`Index`]: the records and names of a split's images.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::file::{check_contents, read_at};
use super::{Manifest, Record, ShardFile};
use crate::error::io_error;
use crate::{Error, Result, Split};

/// Longest name of an image that is read, in bytes. Names have at most 100.
const NAME_BYTES: u64 = 256;

/// Records and names of the images of a split. Only the classes are in memory, 4 bytes per image; everything else is
/// read when it is needed.
pub(crate) struct Index {
    path: PathBuf,
    records: File,
    names: File,
    names_bytes: u64,
    shard_bytes: Vec<u64>,
    targets: Vec<u32>,
}

impl Index {
    /// Opens the index and the list of names of a split in `root`, and checks their hashes and all records.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Io`] if a file cannot be read; [`Error::Layout`] if one differs from the
    /// manifest, or the class, the shard, the position or the name of an image is invalid.
    pub(crate) fn open(root: &Path, manifest: &Manifest, split: Split) -> Result<Index> {
        let own = &manifest.splits[&split];
        Index::open_copies(root, [&own.index.file, &own.names.file], manifest, split)
    }

    /// As [`Index::open`], for copies of the index and the list of names with other file names.
    pub(super) fn open_copies(
        root: &Path,
        files: [&str; 2],
        manifest: &Manifest,
        split: Split,
    ) -> Result<Index> {
        let own = &manifest.splits[&split];
        let path = root.join(files[0]);
        let mut index = Index {
            records: check_contents(root, files[0], &own.index)?,
            names: check_contents(root, files[1], &own.names)?,
            names_bytes: own.names.bytes,
            shard_bytes: own.shards.iter().map(|shard| shard.bytes).collect(),
            targets: Vec::new(),
            path,
        };
        index.targets.try_reserve_exact(own.images as usize).map_err(|_| {
            let reason = format!("cannot allocate {} bytes for the classes of the images", 4 * own.images);
            Error::Io { action: "read", path: index.path.clone(), reason }
        })?;
        let refuse = |reason: String| Error::Layout { path: root.to_owned(), reason };
        let mut of_class = vec![0; manifest.classes.len()];
        let mut of_shard = vec![0; own.shards.len()];
        let mut reader = BufReader::new(&index.records);
        for image in 0..own.images {
            let mut bytes = [0; Record::BYTES];
            reader.read_exact(&mut bytes).map_err(io_error("read", &index.path))?;
            let record = Record::from_bytes(&bytes);
            let class = of_class.get_mut(record.target as usize);
            let Some(class) = class.filter(|_| index.is_valid(&record)) else {
                let split = split.name();
                return Err(refuse(format!(
                    "the record of image {image} in the index of {split} is invalid"
                )));
            };
            *class += 1;
            of_shard[record.shard as usize] += 1;
            index.targets.push(record.target);
        }
        let images_of = |shard: &ShardFile| shard.images;
        if of_class != own.of_class || !own.shards.iter().map(images_of).eq(of_shard) {
            let split = split.name();
            return Err(refuse(format!(
                "the index of {split} has other numbers of images per class or shard than the manifest"
            )));
        }
        Ok(index)
    }

    /// Number of images.
    pub(super) fn len(&self) -> usize {
        self.targets.len()
    }

    /// Class index of an image.
    pub(super) fn target(&self, image: usize) -> u32 {
        self.targets[image]
    }

    /// The record of an image.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, or has become invalid since the index was opened.
    pub(super) fn record(&self, image: usize) -> Result<Record> {
        let mut bytes = [0; Record::BYTES];
        let start = (image * Record::BYTES) as u64;
        read_at(&self.records, &mut bytes, start).map_err(io_error("read", &self.path))?;
        let record = Record::from_bytes(&bytes);
        if self.is_valid(&record) && record.target == self.targets[image] {
            return Ok(record);
        }
        let reason = format!("the record of image {image} has changed while the index was in use");
        Err(Error::Io { action: "read", path: self.path.clone(), reason })
    }

    /// The name of an image in its shard.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub(super) fn name(&self, record: &Record) -> Result<Vec<u8>> {
        let mut line = vec![0; self.names_bytes.saturating_sub(record.name).min(NAME_BYTES) as usize];
        read_at(&self.names, &mut line, record.name).map_err(io_error("read", &self.path))?;
        line.truncate(line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len()));
        Ok(line)
    }

    /// Whether shard, position and name of an image are in range.
    fn is_valid(&self, record: &Record) -> bool {
        let end = record.offset.checked_add(record.bytes.into());
        let shard_bytes = self.shard_bytes.get(record.shard as usize);
        let in_shard = end.zip(shard_bytes).is_some_and(|(end, &bytes)| end <= bytes);
        in_shard && record.offset >= super::BLOCK as u64 && record.name < self.names_bytes
    }
}
