//! Preparation: archives like ImageNet's, whole and damaged, become shards, or are refused by name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use vgg_data::prepare::{Files, Ilsvrc, IlsvrcOptions, Layout, PrepareOptions, Source, merge, prepare};
use vgg_data::synthetic::{SyntheticConfig, generate};
use vgg_data::{Encoding, Error, ImageSet, Manifest, Split, verify};
use vgg_testkit::imagenet::{ARCHIVES, FakeImagenet, edges, gzip};

const LENIENT: IlsvrcOptions = IlsvrcOptions { allow_incomplete: true, skip_md5: true };

fn options(shard_kib: u64) -> PrepareOptions {
    let encoding = Encoding::Jpeg { quality: 95 };
    PrepareOptions { smallest_side: Some(64), encoding, shard_bytes: shard_kib << 10, part: (1, 1) }
}

/// Contents of some small images.
fn images() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let config = SyntheticConfig { seed: 5, train_per_class: 2, val_per_class: 1 };
    generate(dir.path(), &config, 2, &|_, _| ()).unwrap();
    let train = ImageSet::open(dir.path(), Split::Train).unwrap();
    (0..train.len()).map(|i| std::fs::read(dir.path().join(&*train.path(i))).unwrap()).collect()
}

fn made(source: &dyn Source, options: &PrepareOptions, out: &Path, threads: usize) -> Result<(), Error> {
    prepare(source, options, out, threads, &mut |_| ControlFlow::Continue(()))
}

fn ilsvrc(dir: &Path) -> Ilsvrc {
    Ilsvrc::open(dir, LENIENT).unwrap()
}

/// All files but the lock: path and contents.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.is_file(), "{} is left over", path.display());
        if !path.ends_with(".lock") {
            let name = path.file_name().unwrap().into();
            found.insert(name, std::fs::read(path).unwrap());
        }
    }
    found
}

/// The description that stands beside each image, by its source.
fn descriptions(dir: &Path) -> BTreeMap<String, serde_json::Value> {
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

#[test]
fn every_image_has_its_class_and_its_box() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeImagenet::new(&images());
    let (archives, out) = (dir.path().join("archives"), dir.path().join("out"));
    fake.write(&archives);
    made(&ilsvrc(&archives), &options(40), &out, 2).unwrap();
    let described = descriptions(&out);
    let mut expected = Vec::new();
    for (wnid, images) in &fake.train {
        for (i, (name, _)) in images.iter().enumerate() {
            expected.push((format!("{}/{wnid}.tar/{name}", ARCHIVES[0]), wnid.clone(), i));
        }
    }
    for (i, (name, _)) in fake.val.iter().enumerate() {
        let number: usize = name["ILSVRC2012_val_".len()..].strip_suffix(".JPEG").unwrap().parse().unwrap();
        let class = fake.classes.iter().find(|class| class.0 == fake.truth[number - 1]).unwrap();
        expected.push((format!("{}/{name}", ARCHIVES[1]), class.1.clone(), i));
    }
    assert_eq!(described.len(), expected.len());
    for (source, wnid, i) in expected {
        let image = &described[&source];
        assert_eq!(
            (&image["class"], &image["target"]),
            (&wnid.clone().into(), &fake.index(&wnid).into()),
            "{source}"
        );
        let edge = |name: &str| image["boxes"][0][name].as_f64().unwrap() as usize;
        assert_eq!(["xmin", "ymin", "xmax", "ymax"].map(edge), edges(i), "{source}");
    }
    for split in [Split::Train, Split::Val] {
        let set = ImageSet::open(&out, split).unwrap();
        assert!(set.classes().is_sorted() && set.classes().len() == 1000);
        for i in 0..set.len() {
            let (path, image) = (set.path(i).into_owned(), set.image(i).unwrap());
            let class = path.split('/').nth(1).unwrap();
            let class = if split == Split::Train { class } else { &set.classes()[set.target(i) as usize] };
            assert_eq!(fake.index(class), set.target(i) as usize, "{path}");
            assert!(image.dim().0.min(image.dim().1) <= 64);
        }
    }
    let verified = verify(&out, &mut |_| ()).unwrap();
    assert_eq!((verified.images, verified.problems), (2 * fake.val.len() as u64, vec![]));
    let classes: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("classes.json")).unwrap()).unwrap();
    for (id, wnid, words) in &fake.classes {
        let line = &classes[fake.index(wnid)];
        assert_eq!((&line["ilsvrc2012_id"], &line["words"]), (&(*id).into(), &words.as_str().into()));
    }
}

