//! [`ImageSet`]: one split of a data set, in class folders or in shards.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use unicode_normalization::UnicodeNormalization;
use vgg_error::printable;
use vgg_files::{Hash, hash_bytes};

#[cfg(feature = "remote")]
use crate::RemoteConfig;
use crate::folder::Folder;
use crate::image_cache::ImageCache;
use crate::shards::{Shards, UNFINISHED};
use crate::split_folder::split_folder;
use crate::{
    DecodeOptions, Image, Manifest, PixelStatistics, Result, Split, SplitManifest, decode_with, misnamed,
    read_image,
};

/// The images of one split and their classes: prepared shards if the data set has an `index.json`, otherwise
/// class folders, `train/<class>/*` and `val/<class>/*`.
///
/// [`ImageSet::with_cache`] keeps decoded images in memory, so that later epochs do not decode them again.
/// Apart from this cache, memory does not grow with the number of images in shards.
pub struct ImageSet {
    split: Split,
    source: Source,
    cache: ImageCache,
    decode: DecodeOptions,
    misnamed: Mutex<BTreeMap<usize, &'static str>>,
    /// The classes of a network and, for each own class, the index of the same class among them.
    network_classes: Option<(Vec<String>, Vec<u32>)>,
}

enum Source {
    Folder(Folder),
    Shards(Box<Shards>),
}

impl ImageSet {
    /// Opens a split. Classes are the sorted folders of `train`, or of the split itself if there is no `train`,
    /// or the classes in the index of the shards. The folder of the validation split may also be called `valid`,
    /// `validation` or `test`.
    ///
    /// In class folders, also nested ones, every file that [`crate::decode`] reads is an image, whatever its name. Other
    /// files are ignored, unless they have the extension of an image: then they count as images, so that decoding
    /// them reports the error. Hidden files and the folders that systems leave behind, such as `__MACOSX`, are
    /// passed over. Names of classes are compared and returned in Unicode's composed form (NFC).
    ///
    /// With the feature `remote`, `root` may be a URL. It is opened as by `ImageSet::open_remote`, with the
    /// settings of `RemoteConfig::from_environment`.
    ///
    /// # Errors
    /// [`crate::Error::Missing`] if a folder or a shard does not exist or holds no images;
    /// [`crate::Error::Layout`] if the splits have different classes, or the shards differ from the index;
    /// [`crate::Error::Unfinished`] if the preparation is incomplete; [`crate::Error::Config`] if `root` is a
    /// URL and the feature `remote` is not enabled.
    pub fn open(root: &Path, split: Split) -> Result<ImageSet> {
        let source = match root.to_str().filter(|root| root.contains("://")) {
            #[cfg(feature = "remote")]
            Some(url) => return ImageSet::open_remote(url, split, &RemoteConfig::from_environment()?),
            #[cfg(not(feature = "remote"))]
            Some(url) => {
                return Err(crate::Error::Config(format!(
                    "cannot open {url}: this build lacks the feature `remote`"
                )));
            }
            None if Shards::are_in(root) => Source::Shards(Shards::open(root, split)?.into()),
            None if root.join(UNFINISHED).is_dir() => {
                return Err(crate::Error::Unfinished { path: root.to_owned() });
            }
            None => Source::Folder(Folder::open(root, split)?),
        };
        Ok(ImageSet::of(source, split))
    }

    /// The splits of a data set; `train` if it has none, so that opening it reports what is there instead. A remote
    /// data set is taken to have both.
    ///
    /// # Errors
    /// If the folder or the manifest cannot be read.
    pub fn splits_in(root: &Path) -> Result<Vec<Split>> {
        let all = [Split::Train, Split::Val];
        if root.to_str().is_some_and(|root| root.contains("://")) {
            return Ok(all.to_vec());
        }
        if Shards::are_in(root) {
            return Ok(Manifest::read(root)?.splits.keys().copied().collect());
        }
        let mut splits = Vec::new();
        for split in all {
            if root.is_dir() && split_folder(root, split)?.is_some() {
                splits.push(split);
            }
        }
        Ok(if splits.is_empty() { vec![Split::Train] } else { splits })
    }

