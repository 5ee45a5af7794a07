//! Shards that are damaged before or while they are read: an image is intact, or an error names it.

mod damaged_set;

use std::fs;
use std::sync::Arc;

use damaged_set::*;
use vgg_data::{
    AugmentConfig, Encoding, Error, Geometry, Interpolation, Loader, LoaderConfig, Manifest, OnBadImage,
    Partition, Split, verify,
};

/// Flips bits in one image at a time of an open set, and restores them.
fn flipped_bits_are_refused(set: &Set, places: &dyn Fn(&Stored) -> Vec<usize>) {
    let open = set.open().unwrap();
    for (i, stored) in set.images.iter().enumerate() {
        let path = set.path(stored.shard);
        let next = (i + 1) % set.images.len();
        for at in places(stored) {
            let bit = (i + at) % 8;
            let what = format!("bit {bit} of byte {at} of image {i}");
            flip(&path, stored.start + at, bit);
            assert_refused(&open, i, stored, &what);
            assert_intact(&open, next, &set.images[next], &what);
            flip(&path, stored.start + at, bit);
            assert_intact(&open, i, stored, "restored");
        }
    }
}

#[test]
fn flipped_bits_of_a_jpeg_are_refused() {
    flipped_bits_are_refused(&Set::prepared(JPEG), &places);
}

#[test]
fn flipped_bits_of_raw_pixels_are_refused() {
    flipped_bits_are_refused(&Set::prepared(Encoding::Raw), &places);
}

#[test]
fn flipped_bits_of_the_size_of_raw_pixels_are_refused() {
    // `P6`, width and height, and 255, on a line each.
    let header = |stored: &Stored| {
        let (h, w, _) = stored.pixels.dim();
        (0..format!("P6\n{w} {h}\n255\n").len()).collect()
    };
    flipped_bits_are_refused(&Set::prepared(Encoding::Raw), &header);
}

#[test]
fn damage_outside_of_images_is_found_by_verify() {
    for encoding in ENCODINGS {
        let set = Set::prepared(encoding);
        let open = set.open().unwrap();
        assert_eq!(set.problems(), [""; 0]);
        for (i, stored) in set.images.iter().enumerate().step_by(3) {
            let path = set.path(stored.shard);
            // Name, length and checksum in the header before the image, and the header of its class behind
            // it.
            let behind = (stored.start + stored.bytes).next_multiple_of(512);
            for at in [stored.start - 512, stored.start - 512 + 124, stored.start - 512 + 148, behind + 3] {
                flip(&path, at, 2);
                let what = format!("byte {at} of {}", path.display());
                assert_intact(&open, i, stored, &what);
                assert_intact(&set.open().unwrap(), i, stored, &what);
                let problems = set.problems();
                assert_eq!(problems.len(), 1, "{what}: {problems:?}");
                assert!(problems[0].starts_with(&set.shards[stored.shard]), "{what}: {problems:?}");
                flip(&path, at, 2);
            }
        }
        assert_eq!(set.problems(), [""; 0]);
    }
}

#[test]
fn verify_names_the_file_of_any_damage() {
    for encoding in ENCODINGS {
        let set = Set::prepared(encoding);
        let root = set.root();
        for (i, stored) in set.images.iter().enumerate().step_by(4) {
            let path = set.path(stored.shard);
            flip(&path, stored.start + stored.bytes - 1, i % 8);
            let problems = set.problems();
            assert!(problems.len() == 1 && problems[0].contains(&set.shards[stored.shard]), "{problems:?}");
            flip(&path, stored.start + stored.bytes - 1, i % 8);
        }
        for name in ["train.index", "train.names", "val.index", "val.names", "classes.json", "val-000000.tar"]
        {
            let path = root.join(name);
            let whole = fs::read(&path).unwrap();
            let last = whole.len() - 1;
            flip(&path, last, 0);
            let problems = set.problems();
            assert!(problems.len() == 1 && problems[0].contains(name), "{name}: {problems:?}");
            fs::write(&path, &whole[..last]).unwrap();
            let problems = set.problems();
            assert!(problems.len() == 1 && problems[0].contains(name), "{name} cut: {problems:?}");
            fs::remove_file(&path).unwrap();
            let problems = set.problems();
            assert!(problems.len() == 1 && problems[0].contains(name), "{name} missing: {problems:?}");
            fs::write(&path, whole).unwrap();
        }
        assert_eq!(set.problems(), [""; 0]);
        // A set whose manifest is damaged cannot be verified.
        let manifest = fs::read(root.join("index.json")).unwrap();
        for at in (0..manifest.len()).step_by(manifest.len() / 40) {
            flip(&root.join("index.json"), at, 1);
            let error = verify(&root, &mut |_| ()).unwrap_err().to_string();
            assert!(error.contains("index.json"), "byte {at}: {error}");
            flip(&root.join("index.json"), at, 1);
        }
    }
}

