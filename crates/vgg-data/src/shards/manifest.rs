//! [`Manifest`]: the `index.json` of a prepared data set.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vgg_error::printable;
use vgg_files::{Hash, hash_bytes, read_bytes, write_json};

use super::Record;
use crate::{PixelStatistics, Split};

/// Name of the manifest file. It is written last, so a folder that has it is complete.
pub const INDEX_FILE: &str = "index.json";

const FORMAT: &str = "vgg-shards";
const VERSION: u32 = 3;

/// Description of a prepared data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the format: `vgg-shards`.
    pub format: String,
    /// Version of the format: 3.
    pub version: u32,
    /// Name of the source data set.
    pub source: String,
    /// Format of the stored images.
    pub encoding: Encoding,
    /// Smallest side to which larger images were reduced; `None` if images have their original size.
    pub smallest_side: Option<usize>,
    /// Largest size of a shard in bytes.
    pub shard_bytes: u64,
    /// Input files of the preparation.
    pub inputs: InputList,
    /// Names of the classes, in order of class index.
    pub classes: Vec<String>,
    /// `classes.json`: index, name, words, ILSVRC2012_ID and number of images of each class.
    pub class_list: Option<IndexFile>,
    /// The splits.
    pub splits: BTreeMap<Split, SplitManifest>,
    /// Hash of the manifest as JSON with `checksum` null.
    pub checksum: Option<Hash>,
}

/// Input files of a preparation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputList {
    /// Number of files.
    pub files: u64,
    /// Total size in bytes.
    pub bytes: u64,
    /// Hash of one line per file: path relative to the root, a tab, size in bytes.
    pub blake3: Hash,
}

/// Format of the stored images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Encoding {
    /// JPEG. Files that need no reduction are copied unchanged, except that PNG and CMYK files are encoded as
    /// JPEG if `smallest_side` is set.
    Jpeg {
        /// Quality of the images that are encoded again, 1 to 100.
        quality: u8,
    },
    /// Raw pixels, as binary PPM.
    Raw,
}

/// Description of one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitManifest {
    /// Number of images.
    pub images: u64,
    /// Number of images of each class.
    pub of_class: Vec<u64>,
    /// Index: a 32-byte record per image.
    pub index: IndexFile,
    /// Names of the images in the shards, one line per image.
    pub names: IndexFile,
    /// The shards.
    pub shards: Vec<ShardFile>,
    /// Pixel statistics of the stored images, before JPEG encoding of those that were encoded again.
    pub statistics: PixelStatistics,
    /// Mean of red, green and blue, 0..255.
    pub mean_rgb: [f64; 3],
    /// Covariance of red, green and blue, for pixels of 0..255.
    pub covariance: [[f64; 3]; 3],
    /// Eigenvalues of the covariance, largest first.
    pub eigenvalues: [f64; 3],
    /// Unit eigenvectors of the covariance, one per row: the axes of the PCA colour jitter.
    pub eigenvectors: [[f64; 3]; 3],
    /// Number of source images by smallest side, in bins of 32 pixels; the key is the lower end.
    pub smallest_sides: BTreeMap<u32, u64>,
    /// Images with unusual properties.
    pub anomalies: Vec<Anomaly>,
    /// Images that could not be used and are not stored.
    pub skipped: Vec<Skipped>,
    /// One line for each class whose number of images differs from the published number.
    pub missing: Vec<String>,
}

/// A file with data about all images or classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFile {
    /// File name.
    pub file: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Hash of the contents.
    pub blake3: Hash,
}

/// A shard, which is a tar file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardFile {
    /// File name.
    pub file: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Number of images.
    pub images: u64,
    /// Hash of the contents.
    pub blake3: Hash,
}

/// An unusual property of an image, which is stored nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Path in the source.
    pub path: String,
    /// Description of the property.
    pub what: String,
}

/// An image that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Path in the source.
    pub path: String,
    /// Reason.
    pub reason: String,
}