#[test]
fn threads_parts_and_interruptions_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let images = images();
    FakeImagenet::new(&images).write(&dir.path().join("archives"));
    let source = ilsvrc(&dir.path().join("archives"));
    let at = |name: &str| dir.path().join(name);
    made(&source, &options(40), &at("whole"), 1).unwrap();
    let whole = contents(&at("whole"));
    assert!(whole.len() > 8, "several shards");
    made(&source, &options(40), &at("threads"), 4).unwrap();
    assert_eq!(contents(&at("threads")), whole);

    let parts: Vec<PathBuf> = (1..=3).map(|i| at(&format!("part{i}"))).collect();
    for (i, part) in parts.iter().enumerate() {
        made(&source, &PrepareOptions { part: (i + 1, 3), ..options(40) }, part, 2).unwrap();
    }
    let missing = merge(&parts[1..], &at("unmerged"), false).unwrap_err().to_string();
    assert!(missing.contains("part 1 of 3 is missing"), "{missing}");
    merge(&parts, &at("merged"), false).unwrap();
    assert_eq!(contents(&at("merged")), whole);
    let used = merge(&parts, &at("merged"), false).unwrap_err().to_string();
    assert!(used.contains("merged") && used.contains("a folder of its own"), "{used}");
    let shard = std::fs::read_dir(&parts[1]).unwrap().map(|entry| entry.unwrap().path());
    let shard = shard.filter(|path| path.extension().is_some_and(|e| e == "tar")).min().unwrap();
    std::fs::rename(&shard, dir.path().join("elsewhere")).unwrap();
    let gone = merge(&parts, &at("gone"), false).unwrap_err().to_string();
    assert!(gone.contains(&*shard.file_name().unwrap().to_string_lossy()), "{gone}");
    std::fs::rename(dir.path().join("elsewhere"), &shard).unwrap();

    for stop in [1, 2] {
        let mut heard = 0;
        let stopped = prepare(&source, &options(40), &at("stopped"), 2, &mut |_| {
            heard += 1;
            if heard == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }
    made(&source, &options(40), &at("stopped"), 1).unwrap();
    assert_eq!(contents(&at("stopped")), whole);
    // Once more does nothing; with other options it is refused.
    made(&source, &options(40), &at("stopped"), 1).unwrap();
    let error = made(&source, &options(50), &at("stopped"), 1).unwrap_err().to_string();
    assert!(error.contains("another preparation was begun here"), "{error}");
}

#[test]
fn an_input_that_changed_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut fake = FakeImagenet::new(&images());
    let (archives, out) = (dir.path().join("archives"), dir.path().join("out"));
    fake.write(&archives);
    let part = PrepareOptions { part: (1, 2), ..options(40) };
    made(&ilsvrc(&archives), &part, &out, 1).unwrap();
    fake.train[0].1[0].1 = fake.train[1].1[0].1.clone();
    fake.write(&archives);
    let error = made(&ilsvrc(&archives), &part, &out, 1).unwrap_err().to_string();
    assert!(error.contains("input: ILSVRC2012_img_train.tar") && error.contains("before"), "{error}");
}