    /// Opens a split of a prepared data set in an object store. `url` is the URL of the folder with the
    /// `index.json`; the scheme is `s3`, `gs`, `http` or `https`. Images are fetched one by one and cached on
    /// a local disk.
    ///
    /// # Errors
    /// As [`ImageSet::open`], and [`crate::Error::Io`] if a request fails.
    #[cfg(feature = "remote")]
    pub fn open_remote(url: &str, split: Split, config: &RemoteConfig) -> Result<ImageSet> {
        Ok(ImageSet::of(Source::Shards(Shards::open_remote(url, split, config)?.into()), split))
    }

    fn of(source: Source, split: Split) -> ImageSet {
        ImageSet {
            split,
            source,
            cache: ImageCache::default(),
            decode: DecodeOptions::default(),
            misnamed: Mutex::default(),
            network_classes: None,
        }
    }

    /// Gives the images the class indices of a network with these classes. The set may have a part of them, as a
    /// folder with some of ImageNet's classes. The hash of the set does not change.
    ///
    /// # Errors
    /// [`crate::Error::Config`] with the classes that the network does not have.
    pub fn with_classes_of(mut self, network: &[String]) -> Result<ImageSet> {
        let composed = |name: &String| name.nfc().collect::<String>();
        let mut index_of = HashMap::new();
        for (index, name) in network.iter().enumerate() {
            index_of.entry(composed(name)).or_insert(index as u32);
        }
        let place = |name: &String| index_of.get(&composed(name)).copied();
        let places: Vec<Option<u32>> = self.classes().iter().map(place).collect();
        let unknown = self.classes().iter().zip(&places).filter(|(_, place)| place.is_none());
        let unknown: Vec<&str> = unknown.map(|(name, _)| name.as_str()).collect();
        if !unknown.is_empty() {
            let what = format!(
                "the classes of the network are not those of {}: it does not have {} of its {} classes: {}{}",
                printable(self.root()),
                unknown.len(),
                places.len(),
                unknown[..unknown.len().min(5)].join(", "),
                if unknown.len() > 5 { ", ..." } else { "" }
            );
            return Err(crate::Error::Config(what));
        }
        let indices = places.into_iter().flatten().collect();
        self.network_classes = Some((network.to_vec(), indices));
        Ok(self)
    }

    /// Caches up to `bytes` of decoded images in memory. The default is 0.
    pub fn with_cache(mut self, bytes: u64) -> ImageSet {
        self.cache = ImageCache::with_limit(bytes);
        self
    }

    /// As [`ImageSet::with_cache`]. The cache shrinks if there is little free memory: less than 256 MiB, or than an
    /// eighth of what is free now. `free_bytes` returns the free memory and is called once in a while.
    pub fn with_shrinking_cache(mut self, bytes: u64, free_bytes: fn() -> u64) -> ImageSet {
        self.cache = ImageCache::with_limit(bytes).with_free_memory(free_bytes);
        self
    }

    /// Decodes images with other options than the default ones. `exif_orientation` changes the hash of the set, as it
    /// changes pixels.
    pub fn with_decode_options(mut self, options: DecodeOptions) -> ImageSet {
        self.decode = options;
        self
    }

    /// How images are decoded.
    pub fn decode_options(&self) -> DecodeOptions {
        self.decode
    }

    /// Names of the classes, in order of class index.
    pub fn classes(&self) -> &[String] {
        if let Some((classes, _)) = &self.network_classes {
            return classes;
        }
        match &self.source {
            Source::Folder(folder) => &folder.classes,
            Source::Shards(shards) => shards.classes(),
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Folder(folder) => folder.samples.len(),
            Source::Shards(shards) => shards.len(),
        }
    }

    /// Whether there are no images. An opened split always has at least one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class index of an image.
    pub fn target(&self, index: usize) -> u32 {
        let own = match &self.source {
            Source::Folder(folder) => folder.samples[index].target,
            Source::Shards(shards) => shards.target(index),
        };
        self.network_classes.as_ref().map_or(own, |(_, indices)| indices[own as usize])
    }

