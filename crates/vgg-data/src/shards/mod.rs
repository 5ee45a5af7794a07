//! Prepared data sets: images in tar files, found by an index, so that any of 14 million is read at once.
//!
//! A directory holds `index.json` (the [`Manifest`]), for each split an index of records of 24 bytes, and the shards:
//! tar files that WebDataset reads too. All but `index.json` is mapped into memory, not read.

mod manifest;
mod record;
#[cfg(feature = "prepare")]
mod verify;

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use vgg_files::{Hash, hash_bytes, read_json};

pub use manifest::{Encoding, INDEX_FILE, InputList, LeftOut, Manifest, Odd, ShardFile, SplitManifest};
pub(crate) use record::{BLOCK, Record};
#[cfg(feature = "prepare")]
pub use verify::{Verified, verify};

use crate::error::at;
use crate::{Error, PixelStatistics, Result, Split};

/// One split of a prepared data set.
pub(crate) struct Shards {
    root: PathBuf,
    manifest: Manifest,
    split: Split,
    index: Mmap,
    files: Vec<Mmap>,
    images: usize,
}

impl Shards {
    /// Whether a directory holds a prepared data set.
    pub(crate) fn are_in(root: &Path) -> bool {
        root.join(INDEX_FILE).is_file()
    }

    pub(crate) fn open(root: &Path, split: Split) -> Result<Shards> {
        let layout = |reason: String| Error::Layout { path: root.to_owned(), reason };
        let manifest: Manifest = read_json(&root.join(INDEX_FILE)).map_err(|e| layout(e.to_string()))?;
        manifest.check().map_err(layout)?;
        let own = manifest.splits.get(&split).ok_or_else(|| Error::Missing {
            path: root.to_owned(),
            reason: format!("it was prepared without a split {}", split.name()),
        })?;
        let images = own.images as usize;
        let index = map(root, &own.index, images as u64 * Record::BYTES as u64)?;
        let files =
            own.shards.iter().map(|shard| map(root, &shard.file, shard.bytes)).collect::<Result<Vec<_>>>()?;
        if images == 0 {
            let reason = format!("its split {} has no images", split.name());
            return Err(Error::Missing { path: root.to_owned(), reason });
        }
        let shards = Shards { root: root.to_owned(), split, index, files, images, manifest };
        shards.check()?;
        Ok(shards)
    }

    /// # Errors
    /// [`Error::Layout`] if a record points outside of the classes or of a shard.
    fn check(&self) -> Result<()> {
        let classes = self.manifest.classes.len() as u32;
        for index in 0..self.images {
            let Record { offset, bytes, shard, target } = self.record(index);
            let end = offset.checked_add(u64::from(bytes));
            let inside =
                self.files.get(shard as usize).zip(end).is_some_and(|(file, end)| end <= file.len() as u64);
            if target >= classes || !inside || offset < BLOCK as u64 {
                let split = self.split.name();
                let reason =
                    format!("the record of image {index} in {split} is damaged; run vgg data verify");
                return Err(Error::Layout { path: self.root.clone(), reason });
            }
        }
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn classes(&self) -> &[String] {
        &self.manifest.classes
    }

    pub(crate) fn len(&self) -> usize {
        self.images
    }

    pub(crate) fn smallest_side(&self) -> Option<usize> {
        self.manifest.smallest_side
    }

    pub(crate) fn statistics(&self) -> PixelStatistics {
        self.own().statistics
    }

    /// Of what all shards hold.
    pub(crate) fn hash(&self) -> Hash {
        let mut text = self.manifest.classes.join("\n");
        for shard in &self.own().shards {
            text.push('\n');
            text.push_str(shard.blake3.as_str());
        }
        hash_bytes(text.as_bytes())
    }

    pub(crate) fn target(&self, index: usize) -> u32 {
        self.record(index).target
    }

    /// The shard's name and the image's within it.
    pub(crate) fn path(&self, index: usize) -> String {
        let record = self.record(index);
        let shard = self.own().shards.get(record.shard as usize).map_or("?", |shard| &shard.file);
        // The name stands in the block before the contents.
        let header = self.files.get(record.shard as usize).and_then(|file| {
            let end = usize::try_from(record.offset).ok()?;
            file.get(end.checked_sub(BLOCK)?..end)
        });
        let name = header.map_or(String::new(), record::name_in);
        format!("{shard}/{name}")
    }

    /// The file of an image.
    ///
    /// # Errors
    /// [`Error::Layout`] if the index points outside of its shard.
    pub(crate) fn bytes(&self, index: usize) -> Result<&[u8]> {
        let record = self.record(index);
        let found = self.files.get(record.shard as usize).and_then(|file| {
            let start = usize::try_from(record.offset).ok()?;
            file.get(start..start.checked_add(record.bytes as usize)?)
        });
        found.ok_or_else(|| Error::Layout {
            path: self.root.clone(),
            reason: format!(
                "image {index} of {} is outside of its shard; run vgg data verify",
                self.split.name()
            ),
        })
    }

    fn record(&self, index: usize) -> Record {
        let start = index * Record::BYTES;
        let bytes = self.index.get(start..start + Record::BYTES).and_then(|bytes| bytes.try_into().ok());
        Record::from_bytes(bytes.unwrap_or(&[0xff; Record::BYTES]))
    }

    fn own(&self) -> &SplitManifest {
        // `open` has looked.
        &self.manifest.splits[&self.split]
    }
}

/// A file of a prepared set in memory, if it has the length that it should.
fn map(root: &Path, name: &str, bytes: u64) -> Result<Mmap> {
    let path = root.join(name);
    let file = File::open(&path).map_err(at("open", &path))?;
    let length = file.metadata().map_err(at("read", &path))?.len();
    if length != bytes {
        let reason = format!("{name} has {length} bytes where the index says {bytes}");
        return Err(Error::Layout { path: root.to_owned(), reason });
    }
    if length == 0 {
        let empty = memmap2::MmapMut::map_anon(1).and_then(memmap2::MmapMut::make_read_only);
        return empty.map_err(at("map", &path));
    }
    // SAFETY: prepared files are written once and renamed into place, and never changed; whoever truncates one while it is
    // in use ends the program.
    unsafe { Mmap::map(&file) }.map_err(at("map", &path))
}
