//! Shards that are damaged before or while they are read: an image is intact, or an error names it.

mod damaged_set;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use damaged_set::*;
use vgg_data::{
    AugmentConfig, Encoding, Error, Image, ImageSet, Interpolation, Loader, LoaderConfig, OnBadImage,
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
                let words = format!("{length} bytes, but the manifest states {}", whole.len());
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

/// Flips each bit of two records: the record's image is refused, or it is the right one. Only verification
/// detects a changed class.
fn flipped_bits_of_a_record_are_refused(encoding: Encoding) {
    let set = Set::prepared(encoding);
    let index = set.root().join("train.index");
    let before = set.open().unwrap();
    let mut right = 0;
    for i in [3, 12] {
        for bit in 0..256 {
            let what = format!("bit {bit} of record {i}");
            flip(&index, 32 * i + bit / 8, bit % 8);
            let after = set.open();
            for open in after.iter().chain([&before]) {
                match open.image(i) {
                    Ok(image) => {
                        assert!(image == set.images[i].pixels, "{what}: wrong pixels");
                        // The bit belongs to the name (bytes 8 to 15) or the class (bytes 24 to 27).
                        assert!((64..128).contains(&bit) || (192..224).contains(&bit), "{what}");
                        right += 1;
                    }
                    Err(error) => {
                        let text = error.to_string();
                        let named = text.contains(&format!("the record of image {i} in train is damaged"))
                            || text.contains("its CRC-32 differs from the index");
                        assert!(named, "{what}: {text}");
                    }
                }
            }
            if let Err(error) = after {
                let named = error.to_string().contains(&format!("the record of image {i} in train"));
                assert!(named, "{what}: {error}");
            }
            flip(&index, 32 * i + bit / 8, bit % 8);
        }
    }
    assert!(right > 100, "{right} read");
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

/// Reading images of an open set after its first shard is truncated. Shards are memory-mapped: the rest of
/// the page in which a file ends reads as zeros, and reading further pages ends the process with SIGBUS.
#[cfg(target_os = "linux")]
mod cut {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// Passes the path of the set and the shard's new length to a child.
    const WHAT: &str = "VGG_TEST_CUT_SHARD";
    const PAGE: usize = 4096;
    const SIGBUS: i32 = 7;

    /// The test that the child runs; does nothing without the variable.
    #[test]
    fn child_cuts_and_reads() {
        let Ok(what) = std::env::var(WHAT) else { return };
        let (length, path) = what.split_once(' ').unwrap();
        let path = Path::new(path);
        let set = ImageSet::open(path.parent().unwrap(), Split::Train).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_len(length.parse().unwrap()).unwrap();
        for i in 0..set.len() {
            match set.image(i) {
                Ok(image) => println!("\nIMAGE {}", checksum(&image)),
                Err(error) => println!("\nIMAGE {error}"),
            }
        }
        std::process::exit(0);
    }

    fn checksum(image: &Image) -> String {
        format!("{:08x}", crc32fast::hash(image.as_slice().unwrap()))
    }

    /// Results of a child process that opens the set, truncates its first shard and reads all images in
    /// order; and the signal that ended it.
    fn read_after_cut(set: &Set, length: usize) -> (Vec<String>, Option<i32>) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "cut::child_cuts_and_reads", "--nocapture"]);
        let output = command.env(WHAT, format!("{length} {}", set.path(0).display())).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let said = text.lines().filter_map(|line| line.strip_prefix("IMAGE ")).map(str::to_owned).collect();
        (said, output.status.signal())
    }

    fn written(images: &[Stored]) -> Vec<String> {
        images.iter().map(|stored| checksum(&stored.pixels)).collect()
    }

    /// Checks that truncating the last byte of the first shard's last image is detected, as it reads as zero.
    fn last_byte_is_lost(encoding: Encoding) {
        let set = Set::prepared(encoding);
        let last = set.images.iter().take_while(|stored| stored.shard == 0).count() - 1;
        let stored = &set.images[last];
        let length = stored.start + stored.bytes - 1;
        assert_ne!(length % PAGE, 0, "the byte must be in a page that remains");
        let (said, signal) = read_after_cut(&set, length);
        assert_eq!((said.len(), signal), (set.images.len(), None));
        assert_eq!(said[..last], written(&set.images[..last]));
        assert!(said[last].contains(&stored.path), "{}", said[last]);
        assert_eq!(said[last + 1..], written(&set.images[last + 1..]));
    }

    #[test]
    fn truncated_jpeg_is_refused() {
        last_byte_is_lost(JPEG);
    }

    #[test]
    fn truncated_raw_pixels_are_refused() {
        last_byte_is_lost(Encoding::Raw);
    }

    #[test]
    fn image_in_a_missing_page_ends_the_process() {
        for encoding in ENCODINGS {
            let set = Set::prepared(encoding);
            let last = set.images.iter().take_while(|stored| stored.shard == 0).last().unwrap();
            let length = last.start / PAGE * PAGE;
            let (said, signal) = read_after_cut(&set, length);
            let left = set.images.iter().take_while(|stored| stored.start + stored.bytes <= length).count();
            assert!(length > 0 && left > 0, "{length} bytes are left, and {left} images");
            assert_eq!(said, written(&set.images[..left]));
            assert_eq!(signal, Some(SIGBUS));
        }
    }
}