/// What is done to the archives, and what must be said of it.
type Damage<'a> = (&'a str, &'a dyn Fn(&mut FakeImagenet), &'a dyn Fn(&Path), &'a [&'a str]);

#[test]
fn damaged_archives_are_refused_by_name() {
    let images: Vec<Vec<u8>> = images().into_iter().take(6).collect();
    let keep: &dyn Fn(&mut FakeImagenet) = &|_| ();
    let whole: &dyn Fn(&Path) = &|_| ();
    let edit = |dir: &Path, name: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let path = dir.join(name);
        std::fs::write(&path, change(std::fs::read(&path).unwrap())).unwrap();
    };
    let cut_outer = |dir: &Path| edit(dir, ARCHIVES[0], &|bytes| bytes[..bytes.len() / 2].to_vec());
    let cut_end = |dir: &Path| edit(dir, ARCHIVES[1], &|bytes| bytes[..bytes.len() - 1024].to_vec());
    let zipped = |dir: &Path| edit(dir, ARCHIVES[1], &|bytes| gzip(&bytes));
    let no_kit = |dir: &Path| std::fs::remove_file(dir.join(ARCHIVES[2])).unwrap();
    let kit_cut = |dir: &Path| edit(dir, ARCHIVES[2], &|bytes| bytes[..bytes.len() / 2].to_vec());
    let doubled = |dir: &Path| edit(dir, ARCHIVES[1], &|bytes| [bytes.clone(), bytes].concat());
    let box_bit = |dir: &Path| {
        edit(dir, ARCHIVES[4], &|mut bytes| {
            let last = bytes.len() - 6;
            bytes[last] ^= 1;
            bytes
        })
    };
    let no_class = |dir: &Path| {
        edit(dir, ARCHIVES[0], &|bytes| {
            // Cut where the second class's header would begin.
            let size = std::str::from_utf8(&bytes[124..135]).unwrap();
            let first = u64::from_str_radix(size.trim(), 8).unwrap().next_multiple_of(512) as usize;
            bytes[..512 + first].to_vec()
        })
    };
    let damages: [Damage; 20] = [
        ("two archives in one", keep, &doubled, &["ILSVRC2012_img_val.tar", "follows its end"]),
        ("a checksum of gzip", keep, &box_bit, &["bbox_val_v3.tgz", "damaged"]),
        ("cut between classes", keep, &no_class, &["ILSVRC2012_img_train.tar", "its end is missing"]),
        ("no boxes", &|f| f.val_boxes.clear(), whole, &["bbox_val_v3.tgz", "no annotation"]),
        ("outer tar cut", keep, &cut_outer, &["ILSVRC2012_img_train.tar", "cut off"]),
        ("tar without its end", keep, &cut_end, &["ILSVRC2012_img_val.tar", "its end is missing"]),
        ("gzip", keep, &zipped, &["ILSVRC2012_img_val.tar", "gzip"]),
        ("kit missing", keep, &no_kit, &["devkit_t12", "image-net.org"]),
        ("kit cut", keep, &kit_cut, &["devkit_t12", "damaged"]),
        ("a member above", &|f| f.val[0].0 = "../x.JPEG".into(), whole, &["\"../x.JPEG\"", "outside"]),
        ("an absolute member", &|f| f.val[0].0 = "/etc/x".into(), whole, &["\"/etc/x\"", "outside"]),
        ("a class twice", &|f| f.train[1].0 = f.train[0].0.clone(), whole, &["tar", "there twice"]),
        ("an image twice", &|f| f.val[1].0 = f.val[0].0.clone(), whole, &["_val_", "there twice"]),
        (
            "a foreign class",
            &|f| f.train[0].0 = "n99999999".into(),
            whole,
            &["n99999999.tar", "no archive of a class"],
        ),
        ("a foreign name", &|f| f.val[0].0 = "cat.JPEG".into(), whole, &["cat.JPEG", "ILSVRC2012_val_"]),
        ("number 0", &|f| f.val[0].0 = "ILSVRC2012_val_00000000.JPEG".into(), whole, &["from 1 to 50000"]),
        ("49,999 lines", &|f| f.truth.truncate(49_999), whole, &["49999 lines"]),
        ("class 1001", &|f| f.truth[2] = 1001, whole, &["line 3", "1001"]),
        ("999 classes", &|f| f.classes.truncate(999), whole, &["meta.mat", "999 classes"]),
        ("a broken box", &|f| f.val_boxes[0].1 = "<annotation>".into(), whole, &["bbox_val_v3.tgz", "xml"]),
    ];
    for (what, change, damage, words) in damages {
        let dir = tempfile::tempdir().unwrap();
        let mut fake = FakeImagenet::new(&images);
        change(&mut fake);
        fake.write(dir.path());
        damage(dir.path());
        let out = dir.path().join("out");
        let error = Ilsvrc::open(dir.path(), LENIENT).and_then(|source| made(&source, &options(40), &out, 1));
        let error = error.expect_err(what).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{what}: {error}");
        assert!(!out.join("index.json").exists(), "{what}");
    }
}