#[test]
fn missing_truncated_and_longer_files_are_refused_on_opening() {
    for encoding in ENCODINGS {
        let set = Set::prepared(encoding);
        let last = set.shards.last().unwrap().as_str();
        for name in ["train.index", "train.names", last] {
            let path = set.root().join(name);
            let whole = fs::read(&path).unwrap();
            let refused = |what: &str| {
                let error = set.open().err().unwrap_or_else(|| panic!("{name} {what} is not refused"));
                assert!(!error.is_bad_image(), "{name} {what}: {error}");
                assert!(error.to_string().contains(name), "{name} {what}: {error}");
                error.to_string()
            };
            for length in [0, whole.len() / 2, whole.len() - 1] {
                fs::write(&path, &whole[..length]).unwrap();
                let error = refused("cut");
                let words = format!("{length} bytes, but index.json states {}", whole.len());
                assert!(error.contains(&words), "{error}");
            }
            fs::write(&path, [whole.as_slice(), &[0]].concat()).unwrap();
            refused("longer");
            fs::remove_file(&path).unwrap();
            refused("missing");
            fs::write(&path, whole).unwrap();
        }
        set.open().unwrap();
    }
}

#[test]
fn shard_overwritten_with_other_bytes_of_the_same_length_is_refused() {
    for encoding in ENCODINGS {
        let set = Set::prepared(encoding);
        let path = set.path(1);
        let length = fs::metadata(&path).unwrap().len() as usize;
        let before = set.open().unwrap();
        change(&path, 0, |bytes| bytes.iter_mut().for_each(|byte| *byte = !*byte), length);
        let after = set.open().unwrap();
        for (i, stored) in set.images.iter().enumerate() {
            for (open, what) in [(&before, "opened before"), (&after, "opened after")] {
                if stored.shard == 1 {
                    assert_refused(open, i, stored, what);
                } else {
                    assert_intact(open, i, stored, what);
                }
            }
        }
    }
}

/// An open set keeps the files that it was opened with.
#[cfg(unix)]
#[test]
fn open_set_still_reads_removed_and_replaced_shards() {
    for encoding in ENCODINGS {
        let set = Set::prepared(encoding);
        let open = set.open().unwrap();
        let length = fs::metadata(set.path(1)).unwrap().len() as usize;
        let other = set.root().join("other");
        fs::write(&other, vec![7; length]).unwrap();
        fs::rename(&other, set.path(1)).unwrap();
        for shard in (0..set.shards.len()).filter(|&shard| shard != 1) {
            fs::remove_file(set.path(shard)).unwrap();
        }
        for (i, stored) in set.images.iter().enumerate() {
            assert_intact(&open, i, stored, "removed or replaced");
        }
    }
}

#[test]
fn cached_images_stay_intact() {
    let set = Set::prepared(JPEG);
    let open = set.open().unwrap().with_cache(1 << 30);
    for (i, stored) in set.images.iter().enumerate().step_by(2) {
        assert_intact(&open, i, stored, "before");
    }
    for stored in &set.images {
        flip(&set.path(stored.shard), stored.start + stored.bytes / 2, 3);
    }
    for (i, stored) in set.images.iter().enumerate() {
        if i % 2 == 0 {
            assert_intact(&open, i, stored, "in the cache");
        } else {
            assert_refused(&open, i, stored, "not in the cache");
        }
    }
}

