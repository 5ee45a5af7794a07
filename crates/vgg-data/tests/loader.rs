//! Batches compared with a NumPy and Pillow reference: order, pixels, offsets and targets.

use std::sync::Arc;

use serde_json::Value;
use vgg_data::{
    AugmentConfig, Batch, EpochOrder, Error, Geometry, ImageSet, Interpolation, Loader, LoaderConfig,
    OnBadImage, Partition, PcaJitter, PixelStatistics, Split, eigenvectors, write_png,
};
use vgg_testkit::{PICTURES_PER_CLASS, make_pictures, picture_path};

fn reference() -> Value {
    serde_json::from_str(include_str!("fixtures/loader.json")).unwrap()
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn opened(dir: &tempfile::TempDir) -> Arc<ImageSet> {
    make_pictures(dir.path(), |path, pixels| write_png(path, pixels).unwrap()).unwrap();
    Arc::new(ImageSet::open(dir.path(), Split::Train).unwrap())
}

fn statistics(set: &ImageSet) -> PixelStatistics {
    let mut statistics = PixelStatistics::default();
    (0..set.len()).for_each(|i| statistics.add(&set.image(i).unwrap()));
    statistics
}

/// The settings of the reference script's first case.
fn config(statistics: &PixelStatistics) -> LoaderConfig {
    LoaderConfig {
        augment: AugmentConfig {
            train_scale: [33, 48],
            crop: 32,
            interpolation: Interpolation::Bilinear,
            geometry: Geometry::Paper,
            flip: true,
            pca_jitter: Some(PcaJitter::new(statistics, 0.1)),
        },
        mean_rgb: [120.5, 110.25, 100.0],
        batch: 4,
        seed: 11,
        on_bad_image: OnBadImage::Stop,
        workers: 2,
        partition: Partition::WHOLE,
    }
}

/// The batches of an epoch, starting at batch `first`.
fn batches(set: &Arc<ImageSet>, config: &LoaderConfig, epoch: u64, first: usize) -> Vec<Batch> {
    let mut loader = Loader::new(set.clone(), config.clone()).unwrap();
    let mut all = Vec::new();
    let result = loader.for_each(epoch, first, |batch, _| {
        all.push(batch.clone());
        Ok::<bool, Error>(true)
    });
    result.unwrap();
    all
}

fn crc32_of_each(batch: &Batch) -> Vec<u32> {
    batch.pixels.outer_iter().map(|image| crc32fast::hash(image.as_slice().unwrap())).collect()
}

#[test]
fn batches_match_numpy_and_pillow() {
    let dir = tempfile::tempdir().unwrap();
    let (set, reference) = (opened(&dir), reference());
    let base = config(&statistics(&set));
    let plain = AugmentConfig { flip: false, pca_jitter: None, ..base.augment.clone() };
    let fixed = AugmentConfig {
        train_scale: [40, 40],
        interpolation: Interpolation::Lanczos,
        ..base.augment.clone()
    };
    let nearest = AugmentConfig { interpolation: Interpolation::Nearest, ..base.augment.clone() };
    let cases = [
        ("all", base.clone()),
        ("nearest", LoaderConfig { augment: nearest, ..base.clone() }),
        ("no flip, no colour", LoaderConfig { augment: plain, ..base.clone() }),
        ("fixed scale, lanczos", LoaderConfig { augment: fixed, ..base.clone() }),
        ("large seed", LoaderConfig { seed: (1 << 40) + 3, ..base }),
    ];
    assert_eq!(reference["cases"].as_object().unwrap().len(), cases.len());
    for (name, config) in cases {
        let expected = reference["cases"][name].as_array().unwrap();
        let ours: Vec<Batch> =
            [0, 1, 300].iter().flat_map(|epoch| batches(&set, &config, *epoch, 0)).collect();
        assert_eq!(ours.len(), expected.len(), "{name}");
        for (number, (batch, expected)) in ours.iter().zip(expected).enumerate() {
            assert_eq!(batch.ids, numbers::<Vec<usize>>(&expected["ids"]), "{name}, batch {number}");
            assert_eq!(batch.targets, numbers::<Vec<u32>>(&expected["targets"]), "{name}, batch {number}");
            assert_eq!(
                crc32_of_each(batch),
                numbers::<Vec<u32>>(&expected["crc32"]),
                "{name}, batch {number}"
            );
            let offsets: Vec<[f64; 3]> = numbers(&expected["offset"]);
            assert_eq!(batch.offset.dim(), (offsets.len(), 3));
            for (ours, theirs) in batch.offset.iter().zip(offsets.iter().flatten()) {
                // The sum of two numbers below 256, each rounded to f32.
                assert!((f64::from(*ours) - theirs).abs() < 5e-5, "{name}, batch {number}: {ours} {theirs}");
            }
        }
    }
}

#[test]
fn statistics_and_principal_components_match_numpy() {
    let dir = tempfile::tempdir().unwrap();
    let (set, reference) = (opened(&dir), reference());
    let statistics = statistics(&set);
    // Both sum integers in f64. They differ only in the order of a few roundings of 1e-16, times squares of
    // up to 6e4.
    let close = |ours: f64, theirs: f64| {
        assert!((ours - theirs).abs() < 1e-9 * theirs.abs().max(1.0), "{ours} {theirs}")
    };
    let mean: [f64; 3] = numbers(&reference["mean"]);
    let covariance: [[f64; 3]; 3] = numbers(&reference["covariance"]);
    statistics.mean().into_iter().zip(mean).for_each(|(a, b)| close(a, b));
    statistics
        .covariance()
        .iter()
        .flatten()
        .zip(covariance.iter().flatten())
        .for_each(|(a, b)| close(*a, *b));
    let variance = (covariance[0][0] + covariance[1][1] + covariance[2][2]) / 3.0;
    close(statistics.unit_variance_scale(), 1.0 / variance.sqrt());
    let (values, vectors) = eigenvectors(statistics.covariance());
    values.into_iter().zip(numbers::<[f64; 3]>(&reference["eigenvalues"])).for_each(|(a, b)| close(a, b));
    let expected: [[f64; 3]; 3] = numbers(&reference["eigenvectors"]);
    vectors.iter().flatten().zip(expected.iter().flatten()).for_each(|(a, b)| assert!((a - b).abs() < 1e-9));
    let shift = PcaJitter::new(&statistics, 0.25);
    assert_eq!((shift.std, shift.eigenvectors), (0.25, vectors));
    shift.eigenvalues.into_iter().zip(values).for_each(|(a, b)| close(a, b / 255.0));
}

#[test]
fn epoch_starts_at_any_batch_and_stops_if_consume_returns_false() {
    let dir = tempfile::tempdir().unwrap();
    let set = opened(&dir);
    let config = config(&statistics(&set));
    let whole = batches(&set, &config, 0, 0);
    assert_eq!(whole.iter().map(Batch::len).collect::<Vec<_>>(), [4, 4, 4, 2]);
    let late = batches(&set, &config, 0, 2);
    assert_eq!(late.len(), 2);
    assert!(late[0].ids == whole[2].ids && late[0].pixels == whole[2].pixels);
    // Batches that were prefetched before an early exit do not reach the next epoch.
    let mut loader = Loader::new(set.clone(), config.clone()).unwrap();
    let mut seen = Vec::new();
    let first = |batch: &Batch, seen: &mut Vec<Vec<usize>>| seen.push(batch.ids.clone());
    let ended = loader.for_each(0, 1, |batch, _| {
        first(batch, &mut seen);
        Ok::<bool, Error>(false)
    });
    ended.unwrap();
    let failed = loader.for_each(0, 0, |batch, _| {
        first(batch, &mut seen);
        Err::<bool, Error>(Error::Interrupted)
    });
    assert!(matches!(failed, Err(Error::Interrupted)));
    let next = loader.for_each(1, 0, |batch, _| {
        first(batch, &mut seen);
        Ok::<bool, Error>(true)
    });
    next.unwrap();
    let other = batches(&set, &config, 1, 0);
    assert_eq!(seen[..2], [whole[1].ids.clone(), whole[0].ids.clone()]);
    assert_eq!(seen[2..], other.iter().map(|batch| batch.ids.clone()).collect::<Vec<_>>());
}

#[test]
fn ranks_divide_each_batch() {
    let plan = EpochOrder::new(14, 4, 11, 0);
    assert_eq!(plan.batches(), 4);
    let whole: Vec<Vec<usize>> = (0..4).map(|i| plan.batch(i)).collect();
    for of in [1, 2, 3, 5] {
        for (number, whole) in whole.iter().enumerate() {
            let parts: Vec<Vec<usize>> = (0..of)
                .map(|index| plan.clone().for_partition(Partition { index, count: of }).batch(number))
                .collect();
            assert_eq!(parts.concat(), *whole, "batch {number} of {of} ranks");
            let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }
    assert_eq!(plan.batch(4), [0; 0], "past the end");
    // A loader of rank 1 returns the second part of each batch, with equal pixels.
    let dir = tempfile::tempdir().unwrap();
    let set = opened(&dir);
    let config = config(&statistics(&set));
    let alone = batches(&set, &config, 0, 0);
    let second = batches(&set, &LoaderConfig { partition: Partition { index: 1, count: 2 }, ..config }, 0, 0);
    for (whole, part) in alone.iter().zip(&second) {
        let from = whole.len() / 2;
        assert_eq!(part.ids, whole.ids[from..]);
        assert_eq!(part.pixels, whole.pixels.slice(ndarray::s![from.., .., .., ..]));
        assert_eq!(part.offset, whole.offset.slice(ndarray::s![from.., ..]));
    }
}

#[test]
fn bad_images_are_skipped_or_returned_as_errors() {
    let dir = tempfile::tempdir().unwrap();
    let set = opened(&dir);
    let config = config(&statistics(&set));
    let whole = batches(&set, &config, 0, 0);
    let bad = whole[1].ids[1];
    std::fs::write(picture_path(dir.path(), "train", bad), b"").unwrap();
    let set = Arc::new(ImageSet::open(dir.path(), Split::Train).unwrap());
    let skip = LoaderConfig { on_bad_image: OnBadImage::Skip, ..config.clone() };
    let skipped = batches(&set, &skip, 0, 0);
    assert_eq!(skipped.iter().map(|batch| batch.skipped.len()).collect::<Vec<_>>(), [0, 1, 0, 0]);
    assert_eq!(skipped[1].skipped[0].id, bad);
    assert!(skipped[1].skipped[0].error.to_string().contains(&format!(
        "class{}/{}.png",
        bad / PICTURES_PER_CLASS,
        bad % PICTURES_PER_CLASS
    )));
    let kept = [0, 2, 3];
    assert_eq!(skipped[1].ids, kept.map(|i| whole[1].ids[i]));
    assert_eq!(skipped[1].targets, kept.map(|i| whole[1].targets[i]));
    assert_eq!(crc32_of_each(&skipped[1]), kept.map(|i| crc32_of_each(&whole[1])[i]));
    for (to, from) in kept.into_iter().enumerate() {
        assert_eq!(skipped[1].offset.row(to), whole[1].offset.row(from));
    }
    let mut loader = Loader::new(set, config).unwrap();
    let mut seen = 0;
    let stopped = loader.for_each(0, 0, |_, _| {
        seen += 1;
        Ok::<bool, Error>(true)
    });
    assert!(matches!(stopped, Err(Error::Decode { .. })) && seen == 1, "{stopped:?} after {seen}");
    // A missing file is not a bad image, so it is not skipped.
    let set = opened(&dir);
    std::fs::remove_file(picture_path(dir.path(), "train", 0)).unwrap();
    let mut loader = Loader::new(set, skip).unwrap();
    let missing = loader.for_each(0, 0, |_, _| Ok::<bool, Error>(true));
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
}

#[test]
fn invalid_loader_settings_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let set = opened(&dir);
    let config = config(&statistics(&set));
    let refused = |config: LoaderConfig| Loader::new(set.clone(), config).err().unwrap().to_string();
    assert_eq!(refused(LoaderConfig { batch: 0, ..config.clone() }), "batch must be at least 1");
    let partition = Partition { index: 2, count: 2 };
    assert_eq!(
        refused(LoaderConfig { partition, ..config.clone() }),
        "rank 2 is not valid for world size 2: ranks are 0 to world size - 1"
    );
    let augment = AugmentConfig { crop: 64, ..config.augment.clone() };
    assert!(refused(LoaderConfig { augment, ..config.clone() }).contains("is smaller than the crop, 64"));
    // 0 workers counts as 1.
    assert_eq!(batches(&set, &LoaderConfig { workers: 0, ..config }, 0, 0).len(), 4);
}