#[test]
fn what_can_be_borne_is() {
    let dir = tempfile::tempdir().unwrap();
    let images: Vec<Vec<u8>> = images().into_iter().take(6).collect();
    let mut fake = FakeImagenet::new(&images);
    fake.compressed = false;
    fake.val[0].1 = Vec::new();
    fake.val[1].1.truncate(300);
    fake.val[2].1 = b"<html>not found</html>".to_vec();
    fake.val_boxes[3].1 = fake.val_boxes[3].1.replace("<xmax>", "<xmax>-");
    fake.val_boxes.remove(4);
    let (archives, out) = (dir.path().join("archives"), dir.path().join("out"));
    fake.write(&archives);
    std::fs::remove_file(archives.join(ARCHIVES[3])).unwrap();
    let source = ilsvrc(&archives);
    assert_eq!(source.without(), [ARCHIVES[3]]);
    made(&source, &options(40), &out, 1).unwrap();
    let manifest: Manifest = vgg_files::read_json(&out.join("index.json")).unwrap();
    let val = &manifest.splits[&Split::Val];
    assert_eq!(val.images, 3);
    let reasons: Vec<&str> = val.left_out.iter().map(|image| image.reason.as_str()).collect();
    assert!(reasons[0].contains("empty") && reasons[2].contains("web page"), "{reasons:?}");
    assert!(val.left_out.iter().zip(&fake.val).all(|(out, (name, _))| out.path.ends_with(name.as_str())));
    assert!(val.odd.iter().any(|odd| odd.what.contains("inverted") && odd.path.ends_with(&fake.val[3].0)));
    assert_eq!(val.missing.len(), 1000);
    let described = descriptions(&out);
    let of = |i: usize| &described[&format!("{}/{}", ARCHIVES[1], fake.val[i].0)]["boxes"];
    assert!(of(3).as_array().unwrap().is_empty() && of(4).is_null() && of(5).as_array().unwrap().len() == 1);
    // Without leave, what is missing is told, and what could not be used.
    let strict = Ilsvrc::open(&archives, IlsvrcOptions { allow_incomplete: false, skip_md5: true }).unwrap();
    let error = made(&strict, &options(40), &dir.path().join("strict"), 1).unwrap_err().to_string();
    assert!(error.contains("of 1300 images") && error.contains("and 9"), "{error}");
    let checked = Ilsvrc::open(&archives, IlsvrcOptions::default()).err().unwrap().to_string();
    assert!(checked.contains("MD5") && checked.contains("fa75699e90414af021442c21a62c3abf"), "{checked}");
}