/// Flips each bit of two records. A set that is opened afterwards is refused, also if the class changes. A set that
/// is already open refuses the image, or reads it right if only its name has changed.
fn flipped_bits_of_a_record_are_refused(encoding: Encoding) {
    let set = Set::prepared(encoding);
    let index = set.root().join("train.index");
    let before = set.open().unwrap();
    for i in [3, 12] {
        for bit in 0..256 {
            let what = format!("bit {bit} of record {i}");
            flip(&index, 32 * i + bit / 8, bit % 8);
            let error = set.open().err().unwrap_or_else(|| panic!("{what} is not refused")).to_string();
            assert!(error.contains("train.index is damaged"), "{what}: {error}");
            match before.image(i) {
                // Bytes 8 to 15 are the offset of the name.
                Ok(image) => assert!(image == set.images[i].pixels && (64..128).contains(&bit), "{what}"),
                Err(error) => {
                    let text = error.to_string();
                    let named = text.contains("has changed while the index was in use")
                        || text.contains("its CRC-32 differs from the index");
                    assert!(named, "{what}: {text}");
                }
            }
            assert_eq!(before.target(i), set.images[i].target, "{what}");
            flip(&index, 32 * i + bit / 8, bit % 8);
        }
    }
}

/// Changes an index or a list of names together with its hash in the manifest: the records themselves are checked.
#[test]
fn invalid_records_are_refused_by_open_and_verify() {
    let set = Set::prepared(JPEG);
    let records = fs::read(set.root().join("train.index")).unwrap();
    let whole = Manifest::read(&set.root()).unwrap();
    let with = |i: usize, at: usize, value: &[u8]| {
        let mut changed = records.clone();
        changed[32 * i + at..][..value.len()].copy_from_slice(value);
        changed
    };
    for (what, changed, reason) in [
        ("class out of range", with(3, 24, &[9]), "record of image 3"),
        ("other class", with(3, 24, &[1 - records[32 * 3 + 24]]), "images per class"),
        ("shard out of range", with(19, 20, &[200]), "record of image 19"),
        ("offset in the header", with(0, 0, &[0, 0]), "record of image 0"),
        ("offset behind the end", with(4, 4, &[1]), "record of image 4"),
        ("longest length", with(4, 16, &[255; 4]), "record of image 4"),
        ("name behind the end", with(7, 12, &[1]), "record of image 7"),
    ] {
        fs::write(set.root().join("train.index"), &changed).unwrap();
        let mut manifest = whole.clone();
        let own = manifest.splits.get_mut(&Split::Train).unwrap();
        own.index.blake3 = vgg_files::hash_bytes(&changed);
        manifest.write(&set.root()).unwrap();
        let error = set.open().err().unwrap_or_else(|| panic!("{what} is not refused")).to_string();
        assert!(error.contains(reason), "{what}: {error}");
        let problems = set.problems();
        assert!(problems.len() == 1 && problems[0].contains(reason), "{what}: {problems:?}");
    }
}

/// `verify` compares the CRC-32 of each image, which training does too.
#[test]
fn verify_finds_another_crc() {
    let set = Set::prepared(JPEG);
    let path = set.root().join("train.index");
    flip(&path, 32 * 6 + 28, 0);
    let mut manifest = Manifest::read(&set.root()).unwrap();
    manifest.splits.get_mut(&Split::Train).unwrap().index.blake3 = vgg_files::hash_file(&path).unwrap();
    manifest.write(&set.root()).unwrap();
    assert!(set.open().unwrap().image(6).is_err());
    let problems = set.problems();
    assert!(problems.len() == 1 && problems[0].contains("CRC-32"), "{problems:?}");
}

/// The hash of a split covers classes and names, so that posteriors of other labels do not match.
#[test]
fn hash_covers_index_and_names() {
    let set = Set::prepared(JPEG);
    let whole = Manifest::read(&set.root()).unwrap();
    let mut hashes = vec![set.open().unwrap().hash()];
    // Two images exchange their classes, and a name gets another letter.
    for (name, places) in [("train.index", vec![24, 32 * 19 + 24]), ("train.names", vec![5])] {
        let path = set.root().join(name);
        places.iter().for_each(|&at| flip(&path, at, 0));
        let mut manifest = whole.clone();
        let own = manifest.splits.get_mut(&Split::Train).unwrap();
        own.index.blake3 = vgg_files::hash_file(&set.root().join("train.index")).unwrap();
        own.names.blake3 = vgg_files::hash_file(&set.root().join("train.names")).unwrap();
        manifest.write(&set.root()).unwrap();
        let changed = set.open().unwrap().hash();
        assert!(!hashes.contains(&changed), "{name}");
        hashes.push(changed);
    }
}

