//! Helpers shared by the tests of preparation.

#![allow(dead_code, reason = "not every test uses every helper")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use vgg_data::prepare::{Ilsvrc, IlsvrcOptions, PrepareOptions, Source, prepare};
use vgg_data::synthetic::{SyntheticConfig, generate};
use vgg_data::{Encoding, Error, ImageSet, Split};

pub const LENIENT: IlsvrcOptions = IlsvrcOptions { allow_incomplete: true, skip_md5: true };

/// Options for images of 64 pixels in shards of this size.
pub fn options_with_shards_of_kib(shard_kib: u64) -> PrepareOptions {
    let encoding = Encoding::Jpeg { quality: 95 };
    PrepareOptions {
        smallest_side: Some(64),
        encoding,
        shard_bytes: shard_kib << 10,
        part: vgg_data::Partition::WHOLE,
    }
}

/// Contents of some small images.
pub fn images() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let config = SyntheticConfig { seed: 5, train_per_class: 2, val_per_class: 1 };
    generate(dir.path(), &config, 2, &|_, _| ()).unwrap();
    let train = ImageSet::open(dir.path(), Split::Train).unwrap();
    (0..train.len()).map(|i| std::fs::read(dir.path().join(&*train.path(i))).unwrap()).collect()
}

/// Prepares a source without reporting progress.
pub fn prepare_quietly(
    source: &dyn Source,
    options: &PrepareOptions,
    out: &Path,
    threads: usize,
) -> Result<(), Error> {
    prepare(source, options, out, threads, &mut |_| ControlFlow::Continue(()))
}

pub fn ilsvrc(dir: &Path) -> Ilsvrc {
    Ilsvrc::open(dir, LENIENT).unwrap()
}

/// All files but the lock: path and contents.
pub fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.is_file(), "{} was left behind", path.display());
        if !path.ends_with(".lock") {
            let name = path.file_name().unwrap().into();
            found.insert(name, std::fs::read(path).unwrap());
        }
    }
    found
}

/// The JSON description of each image, by its source.
pub fn descriptions(dir: &Path) -> BTreeMap<String, serde_json::Value> {
    let mut found = BTreeMap::new();
    for name in contents(dir).into_keys().filter(|name| name.extension().is_some_and(|e| e == "tar")) {
        let mut tar = tar::Archive::new(std::fs::File::open(dir.join(name)).unwrap());
        for member in tar.entries().unwrap() {
            let member = member.unwrap();
            if member.path().unwrap().extension().is_some_and(|e| e == "json") {
                let value: serde_json::Value = serde_json::from_reader(member).unwrap();
                found.insert(value["source"].as_str().unwrap().to_owned(), value);
            }
        }
    }
    found
}
