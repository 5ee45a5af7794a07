//! A prepared data set to damage, and assertions on reading it.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vgg_data::prepare::{Files, Layout, PrepareOptions, prepare};
use vgg_data::{Encoding, Error, Image, ImageSet, Manifest, Split, verify};
use vgg_testkit::fmix32;

pub const ENCODINGS: [Encoding; 2] = [Encoding::Raw, JPEG];
pub const JPEG: Encoding = Encoding::Jpeg { quality: 90 };

/// A prepared data set and its contents.
pub struct Set {
    pub dir: tempfile::TempDir,
    pub shards: Vec<String>,
    pub images: Vec<Stored>,
}

/// An image of the split `train`.
pub struct Stored {
    /// Index of its shard in `Set::shards`.
    pub shard: usize,
    /// Offset and length of its file within the shard.
    pub start: usize,
    pub bytes: usize,
    /// `train-000000.tar/...`.
    pub path: String,
    pub target: u32,
    pub pixels: Arc<Image>,
}

impl Set {
    /// Prepares twenty small images in several shards.
    pub fn prepared(encoding: Encoding) -> Set {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        for i in 0..24 {
            let split = if i < 20 { "train" } else { "val" };
            let folder = source.join(split).join(["cat", "dog"][i % 2]);
            fs::create_dir_all(&folder).unwrap();
            // Mostly noise, so that neighbouring bytes differ.
            let pixels = (0..60 * 50 * 3).map(|at| (fmix32((at + 10_000 * i) as u32) >> 26) as u8 + 100);
            let image = image::RgbImage::from_raw(60, 50, pixels.collect()).unwrap();
            image.save(folder.join(format!("{i:02}.png"))).unwrap();
        }
        let options = PrepareOptions {
            smallest_side: Some(40),
            encoding,
            // Several shards: a source image has about 8 KiB.
            shard_bytes: 60 << 10,
            part: vgg_data::Partition::WHOLE,
        };
        let root = dir.path().join("set");
        let files = Files::open(&source, Layout::Folders).unwrap();
        prepare(&files, &options, &root, 1, &mut |_| ControlFlow::Continue(())).unwrap();
        let own = Manifest::read(&root).unwrap().splits[&Split::Train].clone();
        let shards: Vec<String> = own.shards.iter().map(|shard| shard.file.clone()).collect();
        assert!(shards.len() > 2, "{shards:?}");
        let set = ImageSet::open(&root, Split::Train).unwrap();
        // A record of 32 bytes: offset in the shard (8), offset of the name (8), length, shard, class and
        // checksum (4 each).
        let index = fs::read(root.join("train.index")).unwrap();
        let images: Vec<Stored> = (0..set.len())
            .map(|i| {
                let record = &index[32 * i..][..32];
                let number = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
                Stored {
                    shard: number(20) as usize,
                    start: number(0) as usize,
                    bytes: number(16) as usize,
                    path: set.path(i).into_owned(),
                    target: set.target(i),
                    pixels: set.image(i).unwrap(),
                }
            })
            .collect();
        assert_eq!(images.len(), 20);
        Set { dir, shards, images }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("set")
    }

    pub fn path(&self, shard: usize) -> PathBuf {
        self.root().join(&self.shards[shard])
    }

    /// Opens the set without a cache.
    pub fn open(&self) -> Result<ImageSet, Error> {
        ImageSet::open(&self.root(), Split::Train)
    }

    /// The problems that verification reports.
    pub fn problems(&self) -> Vec<String> {
        verify(&self.root(), &mut |_| ()).unwrap().problems
    }
}

/// Changes bytes of a file in place, so that processes that have it open or mapped see the change.
pub fn change(path: &Path, start: usize, change: impl Fn(&mut [u8]), length: usize) {
    use std::io::{Read, Seek, SeekFrom, Write};
    let mut file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(start as u64)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    change(&mut bytes);
    file.seek(SeekFrom::Start(start as u64)).unwrap();
    file.write_all(&bytes).unwrap();
}

pub fn flip(path: &Path, at: usize, bit: usize) {
    change(path, at, |bytes| bytes[0] ^= 1 << bit, 1);
}

/// Asserts that the image is intact.
#[track_caller]
pub fn assert_intact(set: &ImageSet, i: usize, stored: &Stored, what: &str) {
    let image = set.image(i).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(image == stored.pixels, "{what}: wrong pixels of {}", stored.path);
    assert_eq!(set.target(i), stored.target, "{what}: {}", stored.path);
}

/// Asserts that reading the image fails with its name and shard.
#[track_caller]
pub fn assert_refused(set: &ImageSet, i: usize, stored: &Stored, what: &str) {
    match set.image(i) {
        Ok(image) if image == stored.pixels => panic!("{what}: the damage of {} has no effect", stored.path),
        Ok(_) => panic!("{what}: wrong pixels of {}", stored.path),
        Err(error) => {
            assert!(error.is_bad_image(), "{what}: {error}");
            let text = error.to_string();
            assert!(text.contains(&stored.path), "{what}: {text}");
            assert!(text.contains("its CRC-32 differs from the index"), "{what}: {text}");
        }
    }
}

/// Offsets within an image's file: the first, the last, and some in between.
pub fn places(stored: &Stored) -> Vec<usize> {
    let mut places: Vec<usize> = (0..stored.bytes).step_by(stored.bytes / 7 + 1).collect();
    places.push(stored.bytes - 1);
    places
}
