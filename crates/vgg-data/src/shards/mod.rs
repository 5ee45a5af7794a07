//! Prepared data sets: images in tar files, found by an index, so that any of 14 million is read at once.
//!
//! A directory holds `index.json` (the [`Manifest`]), for each split an index of records of 32 bytes, the names, and the
//! shards: tar files that WebDataset reads too. All but `index.json` is mapped into memory, not read; with the feature
//! `remote` it may lie in an object store, from which images come one by one.

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

/// Folder of what is known of finished units, in a data set whose preparation is not finished.
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

/// Where the tar files are.
enum Files {
    Here(Vec<Mmap>),
    #[cfg(feature = "remote")]
    Remote(remote::Remote),
}

impl Shards {
    /// Whether a directory holds a prepared data set.
    pub(crate) fn are_in(root: &Path) -> bool {
        root.join(INDEX_FILE).is_file()
    }

    pub(crate) fn open(root: &Path, split: Split) -> Result<Shards> {
        let manifest = Manifest::read(root)?;
        let own = usable(&manifest, root, split)?;
        let [index, names] = [&own.index, &own.names].map(|file| map(root, &file.file, file.bytes));
        let files =
            own.shards.iter().map(|shard| map(root, &shard.file, shard.bytes)).collect::<Result<Vec<_>>>()?;
        Shards::new(root, manifest, split, [index?, names?], Files::Here(files))
    }

    /// Opens a set whose `index.json` is at a URL.
    #[cfg(feature = "remote")]
    pub(crate) fn open_remote(url: &str, split: Split, config: &RemoteConfig) -> Result<Shards> {
        let root = Path::new(url);
        let store = remote::Store::connect(url, config)?;
        let manifest = store.manifest()?;
        let own = usable(&manifest, root, split)?;
        let indices = [store.index(&own.index)?, store.index(&own.names)?];
        let remote = remote::Remote::new(store, config, &manifest, split)?;
        Shards::new(root, manifest, split, indices, Files::Remote(remote))
    }

    /// # Errors
    /// [`Error::Layout`] if a record points outside of the classes, of a shard or of the names.
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

    /// Of what all shards hold.
    pub(crate) fn hash(&self) -> Hash {
        self.own().hash(&self.manifest.classes)
    }

    pub(crate) fn target(&self, index: usize) -> u32 {
        self.record(index).target
    }

    /// The shard's name and the image's within it.
    pub(crate) fn path(&self, index: usize) -> String {
        let record = self.record(index);
        let shard = self.own().shards.get(record.shard as usize).map_or("?", |shard| &shard.file);
        let names = self.names.get(record.name as usize..).unwrap_or_default();
        let name = names.split(|&byte| byte == b'\n').next().unwrap_or_default();
        format!("{shard}/{}", String::from_utf8_lossy(name))
    }

    /// The file of an image.
    ///
    /// # Errors
    /// [`Error::Layout`] if the index points outside of its shard; of a remote set, [`Error::Io`] if it cannot be fetched.
    pub(crate) fn bytes(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        let record = self.record(index);
        match &self.files {
            Files::Here(files) => {
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

    /// Checks what an image is made from.
    ///
    /// # Errors
    /// [`Error::Decode`] if its bytes are not those that were written.
    pub(crate) fn check(&self, index: usize, bytes: &[u8]) -> Result<()> {
        if crc32fast::hash(bytes) == self.record(index).crc32 {
            return Ok(());
        }
        let reason = "its contents are not those that were written".into();
        Err(Error::Decode { path: self.root.join(self.path(index)), reason })
    }

    /// Begins to fetch what will be asked for, where it is not here.
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
        // `usable` has looked.
        &self.manifest.splits[&self.split]
    }

    fn damaged(&self, index: usize) -> Error {
        let split = self.split.name();
        let reason = format!("the record of image {index} in {split} is damaged");
        Error::Layout { path: self.root.clone(), reason }
    }
}

/// The split of a manifest, if it can be used.
fn usable<'a>(manifest: &'a Manifest, root: &Path, split: Split) -> Result<&'a SplitManifest> {
    let missing = |reason: String| Error::Missing { path: root.to_owned(), reason };
    let own = manifest.splits.get(&split);
    let own = own.ok_or_else(|| missing(format!("it was prepared without a split {}", split.name())))?;
    if own.images == 0 {
        return Err(missing(format!("its split {} has no images", split.name())));
    }
    Ok(own)
}
