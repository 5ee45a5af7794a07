//! [`Entry`]: an image of a source, with its class and bounding boxes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A class of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Name: a WNID or the name of a folder. Classes are sorted by name.
    pub name: String,
    /// Words that describe the class, if known.
    pub words: Option<String>,
    /// ILSVRC2012_ID, the number in the development kit, from 1. It is **not** the class index.
    pub ilsvrc2012_id: Option<u32>,
}

/// An image of a source.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Path of the file, or of the archive followed by the name in it.
    pub path: PathBuf,
    /// The same relative to the root of the source, with `/` as separator. It is stored in the shard.
    pub source: String,
    /// File name without the extension.
    pub stem: String,
    /// Class index.
    pub target: u32,
    /// Contents of the file.
    pub bytes: Vec<u8>,
    /// Bounding boxes of objects; `None` if the source has no annotation of this image.
    pub boxes: Option<Vec<BoundingBox>>,
    /// Why the image cannot be used, if that is known before it is decoded.
    pub bad: Option<String>,
}

/// Bounding box of an object, in pixels of the source image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoundingBox {
    /// Name of the object's class.
    pub name: String,
    /// Left edge.
    pub xmin: f64,
    /// Top edge.
    pub ymin: f64,
    /// Right edge.
    pub xmax: f64,
    /// Bottom edge.
    pub ymax: f64,
}

impl Entry {
    /// Name of the image in a shard, without extension: `class/stem`, at most 90 bytes. It has no dots,
    /// because WebDataset takes the text before the first dot as the key. If characters are replaced or
    /// removed, a hash of the original name is appended, so that different names stay different.
    pub(super) fn key(&self, class: &str) -> String {
        let plain = |text: &str| {
            let keep = |c: char| if c.is_ascii_alphanumeric() || "-_+=@,".contains(c) { c } else { '_' };
            text.chars().map(keep).collect::<String>()
        };
        let whole = format!("{class}/{}", self.stem);
        let key = format!("{}/{}", plain(class), plain(&self.stem));
        if key == whole && key.len() <= 90 {
            return key;
        }
        let hash = vgg_files::hash_bytes(whole.as_bytes());
        let short: String = key.chars().take(90 - 13).collect();
        format!("{short}-{}", hash.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_names_are_kept_and_others_get_a_hash() {
        let key = |class: &str, stem: &str| {
            let (path, stem) = (PathBuf::new(), stem.to_owned());
            Entry { path, source: String::new(), stem, target: 0, bytes: Vec::new(), boxes: None, bad: None }
                .key(class)
        };
        assert_eq!(key("n01440764", "n01440764_10026"), "n01440764/n01440764_10026");
        let (dotted, other) = (key("a", "x.y"), key("a", "x_y"));
        assert!(dotted.starts_with("a/x_y-") && other == "a/x_y", "{dotted}");
        assert!(
            key("class", &"x".repeat(300)).len() <= 90
                && key("..", "/etc/passwd").starts_with("__/_etc_passwd-")
        );
    }
}
