//! Prepared data sets at a URL equal those on disk, even with faulty servers.
//!
//! `cargo test -p vgg-tests --features remote --test remote`

#![cfg(feature = "remote")]
#[path = "http_server/mod.rs"]
mod http_server;
#[path = "preparation/mod.rs"]
mod preparation;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http_server::{Fault, Server};
use preparation::{options_with_shards_of_kib, prepare_quietly};
use vgg_data::prepare::{Files, Layout};
use vgg_data::synthetic::{SyntheticConfig, generate};
use vgg_data::{
    AugmentConfig, Batch, Error, Geometry, ImageSet, Interpolation, Loader, LoaderConfig, OnBadImage,
    Partition, RemoteConfig, Split,
};

/// A prepared data set of 30 training and 10 validation images in several shards.
fn prepared(dir: &Path) -> ImageSet {
    let config = SyntheticConfig { seed: 3, train_per_class: 3, val_per_class: 1 };
    generate(&dir.join("set"), &config, 2, &|_, _| ()).unwrap();
    let source = Files::open(&dir.join("set"), Layout::Folders).unwrap();
    prepare_quietly(&source, &options_with_shards_of_kib(40), &dir.join("out"), 2).unwrap();
    ImageSet::open(&dir.join("out"), Split::Train).unwrap()
}

fn config(dir: &Path, cache_bytes: u64) -> RemoteConfig {
    RemoteConfig { cache: dir.join("cache"), cache_bytes, requests: 8 }
}

fn open(server: &Server, config: &RemoteConfig) -> ImageSet {
    ImageSet::open_remote(&server.url(), Split::Train, config).unwrap()
}

fn assert_same(remote: &ImageSet, local: &ImageSet) {
    assert_eq!((remote.len(), remote.classes(), remote.hash()), (local.len(), local.classes(), local.hash()));
    assert_eq!(remote.statistics(), local.statistics());
    for i in 0..local.len() {
        assert_eq!(remote.path(i), local.path(i));
        assert_eq!(remote.target(i), local.target(i));
        assert_eq!(remote.image(i).unwrap(), local.image(i).unwrap(), "{}", local.path(i));
    }
}

fn batches(set: ImageSet, partition: Partition) -> Vec<Batch> {
    let augment = AugmentConfig {
        train_scale: [40, 56],
        crop: 32,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        flip: true,
        pca_jitter: None,
    };
    let on_bad_image = OnBadImage::Stop;
    let config =
        LoaderConfig { augment, mean_rgb: [0.0; 3], batch: 8, seed: 1, on_bad_image, workers: 2, partition };
    let mut all = Vec::new();
    let mut loader = Loader::new(Arc::new(set), config).unwrap();
    for epoch in 0..2 {
        let take = |batch: &Batch, _| {
            all.push(batch.clone());
            Ok::<_, Error>(true)
        };
        loader.for_each(epoch, 0, take).unwrap();
    }
    all
}

#[test]
fn images_are_fetched_once_and_match_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let local = prepared(dir.path());
    let server = Server::of(&dir.path().join("out"));
    let config = config(dir.path(), 1 << 30);
    assert_same(&open(&server, &config), &local);
    let (fetched, images) = (server.ranges.load(Relaxed), local.len());
    assert!(fetched >= images, "{fetched} requests");
    assert_same(&open(&server, &config), &local);
    assert_eq!(server.ranges.load(Relaxed), fetched, "the second pass must use the cache");
    // Data damaged by a crash or the disk is fetched again.
    let data = std::fs::read_dir(&config.cache).unwrap().map(|entry| entry.unwrap().path());
    let data = data.filter(|path| path.is_dir()).map(|path| path.join("data")).next().unwrap();
    let mut bytes = std::fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&data, &bytes[..bytes.len() - 1]).unwrap();
    assert_same(&open(&server, &config), &local);
    assert_eq!(server.ranges.load(Relaxed), fetched + 2);
}

#[test]
fn cache_respects_its_size_limit() {
    let dir = tempfile::tempdir().unwrap();
    let local = prepared(dir.path());
    let server = Server::of(&dir.path().join("out"));
    let config = config(dir.path(), 60_000);
    // Two sets stand for two processes.
    let sets = [open(&server, &config), open(&server, &config)];
    std::thread::scope(|scope| {
        sets.iter().for_each(|set| drop(scope.spawn(|| assert_same(set, &local))));
    });
    let mut kept = 0;
    for entry in std::fs::read_dir(&config.cache).unwrap().map(|entry| entry.unwrap().path()) {
        kept += std::fs::metadata(entry.join("data")).map_or(0, |data| data.len());
    }
    assert!(kept > 10_000 && kept <= 60_000, "{kept} bytes");
}

#[test]
fn batches_match_the_folder_on_any_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let local = batches(prepared(dir.path()), Partition::WHOLE);
    let server = Server::of(&dir.path().join("out"));
    for of in [1, 3] {
        let config = config(dir.path(), 0);
        let ranks: Vec<_> =
            (0..of).map(|index| batches(open(&server, &config), Partition { index, count: of })).collect();
        assert!(!local.is_empty() && ranks.iter().all(|rank| rank.len() == local.len()));
        for (i, whole) in local.iter().enumerate() {
            let ids: Vec<usize> = ranks.iter().flat_map(|rank| rank[i].ids.clone()).collect();
            let targets: Vec<u32> = ranks.iter().flat_map(|rank| rank[i].targets.clone()).collect();
            assert_eq!((ids, targets), (whole.ids.clone(), whole.targets.clone()));
            let offsets = ranks.iter().flat_map(|rank| rank[i].offset.iter());
            assert!(offsets.eq(&whole.offset), "batch {i} on {of} ranks");
            let pixels = ranks.iter().flat_map(|rank| rank[i].pixels.iter());
            assert!(pixels.eq(&whole.pixels), "batch {i} on {of} ranks");
        }
    }
}

#[test]
fn server_faults_are_reported_or_retried() {
    let dir = tempfile::tempdir().unwrap();
    let local = prepared(dir.path());
    let config = config(dir.path(), 0);
    let with = |fault| Server::with_fault(&dir.path().join("out"), fault);
    // Requests to busy servers are retried.
    let server = with(Fault::Busy(3));
    assert_same(&open(&server, &config), &local);
    let server = with(Fault::FlipsABit);
    let error = open(&server, &config).image(0).unwrap_err();
    assert!(!error.is_bad_image() && error.to_string().contains("was replaced"), "{error}");
    let server = with(Fault::IgnoresRanges);
    let error = open(&server, &config).image(0).unwrap_err().to_string();
    assert!(error.contains("fetch") && error.contains("train-000000.tar"), "{error}");
    let server = with(Fault::Lacks("train-000001.tar"));
    let set = open(&server, &config);
    let errors: Vec<String> =
        (0..set.len()).filter_map(|i| set.image(i).err()).map(|e| e.to_string()).collect();
    assert!(!errors.is_empty() && errors.len() < set.len());
    assert!(
        errors.iter().all(|e| e.contains("train-000001.tar") && e.contains("does not exist")),
        "{errors:?}"
    );
    let server = with(Fault::Lacks("index.json"));
    let error = ImageSet::open_remote(&server.url(), Split::Train, &config).err().unwrap().to_string();
    assert!(error.contains("index.json") && error.contains("does not exist"), "{error}");
    for url in ["ftp://a/b", "http://", "s3://"] {
        assert!(matches!(ImageSet::open_remote(url, Split::Val, &config), Err(Error::Config(_))), "{url}");
    }
}