    /// Path of an image relative to the root, with `/` as separator. For an image in a shard: the path of the
    /// shard and the name in it.
    pub fn path(&self, index: usize) -> Cow<'_, str> {
        match &self.source {
            Source::Folder(folder) => Cow::Borrowed(&folder.samples[index].path),
            Source::Shards(shards) => Cow::Owned(shards.path(index)),
        }
    }

    /// The split.
    pub fn split(&self) -> Split {
        self.split
    }

    /// Root folder or URL of the data set.
    pub fn root(&self) -> &Path {
        match &self.source {
            Source::Folder(folder) => &folder.root,
            Source::Shards(shards) => shards.root(),
        }
    }

    /// Number of files that are not images and were ignored.
    pub fn ignored(&self) -> usize {
        match &self.source {
            Source::Folder(folder) => folder.ignored,
            Source::Shards(_) => 0,
        }
    }

    /// Number of images beside the class folders, which have no class and were ignored.
    pub fn without_class(&self) -> usize {
        match &self.source {
            Source::Folder(folder) => folder.without_class,
            Source::Shards(_) => 0,
        }
    }

    /// Numbers of images that were ignored because their format, such as HEIC, is not decoded.
    pub fn unsupported(&self) -> BTreeMap<&'static str, usize> {
        match &self.source {
            Source::Folder(folder) => folder.unsupported.clone(),
            Source::Shards(_) => BTreeMap::new(),
        }
    }

    /// Name of the folder of the split, such as `valid`, if it is not the usual one.
    pub fn unusual_folder(&self) -> Option<String> {
        match &self.source {
            Source::Folder(folder) => Some(printable(&folder.split_folder).to_string()),
            Source::Shards(_) => None,
        }
        .filter(|name| name != self.split.name())
    }

    /// The manifest of a prepared data set; `None` for class folders.
    pub fn manifest(&self) -> Option<&Manifest> {
        match &self.source {
            Source::Folder(_) => None,
            Source::Shards(shards) => Some(shards.manifest()),
        }
    }

    /// Smallest side to which images were reduced during preparation, if they were.
    pub fn smallest_side(&self) -> Option<usize> {
        match &self.source {
            Source::Folder(_) => None,
            Source::Shards(shards) => shards.smallest_side(),
        }
    }

    /// Number of images of each class.
    pub fn class_counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.classes().len()];
        (0..self.len()).for_each(|i| counts[self.target(i) as usize] += 1);
        counts
    }

    /// This split's entry in the manifest of a prepared data set.
    pub fn split_manifest(&self) -> Option<&SplitManifest> {
        self.manifest()?.splits.get(&self.split())
    }

    /// Pixel statistics of the split from its preparation; `None` for class folders.
    pub fn statistics(&self) -> Option<PixelStatistics> {
        match &self.source {
            Source::Folder(_) => None,
            Source::Shards(shards) => Some(shards.statistics()),
        }
    }

    /// Images decoded so far whose file extension is that of another format: path and actual format.
    pub fn misnamed(&self) -> Vec<(Cow<'_, str>, &'static str)> {
        let found = self.misnamed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        found.into_iter().map(|(index, format)| (self.path(index), format)).collect()
    }

    /// Hash of the split: of the paths, sizes and classes of all images in class folders; of the classes, the index,
    /// the names and the contents of shards.
    pub fn hash(&self) -> Hash {
        let contents = match &self.source {
            Source::Folder(folder) => folder.hash(),
            Source::Shards(shards) => shards.hash(),
        };
        match self.decode.exif_orientation {
            true => hash_bytes(format!("{contents}\nexif orientation").as_bytes()),
            false => contents,
        }
    }

    /// Starts fetching an image in the background if it is in an object store and is not cached. Any thread
    /// may then read it.
    pub fn prefetch(&self, index: usize) {
        if let Source::Shards(shards) = &self.source
            && !self.cache.has(index)
        {
            shards.prefetch(index);
        }
    }

    /// The pixels of an image.
    ///
    /// # Errors
    /// [`crate::Error::Decode`] if the image cannot be decoded; [`crate::Error::Missing`] or
    /// [`crate::Error::Io`] if it cannot be read.
    pub fn image(&self, index: usize) -> Result<Arc<Image>> {
        if let Some(image) = self.cache.get(index) {
            return Ok(image);
        }
        let (path, bytes) = match &self.source {
            Source::Folder(folder) => {
                let path = folder.root.join(folder.samples[index].file());
                let bytes = read_image(&path)?;
                (path, bytes)
            }
            Source::Shards(shards) => {
                let bytes = shards.bytes(index)?;
                (self.root().join(&*self.path(index)), bytes)
            }
        };
        let image = Arc::new(decode_with(&bytes, &path, &self.decode)?);
        if let Some(format) = misnamed(&bytes, &path) {
            self.misnamed.lock().unwrap_or_else(PoisonError::into_inner).insert(index, format);
        }
        self.cache.insert(index, &image);
        Ok(image)
    }
}
