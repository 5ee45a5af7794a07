//! Preparation without disk space, without write permission, or with changed input.

mod preparation;

use std::ops::ControlFlow;
use std::path::Path;

use preparation::{contents, ilsvrc, images, options_with_shards_of_kib, prepare_quietly};
use vgg_data::prepare::{Event, Files, Ilsvrc, IlsvrcOptions, Layout, prepare};
use vgg_data::synthetic::{SyntheticConfig, generate};
use vgg_data::{Error, ImageSet, Manifest, Split};
use vgg_testkit::SmallDisk;
use vgg_testkit::imagenet::FakeImagenet;

/// Names of unfinished files in a folder.
fn unfinished_files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.contains("partial")).collect()
}

#[test]
fn preparation_resumes_after_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let Some(disk) = SmallDisk::mount(&at("disk"), 4096) else { return };
    FakeImagenet::new(&images()).write(&at("archives"));
    let source = ilsvrc(&at("archives"));
    prepare_quietly(&source, &options_with_shards_of_kib(40), &at("whole"), 1).unwrap();
    let out = at("disk/out");
    let mut filled = false;
    let error = prepare(&source, &options_with_shards_of_kib(40), &out, 2, &mut |event| {
        if matches!(event, Event::Images(..)) && !filled {
            // Another process takes the remaining space.
            let mut rest = std::fs::File::create(at("disk/rest")).unwrap();
            while std::io::Write::write_all(&mut rest, &[1; 4096]).is_ok() {}
            filled = true;
        }
        ControlFlow::Continue(())
    });
    let error = error.unwrap_err().to_string();
    assert!(filled && error.contains("disk/out") && error.contains("No space left"), "{error}");
    assert!(!out.join("index.json").exists());
    assert_eq!(unfinished_files(&out), [""; 0]);
    std::fs::remove_file(at("disk/rest")).unwrap();
    prepare_quietly(&source, &options_with_shards_of_kib(40), &out, 2).unwrap();
    assert_eq!(contents(&out), contents(&at("whole")));
    drop(disk);
}

#[test]
fn too_little_space_is_an_error_before_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(&dir.path().join("disk"), 64) else { return };
    FakeImagenet::new(&images()).write(&dir.path().join("archives"));
    let out = dir.path().join("disk/out");
    let error =
        prepare_quietly(&ilsvrc(&dir.path().join("archives")), &options_with_shards_of_kib(40), &out, 1)
            .unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
}

#[test]
fn read_only_output_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 4096) else { return };
    FakeImagenet::new(&images()).write(&dir.path().join("archives"));
    let source = ilsvrc(&dir.path().join("archives"));
    disk.make_read_only();
    let error = prepare_quietly(&source, &options_with_shards_of_kib(40), &dir.path().join("disk/out"), 1)
        .unwrap_err()
        .to_string();
    assert!(error.contains("disk/out") && error.contains("Read-only"), "{error}");
}

#[test]
fn allow_incomplete_may_be_given_later() {
    let dir = tempfile::tempdir().unwrap();
    let (archives, out) = (dir.path().join("archives"), dir.path().join("out"));
    FakeImagenet::new(&images()).write(&archives);
    let open = |allow_incomplete| {
        Ilsvrc::open(&archives, IlsvrcOptions { allow_incomplete, skip_md5: true }).unwrap()
    };
    let error = prepare_quietly(&open(false), &options_with_shards_of_kib(40), &out, 1).unwrap_err();
    assert!(
        matches!(error, Error::Incomplete { .. }) && error.to_string().contains("of 1300 images"),
        "{error}"
    );
    let mut kept = 0;
    prepare(&open(true), &options_with_shards_of_kib(40), &out, 1, &mut |event| {
        kept += usize::from(matches!(event, Event::Kept(..)));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(kept > 3, "finished work must be reused");
    let manifest = Manifest::read(&out).unwrap();
    assert_eq!(manifest.splits[&Split::Train].missing.len(), 1000);
}

#[test]
fn changed_folder_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let (set, out) = (dir.path().join("set"), dir.path().join("out"));
    let config = SyntheticConfig { seed: 3, train_per_class: 2, val_per_class: 1 };
    generate(&set, &config, 2, &|_, _| ()).unwrap();
    let source = || Files::open(&set, Layout::Folders).unwrap();
    let stopped =
        prepare(&source(), &options_with_shards_of_kib(40), &out, 1, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Interrupted)));
    let error = ImageSet::open(&out, Split::Train).err().unwrap();
    assert!(matches!(error, Error::Unfinished { .. }), "{error}");
    let class = std::fs::read_dir(set.join("val")).unwrap().next().unwrap().unwrap().path();
    let image = std::fs::read_dir(&class).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&image).unwrap();
    bytes.push(0);
    std::fs::write(&image, bytes).unwrap();
    let error = prepare_quietly(&source(), &options_with_shards_of_kib(40), &out, 1).unwrap_err().to_string();
    assert!(error.contains("input: val/") && error.contains("before"), "{error}");
}
