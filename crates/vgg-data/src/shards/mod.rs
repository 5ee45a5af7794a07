//! Prepared data sets: tar files of images (shards) with an index for random access, for data sets as
//! large as the whole ImageNet (14 million images).
//!
//! A data set has an `index.json` (the [`Manifest`]). Each split has an index of 32-byte records, a list of
//! names, and the shards, which WebDataset can also read. Images are read one by one; only their classes are kept in
//! memory. With the feature `remote`, the data set may be in an object store, from which images are fetched one
//! by one.

mod file;
mod index;
mod manifest;
mod record;
#[cfg(feature = "remote")]
mod remote;
mod size_histogram;
#[cfg(feature = "prepare")]
mod verify;

use std::path::{Path, PathBuf};

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
use file::LocalShard;
pub(crate) use index::Index;

/// Progress folder of a preparation that is incomplete. It records the finished units: the pieces of the
/// input that are prepared and resumed separately.
pub(crate) const UNFINISHED: &str = ".preparation";

/// One split of a prepared data set.
pub(crate) struct Shards {
    root: PathBuf,
    manifest: Manifest,
    split: Split,
    index: Index,
    files: Files,
}

/// The tar files, on a local disk or in an object store.
enum Files {
    Local(Vec<LocalShard>),
    #[cfg(feature = "remote")]
    Remote(remote::Remote),
}

impl Shards {
    /// Whether a folder has an `index.json`.
    pub(crate) fn are_in(root: &Path) -> bool {
        root.join(INDEX_FILE).is_file()
    }

    /// Opens a split and checks its index against the manifest.
    ///
    /// # Errors
    /// [`Error::Missing`] if a file or the split does not exist; [`Error::Layout`] if a file differs from the manifest
    /// or a record of the index is invalid.
    pub(crate) fn open(root: &Path, split: Split) -> Result<Shards> {
        let manifest = Manifest::read(root)?;
        let own = non_empty_split(&manifest, root, split)?;
        let index = Index::open(root, &manifest, split)?;
        let open = |(number, shard)| LocalShard::open(root, number, shard);
        let files = own.shards.iter().enumerate().map(open).collect::<Result<Vec<_>>>()?;
        Ok(Shards { root: root.to_owned(), split, index, files: Files::Local(files), manifest })
    }

    /// Opens a data set in an object store. `url` is the URL of its folder.
    #[cfg(feature = "remote")]
    pub(crate) fn open_remote(url: &str, split: Split, config: &RemoteConfig) -> Result<Shards> {
        let root = Path::new(url);
        let store = remote::Store::connect(url, config)?;
        let manifest = store.manifest()?;
        let own = non_empty_split(&manifest, root, split)?;
        let copies = [store.copy_of(&own.index)?, store.copy_of(&own.names)?];
        let index =
            Index::open_copies(&config.cache, copies.each_ref().map(|name| name.as_str()), &manifest, split)?;
        let remote = remote::Remote::new(store, config, &manifest, split)?;
        Ok(Shards { root: root.to_owned(), split, index, files: Files::Remote(remote), manifest })
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
        self.index.len()
    }

    pub(crate) fn smallest_side(&self) -> Option<usize> {
        self.manifest.smallest_side
    }

    pub(crate) fn statistics(&self) -> PixelStatistics {
        self.own().statistics
    }

    /// Hash of the classes, the index, the names and the contents of all shards.
    pub(crate) fn hash(&self) -> Hash {
        self.own().hash(&self.manifest.classes)
    }

    pub(crate) fn target(&self, index: usize) -> u32 {
        self.index.target(index)
    }

    /// Name of the shard, followed by the name of the image in it.
    pub(crate) fn path(&self, index: usize) -> String {
        let found = self.index.record(index).and_then(|record| Ok((record, self.index.name(&record)?)));
        // The path only identifies the image in messages; reading the image reports the error.
        let Ok((record, name)) = found else { return format!("image {index}") };
        let shard = self.own().shards.get(record.shard as usize).map_or("?", |shard| &shard.file);
        format!("{shard}/{}", String::from_utf8_lossy(&name))
    }

    /// Bytes of an image file.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Io`] if they cannot be read or fetched from the object store; [`Error::Decode`] if
    /// their CRC-32 differs from the index.
    pub(crate) fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let record = self.index.record(index)?;
        let bytes = match &self.files {
            // `Index::record` has checked the number of the shard.
            Files::Local(files) => files[record.shard as usize].read(record.offset, record.bytes),
            #[cfg(feature = "remote")]
            Files::Remote(remote) => remote.bytes(index, record, &self.own().shards),
        }?;
        if crc32fast::hash(&bytes) == record.crc32 {
            return Ok(bytes);
        }
        let reason = "its CRC-32 differs from the index: the image or the index is damaged".into();
        Err(Error::Decode { path: self.root.join(self.path(index)), reason })
    }

    /// Starts fetching an image in the background if it is in an object store.
    pub(crate) fn prefetch(&self, index: usize) {
        #[cfg(feature = "remote")]
        if let Files::Remote(remote) = &self.files
            && let Ok(record) = self.index.record(index)
        {
            remote.prefetch(index, record, &self.own().shards);
        }
        #[cfg(not(feature = "remote"))]
        let _ = index;
    }

    fn own(&self) -> &SplitManifest {
        // `non_empty_split` has checked that the split exists.
        &self.manifest.splits[&self.split]
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
