//! A prepared data set of 14 million images takes 4 bytes of memory per image, for their classes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use vgg_data::{
    AugmentConfig, Encoding, Geometry, ImageSet, IndexFile, Interpolation, Loader, LoaderConfig, Manifest,
    OnBadImage, Partition, PixelStatistics, ShardFile, Split, SplitManifest,
};
use vgg_files::{hash_bytes, hash_file};

/// Writes a data set whose records all refer to the same image in a single shard.
fn make(root: &Path, images: u64) {
    let ppm = [b"P6\n48 40\n255\n".as_slice(), &[7; 48 * 40 * 3]].concat();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(ppm.len() as u64);
    header.set_path("a/x.ppm").unwrap();
    header.set_cksum();
    tar.append(&header, ppm.as_slice()).unwrap();
    let shard = tar.into_inner().unwrap();
    std::fs::create_dir_all(root).unwrap();
    std::fs::write(root.join("train-000000.tar"), &shard).unwrap();
    let checksum = crc32fast::hash(&ppm);
    let mut index = std::io::BufWriter::new(std::fs::File::create(root.join("train.index")).unwrap());
    for i in 0..images {
        let mut record = [0; 32];
        record[..8].copy_from_slice(&512_u64.to_le_bytes());
        record[16..20].copy_from_slice(&(ppm.len() as u32).to_le_bytes());
        record[24..28].copy_from_slice(&((i % 2) as u32).to_le_bytes());
        record[28..].copy_from_slice(&checksum.to_le_bytes());
        index.write_all(&record).unwrap();
    }
    index.flush().unwrap();
    std::fs::write(root.join("train.names"), "a/x.ppm\n").unwrap();
    let none = hash_bytes(b"");
    let list = |file: &str, bytes| {
        let blake3 = hash_file(&root.join(file)).unwrap();
        IndexFile { file: file.into(), bytes, blake3 }
    };
    let file = ShardFile {
        file: "train-000000.tar".into(),
        bytes: shard.len() as u64,
        images,
        blake3: none.clone(),
    };
    let split = SplitManifest {
        images,
        of_class: vec![images / 2; 2],
        index: list("train.index", images * 32),
        names: list("train.names", 8),
        shards: vec![file],
        statistics: PixelStatistics::default(),
        mean_rgb: [0.0; 3],
        covariance: [[0.0; 3]; 3],
        eigenvalues: [0.0; 3],
        eigenvectors: [[0.0; 3]; 3],
        smallest_sides: BTreeMap::new(),
        anomalies: Vec::new(),
        skipped: Vec::new(),
        missing: Vec::new(),
    };
    let mut manifest = Manifest::new("a test".into(), Encoding::Raw, None, vec!["a".into(), "b".into()]);
    manifest.splits.insert(Split::Train, split);
    manifest.write(root).unwrap();
}

/// Anonymous memory of this process in KiB.
fn anonymous_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Memory used while batches of three epochs are made.
fn taken(root: &Path, images: u64) -> Option<u64> {
    make(root, images);
    let before = anonymous_kib()?;
    let set = Arc::new(ImageSet::open(root, Split::Train).unwrap());
    assert_eq!(set.len() as u64, images);
    let augment = AugmentConfig {
        train_scale: [32, 40],
        crop: 32,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        flip: true,
        pca_jitter: None,
    };
    let config = LoaderConfig {
        augment,
        mean_rgb: [0.0; 3],
        batch: 16,
        seed: 1,
        on_bad_image: OnBadImage::Stop,
        workers: 2,
        partition: Partition::WHOLE,
    };
    let mut loader = Loader::new(set, config).unwrap();
    let (mut ids, mut most) = (Vec::<usize>::new(), 0);
    for epoch in 0..3 {
        // Starts in the middle, as after an interruption.
        loader
            .for_each(epoch, images as usize / 32, |batch, _| {
                ids.extend(&batch.ids);
                most = most.max(anonymous_kib().unwrap_or(0));
                Ok::<_, vgg_data::Error>(ids.len() % 160 != 0)
            })
            .unwrap();
    }
    assert!(ids.len() == 480 && ids.iter().any(|&id| id as u64 > images / 2));
    Some(most.saturating_sub(before))
}

#[test]
fn memory_is_4_bytes_per_image() {
    let dir = tempfile::tempdir().unwrap();
    let (Some(small), Some(large)) =
        (taken(&dir.path().join("a"), 1400), taken(&dir.path().join("b"), 14_000_000))
    else {
        vgg_testkit::skip("memory", &"the system does not report memory use");
        return;
    };
    let classes = 14_000_000 * 4 / 1024;
    assert!(large < small + classes + 4096, "{small} KiB for 1,400 images, {large} KiB for 14 million");
}
