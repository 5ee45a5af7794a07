//! An image on its way into a shard.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A class of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Its name, by which classes are sorted: a WNID, or the name of a folder.
    pub name: String,
    /// What it is called, if that is known.
    pub words: Option<String>,
    /// Its number in the ILSVRC2012 development kit, from 1, which is **not** its index.
    pub ilsvrc2012_id: Option<u32>,
}

/// An image as it comes.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it comes from: a file, or an archive and a name within it.
    pub path: PathBuf,
    /// The same below the folder of the source, with `/`: it goes into the shard.
    pub source: String,
    /// Its name, without what tells the format.
    pub stem: String,
    /// Class index.
    pub target: u32,
    /// Contents of the file.
    pub bytes: Vec<u8>,
    /// Boxes around objects; `None` if the source has none for this image.
    pub boxes: Option<Vec<BoundingBox>>,
}

/// A box around an object, in pixels of the image as it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoundingBox {
    /// What it is.
    pub name: String,
    /// Left.
    pub xmin: f64,
    /// Top.
    pub ymin: f64,
    /// Right.
    pub xmax: f64,
    /// Bottom.
    pub ymax: f64,
}

impl Entry {
    /// Its name in a shard, without what tells the format: `class/stem`, without dots, which would end it for WebDataset,
    /// and of at most 90 bytes. What had to be changed keeps a hash of what it was, so that names stay apart.
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
    fn names_are_kept_where_they_can_be() {
        let key = |class: &str, stem: &str| {
            let (path, stem) = (PathBuf::new(), stem.to_owned());
            Entry { path, source: String::new(), stem, target: 0, bytes: Vec::new(), boxes: None }.key(class)
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
