//! `index.json`: what a prepared data set is.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vgg_files::{Hash, hash_bytes, read_bytes, write_json};

use super::Record;
use crate::{PixelStatistics, Split};

/// Name of the manifest, which is written last: a directory that has it is whole.
pub const INDEX_FILE: &str = "index.json";

const FORMAT: &str = "vgg-shards";
const VERSION: u32 = 3;

/// What a prepared data set is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// `vgg-shards`.
    pub format: String,
    /// 2.
    pub version: u32,
    /// What it was made from, for people.
    pub source: String,
    /// How images are stored.
    pub encoding: Encoding,
    /// Smallest side that images were reduced to; `None` if they have their own size.
    pub smallest_side: Option<usize>,
    /// Bytes of a shard at most.
    pub shard_bytes: u64,
    /// Files that it was made from.
    pub inputs: InputList,
    /// Names of the classes in the order of their indices.
    pub classes: Vec<String>,
    /// More of them: words, numbers in the development kit, images of each.
    pub class_list: Option<IndexFile>,
    /// The splits.
    pub splits: BTreeMap<Split, SplitManifest>,
    /// Hash of all this, as JSON without it.
    pub checksum: Option<Hash>,
}

/// Files that a set was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputList {
    /// How many.
    pub files: u64,
    /// Their length together.
    pub bytes: u64,
    /// Hash of a line for each: path below their folder, a tab, length.
    pub blake3: Hash,
}

/// How images are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Encoding {
    /// As JPEG; a JPEG that need not be made smaller is copied byte for byte.
    Jpeg {
        /// Quality of those that were made smaller, 1 to 100.
        quality: u8,
    },
    /// As pixels, in a binary PPM.
    Raw,
}

/// One split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitManifest {
    /// Images.
    pub images: u64,
    /// Images of each class.
    pub of_class: Vec<u64>,
    /// Where images are.
    pub index: IndexFile,
    /// What they are called: a line for each.
    pub names: IndexFile,
    /// Tar files.
    pub shards: Vec<ShardFile>,
    /// Sums over the pixels that are stored, before a JPEG was made of those that were made smaller.
    pub statistics: PixelStatistics,
    /// Mean of red, green and blue, 0..255.
    pub mean_rgb: [f64; 3],
    /// Covariance of red, green and blue, in squares of 0..255.
    pub covariance: [[f64; 3]; 3],
    /// Its eigenvalues, in squares of 0..255, largest first.
    pub eigenvalues: [f64; 3],
    /// Its eigenvectors, one a row: what the colour shift goes along.
    pub eigenvectors: [[f64; 3]; 3],
    /// Images by the smallest side that they came with, in steps of 32.
    pub smallest_sides: BTreeMap<u32, u64>,
    /// What was unusual about images.
    pub anomalies: Vec<Anomaly>,
    /// Images that could not be used.
    pub skipped: Vec<Skipped>,
    /// What the source should have and did not.
    pub missing: Vec<String>,
}

/// A file of what there is to know of all images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFile {
    /// Name.
    pub file: String,
    /// Length.
    pub bytes: u64,
    /// Hash of its contents.
    pub blake3: Hash,
}

/// A tar file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardFile {
    /// Name.
    pub file: String,
    /// Length.
    pub bytes: u64,
    /// Images in it.
    pub images: u64,
    /// Hash of its contents.
    pub blake3: Hash,
}

/// An unusual image, which was used all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Where it came from.
    pub path: String,
    /// In what way.
    pub what: String,
}

/// An image that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Where it came from.
    pub path: String,
    /// Why.
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

    /// Reads that of a prepared data set.
    ///
    /// # Errors
    /// [`crate::Error::Layout`] as of [`Manifest::from_json`]; [`crate::Error::File`] if it cannot be read.
    pub fn read(root: &Path) -> crate::Result<Manifest> {
        let json = read_bytes(&root.join(INDEX_FILE))?;
        Manifest::from_json(&json).map_err(|reason| crate::Error::Layout { path: root.to_owned(), reason })
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong: it is no manifest, one that this program does not read, or one that contradicts itself.
    pub fn from_json(json: &[u8]) -> Result<Manifest, String> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let wrong = |e: serde_json::Error| format!("{INDEX_FILE} is no index of shards: {e}");
        let Head { format, version } = serde_json::from_slice(json).map_err(wrong)?;
        if format != FORMAT || version != VERSION {
            return Err(format!(
                "{INDEX_FILE} is of format {format} {version}, and this program reads {FORMAT} {VERSION}; prepare the set again"
            ));
        }
        let manifest: Manifest = serde_json::from_slice(json).map_err(wrong)?;
        if manifest.checksum.as_ref() != Some(&manifest.sum()?) {
            return Err(format!("{INDEX_FILE} is damaged: it is not what was written"));
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// Writes it to a directory, with its checksum.
    ///
    /// # Errors
    /// [`crate::Error::File`].
    pub fn write(mut self, root: &Path) -> crate::Result<()> {
        self.checksum = Some(self.sum().map_err(crate::Error::Config)?);
        Ok(write_json(&root.join(INDEX_FILE), &self)?)
    }

    /// What its checksum should be.
    fn sum(&self) -> Result<Hash, String> {
        let bare = Manifest { checksum: None, ..self.clone() };
        Ok(hash_bytes(&serde_json::to_vec(&bare).map_err(|e| e.to_string())?))
    }

    fn check(&self) -> Result<(), String> {
        for (split, own) in &self.splits {
            let records = own.images.checked_mul(Record::BYTES as u64);
            let sum: u64 = own.shards.iter().map(|shard| shard.images).sum();
            if sum != own.images
                || records != Some(own.index.bytes)
                || own.of_class.len() != self.classes.len()
            {
                return Err(format!("{INDEX_FILE} contradicts itself about {}", split.name()));
            }
            let indices = [&own.index.file, &own.names.file];
            let named = own.shards.iter().map(|shard| &shard.file).chain(indices);
            if let Some(name) =
                named.into_iter().find(|name| name.contains(['/', '\\']) || name.starts_with('.'))
            {
                return Err(format!("{INDEX_FILE} names a file {name}, which is not in the directory"));
            }
        }
        Ok(())
    }
}

impl SplitManifest {
    /// Hash of what all shards hold.
    pub(crate) fn hash(&self, classes: &[String]) -> Hash {
        let mut text = classes.join("\n");
        for shard in &self.shards {
            text.push('\n');
            text.push_str(shard.blake3.as_str());
        }
        hash_bytes(text.as_bytes())
    }
}
