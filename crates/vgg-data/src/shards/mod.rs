//! Prepared data sets: tar files of images (shards) with an index for random access, for data sets as
//! large as the whole ImageNet (14 million images).
//!
//! A data set has an `index.json` (the [`Manifest`]). Each split has an index of 32-byte records, a list of
//! names, and the shards, which WebDataset can also read. All files but `index.json` are memory-mapped. With
//! the feature `remote`, the data set may be in an object store, from which images are fetched one by one.

mod manifest;
mod mapped;
mod record;
#[cfg(feature = "remote")]
mod remote;
mod size_histogram;
#[cfg(feature = "prepare")]
mod verify;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use vgg_files::Hash;

pub use manifest::{
    Anomaly, Encoding, INDEX_FILE, IndexFile, InputList, Manifest, ShardFile, Skipped, SplitManifest,
};
pub(crate) use record::{BLOCK, Record};
#[cfg(feature = "remote")]
pub use remote::RemoteConfig;
pub use size_histogram::SizeRow;
#[cfg(feature = "prepare")]
pub use verify::{Verified, verify};

use crate::{Error, PixelStatistics, Result, Split};
use mapped::map;

/// Progress folder of a preparation that is incomplete. It records the finished units: the pieces of the
/// input that are prepared and resumed separately.
pub(crate) const UNFINISHED: &str = ".preparation";

/// One split of a prepared data set.
pub(crate) struct Shards {
    root: PathBuf,
    manifest: Manifest,
    split: Split,
    index: Mmap,
    names: Mmap,
    files: Files,
    images: usize,
}

/// The tar files, memory-mapped or in an object store.
enum Files {
    Local(Vec<Mmap>),
    #[cfg(feature = "remote")]
    Remote(remote::Remote),
}

impl Shards {
    /// Whether a folder has an `index.json`.
    pub(crate) fn are_in(root: &Path) -> bool {
        root.join(INDEX_FILE).is_file()
    }

    pub(crate) fn open(root: &Path, split: Split) -> Result<Shards> {
        let manifest = Manifest::read(root)?;
        let own = non_empty_split(&manifest, root, split)?;
        let [index, names] = [&own.index, &own.names].map(|file| map(root, &file.file, file.bytes));
        let files =
            own.shards.iter().map(|shard| map(root, &shard.file, shard.bytes)).collect::<Result<Vec<_>>>()?;
        Shards::new(root, manifest, split, [index?, names?], Files::Local(files))
    }

    /// Opens a data set in an object store. `url` is the URL of its folder.
    #[cfg(feature = "remote")]
    pub(crate) fn open_remote(url: &str, split: Split, config: &RemoteConfig) -> Result<Shards> {
        let root = Path::new(url);
        let store = remote::Store::connect(url, config)?;
        let manifest = store.manifest()?;
        let own = non_empty_split(&manifest, root, split)?;
        let indices = [store.index(&own.index)?, store.index(&own.names)?];
        let remote = remote::Remote::new(store, config, &manifest, split)?;
        Shards::new(root, manifest, split, indices, Files::Remote(remote))
    }

    /// Checks all records.
    ///
    /// # Errors
    /// [`Error::Layout`] if a record's class, bytes or name are out of range.
    fn new(
        root: &Path,
        manifest: Manifest,
        split: Split,
        [index, names]: [Mmap; 2],
        files: Files,
    ) -> Result<Shards> {
        let images = manifest.splits[&split].images as usize;
        let shards = Shards { root: root.to_owned(), split, index, names, files, images, manifest };
        let classes = shards.manifest.classes.len() as u32;
        for image in 0..images {
            let record = shards.record(image);
            let end = record.offset.checked_add(u64::from(record.bytes));
            let file = shards.own().shards.get(record.shard as usize);
            let inside = file.zip(end).is_some_and(|(file, end)| end <= file.bytes);
            let named = record.name < shards.names.len() as u64;
            if record.target >= classes || !inside || !named || record.offset < BLOCK as u64 {
                return Err(shards.damaged(image));
            }
        }
        Ok(shards)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
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

    /// Hash of the classes and of the contents of all shards.
    pub(crate) fn hash(&self) -> Hash {
        self.own().hash(&self.manifest.classes)
    }

    pub(crate) fn target(&self, index: usize) -> u32 {
        self.record(index).target
    }

    /// Name of the shard, followed by the name of the image in it.
    pub(crate) fn path(&self, index: usize) -> String {
        let record = self.record(index);
        let shard = self.own().shards.get(record.shard as usize).map_or("?", |shard| &shard.file);
        let names = self.names.get(record.name as usize..).unwrap_or_default();
        let name = names.split(|&byte| byte == b'\n').next().unwrap_or_default();
        format!("{shard}/{}", String::from_utf8_lossy(name))
    }

    /// Bytes of an image file.
    ///
    /// # Errors
    /// [`Error::Layout`] if its record is out of range; [`Error::Missing`] or [`Error::Io`] if it cannot be
    /// fetched from the object store.
    pub(crate) fn bytes(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        let record = self.record(index);
        match &self.files {
            Files::Local(files) => {
                let found = files.get(record.shard as usize).and_then(|file| {
                    let start = usize::try_from(record.offset).ok()?;
                    file.get(start..start.checked_add(record.bytes as usize)?)
                });
                found.map(Cow::Borrowed).ok_or_else(|| self.damaged(index))
            }
            #[cfg(feature = "remote")]
            Files::Remote(remote) => remote.bytes(index, record, &self.own().shards).map(Cow::Owned),
        }
    }

    /// Checks the CRC-32 of an image file.
    ///
    /// # Errors
    /// [`Error::Decode`] if it differs from the index.
    pub(crate) fn check(&self, index: usize, bytes: &[u8]) -> Result<()> {
        if crc32fast::hash(bytes) == self.record(index).crc32 {
            return Ok(());
        }
        let reason = "its CRC-32 differs from the index: the image or the index is damaged".into();
        Err(Error::Decode { path: self.root.join(self.path(index)), reason })
    }

    /// Starts fetching an image in the background if it is in an object store.
    pub(crate) fn prefetch(&self, index: usize) {
        #[cfg(feature = "remote")]
        if let Files::Remote(remote) = &self.files {
            remote.prefetch(index, self.record(index), &self.own().shards);
        }
        #[cfg(not(feature = "remote"))]
        let _ = index;
    }

    fn record(&self, index: usize) -> Record {
        let start = index * Record::BYTES;
        let bytes = self.index.get(start..start + Record::BYTES).and_then(|bytes| bytes.try_into().ok());
        Record::from_bytes(bytes.unwrap_or(&[0xff; Record::BYTES]))
    }

    fn own(&self) -> &SplitManifest {
        // `non_empty_split` has checked that the split exists.
        &self.manifest.splits[&self.split]
    }

    fn damaged(&self, index: usize) -> Error {
        let split = self.split.name();
        let reason = format!("the record of image {index} in {split} is damaged");
        Error::Layout { path: self.root.clone(), reason }
    }
}

/// The split of a manifest.
///
/// # Errors
/// [`Error::Missing`] if there is no such split, or it has no images.
fn non_empty_split<'a>(manifest: &'a Manifest, root: &Path, split: Split) -> Result<&'a SplitManifest> {
    let missing = |reason: String| Error::Missing { path: root.to_owned(), reason };
    let own = manifest.splits.get(&split);
    let own =
        own.ok_or_else(|| missing(format!("the data set was prepared without a split {}", split.name())))?;
    if own.images == 0 {
        return Err(missing(format!("the split {} has no images", split.name())));
    }
    Ok(own)
}