impl Manifest {
    /// A manifest without splits.
    pub fn new(
        source: String,
        encoding: Encoding,
        smallest_side: Option<usize>,
        classes: Vec<String>,
    ) -> Manifest {
        let (format, splits) = (FORMAT.to_owned(), BTreeMap::new());
        Manifest {
            format,
            version: VERSION,
            source,
            encoding,
            smallest_side,
            shard_bytes: 0,
            inputs: InputList { files: 0, bytes: 0, blake3: hash_bytes(b"") },
            classes,
            class_list: None,
            splits,
            checksum: None,
        }
    }

    /// Reads the manifest of a prepared data set.
    ///
    /// # Errors
    /// [`crate::Error::Layout`] if it is invalid; [`crate::Error::File`] if it cannot be read.
    pub fn read(root: &Path) -> crate::Result<Manifest> {
        let json = read_bytes(&root.join(INDEX_FILE))?;
        Manifest::from_json(&json).map_err(|reason| crate::Error::Layout { path: root.to_owned(), reason })
    }

    /// Parses a manifest.
    ///
    /// # Errors
    /// A message if it is not a manifest, of an unsupported version, damaged or inconsistent.
    pub fn from_json(json: &[u8]) -> Result<Manifest, String> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let wrong = |e: serde_json::Error| format!("{INDEX_FILE} is not a manifest of shards: {e}");
        let Head { format, version } = serde_json::from_slice(json).map_err(wrong)?;
        if format != FORMAT || version != VERSION {
            return Err(format!(
                "{INDEX_FILE} has format {format} {version}, but only {FORMAT} {VERSION} is supported; prepare the data set again"
            ));
        }
        let manifest: Manifest = serde_json::from_slice(json).map_err(wrong)?;
        if manifest.checksum.as_ref() != Some(&manifest.sum()?) {
            return Err(format!("{INDEX_FILE} is damaged: its checksum does not match"));
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// Writes the manifest, with its checksum, to the folder of a data set.
    ///
    /// # Errors
    /// [`crate::Error::Layout`] if it is inconsistent; [`crate::Error::File`] if it cannot be written.
    pub fn write(mut self, root: &Path) -> crate::Result<()> {
        self.check().map_err(|reason| crate::Error::Layout { path: root.to_owned(), reason })?;
        self.checksum = Some(self.sum().map_err(crate::Error::Config)?);
        Ok(write_json(&root.join(INDEX_FILE), &self)?)
    }

    /// Computes the checksum.
    fn sum(&self) -> Result<Hash, String> {
        let bare = Manifest { checksum: None, ..self.clone() };
        Ok(hash_bytes(&serde_json::to_vec(&bare).map_err(|e| e.to_string())?))
    }

    fn check(&self) -> Result<(), String> {
        for (split, own) in &self.splits {
            let records = own.images.checked_mul(Record::BYTES as u64);
            let sum = own.shards.iter().try_fold(0u64, |sum, shard| sum.checked_add(shard.images));
            if sum != Some(own.images)
                || records != Some(own.index.bytes)
                || own.of_class.len() != self.classes.len()
            {
                return Err(format!("{INDEX_FILE} is inconsistent about the split {}", split.name()));
            }
        }
        let outside =
            |name: &&String| name.contains(['/', '\\', ':']) || name.starts_with('.') || name.is_empty();
        match self.file_names().find(outside) {
            None => Ok(()),
            Some(name) => {
                Err(format!("{INDEX_FILE} names a file {}, which is not in the folder", printable(name)))
            }
        }
    }

    /// Names of all files but `index.json`.
    fn file_names(&self) -> impl Iterator<Item = &String> {
        let own = self.splits.values();
        let indices = own.clone().flat_map(|own| [&own.index.file, &own.names.file]);
        let shards = own.flat_map(|own| own.shards.iter().map(|shard| &shard.file));
        self.class_list.iter().map(|list| &list.file).chain(indices).chain(shards)
    }
}

impl SplitManifest {
    /// Hash of the classes and of the contents of the index, the names and all shards.
    pub(crate) fn hash(&self, classes: &[String]) -> Hash {
        let mut text = classes.join("\n");
        let shards = self.shards.iter().map(|shard| &shard.blake3);
        for contents in [&self.index.blake3, &self.names.blake3].into_iter().chain(shards) {
            text.push('\n');
            text.push_str(contents.as_str());
        }
        hash_bytes(text.as_bytes())
    }
}
