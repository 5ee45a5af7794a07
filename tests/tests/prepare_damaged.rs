//! Damaged ImageNet-like archives: refused with the file's name, or tolerated and reported.

mod preparation;

use std::path::Path;

use preparation::{LENIENT, descriptions, ilsvrc, images, options_with_shards_of_kib, prepare_quietly};
use vgg_data::prepare::{Ilsvrc, IlsvrcOptions};
use vgg_data::{Manifest, Split};
use vgg_testkit::imagenet::{ARCHIVES, FakeImagenet, gzip};

/// A change of the archives, and words that the error must contain.
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
            // Truncated where the header of the second class would begin.
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
        ("outer tar cut", keep, &cut_outer, &["ILSVRC2012_img_train.tar", "truncated"]),
        ("tar without its end", keep, &cut_end, &["ILSVRC2012_img_val.tar", "its end is missing"]),
        ("gzip", keep, &zipped, &["ILSVRC2012_img_val.tar", "gzip"]),
        ("kit missing", keep, &no_kit, &["devkit_t12", "image-net.org"]),
        ("kit cut", keep, &kit_cut, &["devkit_t12", "damaged"]),
        ("a member above", &|f| f.val[0].0 = "../x.JPEG".into(), whole, &["\"../x.JPEG\"", "outside"]),
        ("an absolute member", &|f| f.val[0].0 = "/etc/x".into(), whole, &["\"/etc/x\"", "outside"]),
        ("a class twice", &|f| f.train[1].0 = f.train[0].0.clone(), whole, &["tar", "occurs twice"]),
        ("an image twice", &|f| f.val[1].0 = f.val[0].0.clone(), whole, &["_val_", "occurs twice"]),
        (
            "a foreign class",
            &|f| f.train[0].0 = "n99999999".into(),
            whole,
            &["n99999999.tar", "not named after a class of ILSVRC-2012"],
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
        let error = Ilsvrc::open(dir.path(), LENIENT)
            .and_then(|source| prepare_quietly(&source, &options_with_shards_of_kib(40), &out, 1));
        let error = error.expect_err(what).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{what}: {error}");
        assert!(!out.join("index.json").exists(), "{what}");
    }
}

#[test]
fn bad_images_and_boxes_are_skipped_and_recorded() {
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
    assert_eq!(source.missing_box_archives(), [ARCHIVES[3]]);
    prepare_quietly(&source, &options_with_shards_of_kib(40), &out, 1).unwrap();
    let manifest: Manifest = vgg_files::read_json(&out.join("index.json")).unwrap();
    let val = &manifest.splits[&Split::Val];
    assert_eq!(val.images, 3);
    let reasons: Vec<&str> = val.skipped.iter().map(|image| image.reason.as_str()).collect();
    assert_eq!(reasons.len(), 3);
    assert!(reasons[0].contains("empty") && reasons[2].contains("web page"), "{reasons:?}");
    for (out, member) in val.skipped.iter().zip(&fake.val) {
        assert!(out.path.ends_with(&member.0), "{}: {}", out.path, out.reason);
    }
    assert!(
        val.anomalies.iter().any(|odd| odd.what.contains("inverted") && odd.path.ends_with(&fake.val[3].0))
    );
    assert_eq!(val.missing.len(), 1000);
    let described = descriptions(&out);
    let of = |i: usize| &described[&format!("{}/{}", ARCHIVES[1], fake.val[i].0)]["boxes"];
    assert!(of(3).as_array().unwrap().is_empty() && of(4).is_null() && of(5).as_array().unwrap().len() == 1);
    // Without `allow_incomplete`, the error lists missing and unusable images.
    let strict = Ilsvrc::open(&archives, IlsvrcOptions { allow_incomplete: false, skip_md5: true }).unwrap();
    let error = prepare_quietly(&strict, &options_with_shards_of_kib(40), &dir.path().join("strict"), 1)
        .unwrap_err()
        .to_string();
    assert!(error.contains("of 1300 images") && error.contains("and 9"), "{error}");
    let checked = Ilsvrc::open(&archives, IlsvrcOptions::default()).err().unwrap().to_string();
    assert!(checked.contains("MD5") && checked.contains("fa75699e90414af021442c21a62c3abf"), "{checked}");
}

