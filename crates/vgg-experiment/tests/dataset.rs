//! The pixel statistics of a data set and their cache, its hash, and its image cache.

mod fixture;

use std::path::Path;
use std::sync::Arc;

use fixture::image;
use vgg_data::{Image, ImageSet, PixelStatistics, write_png};
use vgg_experiment::{Dataset, Error, Result};
use vgg_files::hash_bytes;
use vgg_tensor::{SingleProcess, on_thread_ranks};

/// Writes PNG images of 12 by 10 pixels to two class folders of each split.
fn write_images(root: &Path, train: &[Image], val: &[Image]) {
    for (split, images) in [("train", train), ("val", val)] {
        for (i, image) in images.iter().enumerate() {
            let folder = root.join(split).join(["bear", "cat"][i % 2]);
            std::fs::create_dir_all(&folder).unwrap();
            write_png(&folder.join(format!("{i}.png")), image).unwrap();
        }
    }
}

fn images(seed: u32, count: u32) -> Vec<Image> {
    (0..count).map(|i| image(100 * seed + i, 12, 10)).collect()
}

/// Number of pixels, channel sums, and sums of the products RR, RG, RB, GG, GB, BB.
fn sums(images: &[Image]) -> PixelStatistics {
    let mut sums = PixelStatistics::default();
    for image in images {
        let (height, width, _) = image.dim();
        for y in 0..height {
            for x in 0..width {
                let [r, g, b] = [0, 1, 2].map(|c| u64::from(image[[y, x, c]]));
                sums.pixels += 1;
                for (sum, value) in sums.sums.iter_mut().zip([r, g, b]) {
                    *sum += value;
                }
                for (sum, product) in sums.products.iter_mut().zip([r * r, r * g, r * b, g * g, g * b, b * b])
                {
                    *sum += product;
                }
            }
        }
    }
    sums
}

fn statistics(dataset: &Dataset, cache: &Path) -> Result<PixelStatistics> {
    dataset.statistics(cache, 2, &SingleProcess, &mut |_| ())
}

#[test]
fn statistics_are_sums_over_decodable_training_images() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    // More images than are decoded concurrently.
    let train = images(1, 25);
    write_images(&root, &train, &images(2, 3));
    std::fs::write(root.join("train/cat/bad.png"), "no image").unwrap();
    std::fs::write(root.join("train/bear/empty.jpg"), "").unwrap();
    let dataset = Dataset::open(&root, 0).unwrap();
    for workers in [1, 3] {
        let cache = dir.path().join(workers.to_string());
        std::fs::create_dir(&cache).unwrap();
        let mut done = Vec::new();
        let found =
            dataset.statistics(&cache, workers, &SingleProcess, &mut |images| done.push(images)).unwrap();
        assert_eq!(found, sums(&train));
        assert_eq!(done, (1..=27).collect::<Vec<_>>(), "skipped images count as done");
    }
}