#[test]
fn files_outside_of_the_folder_are_refused() {
    let set = Set::prepared(JPEG);
    let whole = Manifest::read(&set.root()).unwrap();
    let text = fs::read_to_string(set.root().join("index.json")).unwrap();
    for name in ["/dev/zero", "../train.names", ".hidden", ""] {
        let mut manifest = whole.clone();
        manifest.class_list.as_mut().unwrap().file = name.into();
        let error = manifest.write(&set.root()).unwrap_err().to_string();
        assert!(error.contains("which is not in the folder"), "{name}: {error}");
    }
    assert_eq!(fs::read_to_string(set.root().join("index.json")).unwrap(), text);
}

#[test]
fn flipped_bits_of_the_record_of_a_jpeg_are_refused() {
    flipped_bits_of_a_record_are_refused(JPEG);
}

#[test]
fn flipped_bits_of_the_record_of_raw_pixels_are_refused() {
    flipped_bits_of_a_record_are_refused(Encoding::Raw);
}

#[test]
fn loader_stops_at_or_skips_a_damaged_image() {
    let set = Set::prepared(JPEG);
    let damaged = 5;
    let stored = &set.images[damaged];
    flip(&set.path(stored.shard), stored.start + stored.bytes / 2, 6);
    let load = |on_bad_image: OnBadImage| {
        let augment = AugmentConfig {
            train_scale: [40, 40],
            crop: 40,
            interpolation: Interpolation::Bilinear,
            geometry: Geometry::Paper,
            flip: true,
            pca_jitter: None,
        };
        let config = LoaderConfig {
            augment,
            mean_rgb: [0.0; 3],
            batch: 8,
            seed: 1,
            on_bad_image,
            workers: 2,
            partition: Partition::WHOLE,
        };
        let mut loader = Loader::new(Arc::new(set.open().unwrap()), config).unwrap();
        let mut ids = Vec::<usize>::new();
        let mut skipped = Vec::new();
        let outcome = loader.for_each(0, 0, |batch, _| {
            ids.extend(&batch.ids);
            skipped.extend(batch.skipped.iter().map(|bad| (bad.id, bad.error.to_string())));
            Ok::<_, Error>(true)
        });
        ids.sort_unstable();
        (outcome, ids, skipped)
    };
    let (outcome, _, _) = load(OnBadImage::Stop);
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains(&stored.path), "{error}");
    let (outcome, ids, skipped) = load(OnBadImage::Skip);
    outcome.unwrap();
    let others: Vec<usize> = (0..20).filter(|&i| i != damaged).collect();
    assert_eq!(ids, others);
    assert_eq!(skipped.len(), 1);
    assert!(skipped[0].0 == damaged && skipped[0].1.contains(&stored.path), "{skipped:?}");
}

/// An image that is truncated while the set is open is an error that names the shard; the images before it are read.
#[test]
fn truncated_shard_of_an_open_set_is_an_error() {
    for encoding in ENCODINGS {
        let set = Set::prepared(encoding);
        let open = set.open().unwrap();
        let last = set.images.iter().take_while(|stored| stored.shard == 0).count() - 1;
        let stored = &set.images[last];
        for (length, kept) in [(stored.start + stored.bytes - 1, last), (set.images[1].start, 1), (0, 0)] {
            let file = fs::File::options().write(true).open(set.path(0)).unwrap();
            file.set_len(length as u64).unwrap();
            for (i, stored) in set.images.iter().enumerate() {
                if i < kept || stored.shard != 0 {
                    assert_intact(&open, i, stored, "not truncated");
                } else {
                    let error = open.image(i).unwrap_err();
                    let words = format!("{}: it was truncated from", set.path(0).display());
                    let said = error.to_string();
                    assert!(said.contains(&words) && said.contains(&format!("to {length} bytes")), "{said}");
                    assert!(!error.is_bad_image(), "{said}");
                }
            }
        }
    }
}