/// A tar member of any type.
fn member(kind: tar::EntryType, name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_path(name).unwrap();
    header.set_size(bytes.len() as u64);
    if kind == tar::EntryType::Symlink {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    let mut all = [header.as_bytes(), bytes].concat();
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

#[test]
fn members_that_are_not_files_or_have_wrong_sizes_are_refused() {
    let images: Vec<Vec<u8>> = images().into_iter().take(3).collect();
    let name = "ILSVRC2012_val_00000001.JPEG";
    let sized = |record: &[u8]| {
        [member(tar::EntryType::XHeader, "x", record), member(tar::EntryType::Regular, name, b"x")].concat()
    };
    let inner = gzip(&vgg_testkit::imagenet::tar(&[("a.JPEG".into(), images[0].clone())]));
    for (archive, first, words) in [
        (1, member(tar::EntryType::Symlink, name, b""), "Symlink"),
        (1, member(tar::EntryType::Link, name, b""), "Link"),
        (1, sized(b"20 size=99999999999\n"), "a size among extended attributes"),
        (1, sized(b"99 path=a\n"), "extended attributes is damaged"),
        (0, member(tar::EntryType::Regular, "n01000039.tar", &inner), "gzip"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        FakeImagenet::new(&images).write(dir.path());
        std::fs::write(dir.path().join(ARCHIVES[archive]), [first, vec![0; 1024]].concat()).unwrap();
        let out = dir.path().join("out");
        let error = prepare_quietly(&ilsvrc(dir.path()), &options_with_shards_of_kib(40), &out, 1)
            .unwrap_err()
            .to_string();
        assert!(error.contains(ARCHIVES[archive]) && error.contains(words), "{words}: {error}");
        assert!(!out.join("index.json").exists());
    }
}

#[test]
fn unreadable_devkit_has_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut fake = FakeImagenet::new(&images().into_iter().take(3).collect::<Vec<_>>());
    fake.write(dir.path());
    let truth: String = fake.truth.iter().map(|id| format!("{id}\r\n")).collect();
    let open = |meta: Vec<u8>| {
        let members = [
            ("data/meta.mat".to_owned(), meta),
            ("data/ILSVRC2012_validation_ground_truth.txt".to_owned(), truth.clone().into_bytes()),
        ];
        std::fs::write(dir.path().join(ARCHIVES[2]), gzip(&vgg_testkit::imagenet::tar(&members))).unwrap();
        Ilsvrc::open(dir.path(), LENIENT).map(drop).map_err(|e| e.to_string())
    };
    let whole = fake.meta_mat();
    open(whole.clone()).expect("Windows line endings are accepted");
    let refused = |meta: Vec<u8>, word: &str| {
        let error = open(meta).unwrap_err();
        assert!(error.contains("meta.mat") && error.contains(word), "{error}");
    };
    refused([b"MATLAB 7.3 MAT-file".as_slice(), &[b' '; 600]].concat(), "version 7.3");
    refused([b"\x89HDF\r\n\x1a\n".as_slice(), &[0; 600]].concat(), "version 7.3");
    let mut other = whole.clone();
    other[126..128].copy_from_slice(b"MI");
    refused(other, "byte order");
    fake.compressed = false;
    let plain = fake.meta_mat();
    // Truncated and damaged anywhere: never a panic, and truncation is detected.
    for cut in (0..plain.len()).step_by(plain.len() / 23) {
        open(plain[..cut].to_vec()).unwrap_err();
    }
    for i in 0..40 {
        let mut damaged = plain.clone();
        let at = 128 + i * i * 37 % (plain.len() - 128);
        damaged[at] ^= 1 << (i % 8);
        let _ = open(damaged);
    }
}