#[test]
fn statistics_are_cached_by_the_hash_of_the_data_set() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    let a = images(1, 4);
    let b = images(3, 6);
    write_images(&first, &a, &images(2, 2));
    write_images(&second, &b, &images(2, 2));
    let [first, second] = [first, second].map(|root| Dataset::open(&root, 0).unwrap());
    let path = |dataset: &Dataset| dir.path().join(format!("statistics-{}.json", dataset.hash.short()));
    assert_eq!(statistics(&first, dir.path()).unwrap(), sums(&a));
    assert!(path(&first).is_file());
    assert_eq!(statistics(&second, dir.path()).unwrap(), sums(&b), "not those of another set");
    let never = &mut |_| panic!("cached statistics must not be recomputed");
    assert_eq!(first.statistics(dir.path(), 1, &SingleProcess, never).unwrap(), sums(&a));

    // Statistics of another set, changed numbers and half a file are refused.
    let text = std::fs::read_to_string(path(&first)).unwrap();
    let pixels = format!("\"pixels\": {}", sums(&a).pixels);
    let other = std::fs::read_to_string(path(&second)).unwrap();
    for (damaged, reason) in [
        (other, "statistics of another data set"),
        (text.replace(&pixels, "\"pixels\": 7"), "its checksum does not match"),
        ("{".to_owned(), "EOF"),
    ] {
        std::fs::write(path(&first), damaged).unwrap();
        let error = statistics(&first, dir.path()).unwrap_err();
        assert!(matches!(&error, Error::File(_)) && error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn missing_and_undecodable_images_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    write_images(&root, &images(1, 2), &images(2, 2));
    let dataset = Dataset::open(&root, 0).unwrap();
    std::fs::remove_file(root.join("train/cat/1.png")).unwrap();
    let error = statistics(&dataset, dir.path()).unwrap_err();
    assert!(matches!(&error, Error::Data(_)), "a missing image is not skipped as undecodable: {error:?}");
    for path in ["train/bear/0.png", "train/cat/1.png"] {
        std::fs::write(root.join(path), "no image").unwrap();
    }
    let dataset = Dataset::open(&root, 0).unwrap();
    let error = statistics(&dataset, dir.path()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no training image can be decoded: ") && text.contains("bear/0.png"), "{text}");
    let kept = dir.path().join(format!("statistics-{}.json", dataset.hash.short()));
    assert!(!kept.exists());
}

#[test]
fn rank_0_computes_statistics_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let train = images(1, 5);
    write_images(&root, &train, &images(2, 2));
    let dataset = Dataset::open(&root, 0).unwrap();
    let found = on_thread_ranks(2, |group| {
        let cache = dir.path().join(format!("rank{}", group.rank()));
        std::fs::create_dir(&cache).unwrap();
        let mut done = 0;
        let found = dataset.statistics(&cache, 1, &*group, &mut |images| done = images).unwrap();
        (found, done, std::fs::read_dir(&cache).unwrap().count())
    });
    assert_eq!(found, [(sums(&train), 5, 1), (sums(&train), 0, 0)]);
}

#[test]
fn hash_covers_both_splits() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    write_images(&root, &images(1, 4), &images(2, 2));
    let open = || Dataset::open(&root, 0).unwrap();
    let first = open();
    let text = format!("{}\n{}", first.train.hash(), first.val.hash());
    assert_eq!(first.hash, hash_bytes(text.as_bytes()));
    assert_eq!((first.train.len(), first.val.len()), (4, 2));
    assert_eq!(first.name(), "set");
    write_png(&root.join("val/cat/more.png"), &image(9, 12, 10)).unwrap();
    let second = open();
    assert_ne!(second.hash, first.hash, "the hash covers validation images");
    write_png(&root.join("train/cat/more.png"), &image(9, 12, 10)).unwrap();
    assert_ne!(open().hash, second.hash, "the hash covers training images");
    std::fs::create_dir(root.join("train/dog")).unwrap();
    write_png(&root.join("train/dog/0.png"), &image(9, 12, 10)).unwrap();
    assert!(matches!(Dataset::open(&root, 0), Err(Error::Data(_))), "only one split has dogs");
}

#[test]
fn data_set_without_a_folder_name_is_named_by_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    write_images(&root, &images(1, 2), &images(2, 2));
    let dataset = Dataset::open(&root.join("train/.."), 0).unwrap();
    assert_eq!(dataset.name(), root.join("train/..").display().to_string());
}

/// Number of images of a set that stay in memory.
fn kept(set: &ImageSet) -> usize {
    let of = |index: usize| set.image(index).unwrap();
    (0..set.len()).for_each(|index| drop(of(index)));
    (0..set.len()).filter(|index| Arc::ptr_eq(&of(*index), &of(*index))).count()
}

#[test]
fn image_cache_is_divided_by_the_number_of_images() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    write_images(&root, &images(1, 8), &images(2, 4));
    let image_bytes = 12 * 10 * 3;
    // One twelfth of the memory per image: half the size of an image.
    let dataset = Dataset::open(&root, 6 * image_bytes).unwrap();
    assert_eq!((kept(&dataset.train), kept(&dataset.val)), (4, 2));
    let dataset = Dataset::open(&root, 12 * image_bytes).unwrap();
    assert_eq!((kept(&dataset.train), kept(&dataset.val)), (8, 4));
    let dataset = Dataset::open(&root, 12 * image_bytes - 1).unwrap();
    assert_eq!((kept(&dataset.train), kept(&dataset.val)), (7, 3));
    let dataset = Dataset::open(&root, 0).unwrap();
    assert_eq!((kept(&dataset.train), kept(&dataset.val)), (0, 0));
}
