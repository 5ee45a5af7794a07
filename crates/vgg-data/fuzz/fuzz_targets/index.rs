//! Fuzzes the files of a prepared data set. The first byte of the input chooses the file; the hashes of the index and
//! of the names are made to match, so that their contents are read.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use vgg_data::prepare::{Files, Layout, PrepareOptions, prepare};
use vgg_data::{Encoding, ImageSet, Manifest, Partition, Split, verify};

/// A prepared data set of three images.
static SET: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    for (i, class) in ["cat", "dog", "dog"].iter().enumerate() {
        let folder = dir.path().join("source/train").join(class);
        std::fs::create_dir_all(&folder).expect("a folder");
        let image = [b"P6\n40 36\n255\n".as_slice(), &[i as u8; 40 * 36 * 3]].concat();
        std::fs::write(folder.join(format!("{i}.ppm")), image).expect("a file");
    }
    let options = PrepareOptions {
        smallest_side: None,
        encoding: Encoding::Raw,
        shard_bytes: 1 << 20,
        part: Partition::WHOLE,
    };
    let files = Files::open(&dir.path().join("source"), Layout::Folders).expect("a data set");
    let out = dir.path().join("set");
    prepare(&files, &options, &out, 1, &mut |_| std::ops::ControlFlow::Continue(())).expect("shards");
    dir
});

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    if which % 4 == 0 {
        let _ = Manifest::from_json(data);
        return;
    }
    let set = SET.path().join("set");
    let whole = SET.path().join("whole.json");
    let index = set.join("index.json");
    if !whole.is_file() && std::fs::copy(&index, &whole).is_err() {
        return;
    }
    let Ok(mut manifest) = std::fs::read(&whole).map_err(drop).and_then(|json| Manifest::from_json(&json).map_err(drop))
    else {
        return;
    };
    let Some(own) = manifest.splits.get_mut(&Split::Train) else { return };
    let file = match which % 4 {
        1 => &mut own.index,
        _ => &mut own.names,
    };
    let name = set.join(&file.file);
    let Ok(before) = std::fs::read(&name) else { return };
    // An index keeps its length.
    let changed: Vec<u8> = match which % 4 {
        1 => before.iter().enumerate().map(|(i, byte)| byte ^ data.get(i).unwrap_or(&0)).collect(),
        _ => data.to_vec(),
    };
    (file.bytes, file.blake3) = (changed.len() as u64, vgg_files::hash_bytes(&changed));
    if std::fs::write(&name, &changed).is_ok() && manifest.write(&set).is_ok() {
        if let Ok(images) = ImageSet::open(&set, Split::Train) {
            for i in 0..images.len() {
                let _ = (images.path(i), images.target(i), images.image(i).map(drop));
            }
        }
        let _ = verify(&set, &mut |_| ());
    }
    let _ = std::fs::write(&name, before);
});