#[test]
fn a_prepared_folder_has_the_folders_images() {
    let dir = tempfile::tempdir().unwrap();
    let config = SyntheticConfig { seed: 3, train_per_class: 2, val_per_class: 1 };
    let folder = dir.path().join("set");
    generate(&folder, &config, 2, &|_, _| ()).unwrap();
    let sets = [Split::Train, Split::Val].map(|split| ImageSet::open(&folder, split).unwrap());
    let source = Files::open(&folder, Layout::Folders).unwrap();
    for (name, smallest_side, encoding) in [
        ("copied", None, Encoding::Jpeg { quality: 90 }),
        ("raw", None, Encoding::Raw),
        ("small", Some(48), Encoding::Raw),
    ] {
        let out = dir.path().join(name);
        let options = PrepareOptions { smallest_side, encoding, ..options(200) };
        made(&source, &options, &out, 2).unwrap();
        let mut statistics = vgg_data::PixelStatistics::default();
        for set in &sets {
            let prepared = ImageSet::open(&out, set.split()).unwrap();
            assert_eq!((prepared.len(), prepared.classes()), (set.len(), set.classes()));
            for i in 0..set.len() {
                let mut image = (*set.image(i).unwrap()).clone();
                if let Some(side) = smallest_side {
                    let (h, w) = vgg_data::scaled_size(image.dim().0, image.dim().1, side);
                    image = vgg_data::resize(&image, h, w, vgg_data::Filter::Bilinear).unwrap();
                }
                assert_eq!(
                    (&image, set.target(i)),
                    (&*prepared.image(i).unwrap(), prepared.target(i)),
                    "{name} {i}"
                );
                if set.split() == Split::Train {
                    statistics.add(&image);
                }
            }
            if set.split() == Split::Train {
                assert_eq!(prepared.statistics().unwrap(), statistics);
            }
        }
    }
    // A class that is none.
    let index = dir.path().join("raw/val.index");
    let whole = std::fs::read(&index).unwrap();
    let mut bytes = whole.clone();
    bytes[24 + 18] = 1;
    std::fs::write(&index, bytes).unwrap();
    let error = ImageSet::open(&dir.path().join("raw"), Split::Val).err().unwrap().to_string();
    assert!(error.contains("image 1 in val") && error.contains("verify"), "{error}");
    std::fs::write(&index, whole).unwrap();
    // One bit of a shard, and one of the index.
    for name in ["train-000000.tar", "val.index"] {
        let path = dir.path().join("raw").join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[700 % whole.len()] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let problems = verify(&dir.path().join("raw"), &mut |_| ()).unwrap().problems;
        assert!(problems.len() == 1 && problems[0].contains(name), "{problems:?}");
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(verify(&dir.path().join("raw"), &mut |_| ()).unwrap().problems, [""; 0]);
}

#[test]
fn the_real_kit_is_read_as_others_read_it() {
    let Some(kit) = vgg_tests::real_images("ilsvrc2012-devkit") else { return };
    let dir = tempfile::tempdir().unwrap();
    FakeImagenet::new(&images()).write(dir.path());
    let read = |name: &str| (format!("data/{name}"), std::fs::read(kit.join(name)).unwrap());
    let members = [read("meta.mat"), read("ILSVRC2012_validation_ground_truth.txt")];
    std::fs::write(dir.path().join(ARCHIVES[2]), gzip(&vgg_testkit::imagenet::tar(&members))).unwrap();
    let source = Ilsvrc::open(dir.path(), LENIENT).unwrap();
    let table = std::fs::read_to_string(kit.join("ilsvrc2012_id_map.tsv")).unwrap();
    let expected = source.expected(Split::Train).unwrap();
    assert_eq!(table.lines().count(), 1001);
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let index: usize = fields[2].parse().unwrap();
        let class = &source.classes()[index];
        assert_eq!((class.ilsvrc2012_id, class.name.as_str()), (fields[0].parse().ok(), fields[1]));
        assert_eq!(
            (expected[index].to_string().as_str(), class.words.as_deref()),
            (fields[3], Some(fields[4]))
        );
    }
}
