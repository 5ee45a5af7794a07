//! Preparation of ImageNet-like archives: shards, parts, interruptions and merging.

mod preparation;

use std::ops::ControlFlow;
use std::path::PathBuf;

use preparation::{
    LENIENT, contents, descriptions, ilsvrc, images, options_with_shards_of_kib, prepare_quietly,
};
use vgg_data::prepare::{Files, Ilsvrc, IlsvrcOptions, Layout, PrepareOptions, Source, merge, prepare};
use vgg_data::synthetic::{SyntheticConfig, generate};
use vgg_data::{Encoding, Error, ImageSet, Manifest, Partition, Split, verify};
use vgg_testkit::imagenet::{ARCHIVES, FakeImagenet, edges, gzip};

#[test]
fn every_image_has_its_class_and_its_box() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeImagenet::new(&images());
    let (archives, out) = (dir.path().join("archives"), dir.path().join("out"));
    fake.write(&archives);
    prepare_quietly(&ilsvrc(&archives), &options_with_shards_of_kib(40), &out, 2).unwrap();
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
            assert_eq!(image.dim().0.min(image.dim().1), 64, "{path}");
        }
    }
    let verified = verify(&out, &mut |_| ()).unwrap();
    assert_eq!((verified.images, verified.problems), (2 * fake.val.len() as u64, vec![]));
    let classes: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("classes.json")).unwrap()).unwrap();
    assert_eq!((classes.as_array().unwrap().len(), fake.classes.len()), (1000, 1000));
    for (id, wnid, words) in &fake.classes {
        let line = &classes[fake.index(wnid)];
        assert_eq!((&line["ilsvrc2012_id"], &line["words"]), (&(*id).into(), &words.as_str().into()));
    }
}

#[test]
fn shards_do_not_depend_on_threads_parts_or_interruptions() {
    let dir = tempfile::tempdir().unwrap();
    let images = images();
    FakeImagenet::new(&images).write(&dir.path().join("archives"));
    let source = ilsvrc(&dir.path().join("archives"));
    let at = |name: &str| dir.path().join(name);
    prepare_quietly(&source, &options_with_shards_of_kib(40), &at("whole"), 1).unwrap();
    let whole = contents(&at("whole"));
    assert!(whole.len() > 8, "several shards");
    prepare_quietly(&source, &options_with_shards_of_kib(40), &at("threads"), 4).unwrap();
    assert_eq!(contents(&at("threads")), whole);

    let parts: Vec<PathBuf> = (1..=3).map(|i| at(&format!("part{i}"))).collect();
    for (i, part) in parts.iter().enumerate() {
        prepare_quietly(
            &source,
            &PrepareOptions { part: Partition { index: i, count: 3 }, ..options_with_shards_of_kib(40) },
            part,
            2,
        )
        .unwrap();
    }
    let missing = merge(&parts[1..], &at("unmerged"), false).unwrap_err().to_string();
    assert!(missing.contains("part 1/3 is missing"), "{missing}");
    merge(&parts, &at("merged"), false).unwrap();
    assert_eq!(contents(&at("merged")), whole);
    let used = merge(&parts, &at("merged"), false).unwrap_err().to_string();
    assert!(used.contains("merged") && used.contains("must be empty"), "{used}");
    let shard = std::fs::read_dir(&parts[1]).unwrap().map(|entry| entry.unwrap().path());
    let shard = shard.filter(|path| path.extension().is_some_and(|e| e == "tar")).min().unwrap();
    std::fs::rename(&shard, dir.path().join("elsewhere")).unwrap();
    let gone = merge(&parts, &at("gone"), false).unwrap_err().to_string();
    assert!(gone.contains(&*shard.file_name().unwrap().to_string_lossy()), "{gone}");
    std::fs::rename(dir.path().join("elsewhere"), &shard).unwrap();

    for stop in [1, 2] {
        let mut heard = 0;
        let stopped = prepare(&source, &options_with_shards_of_kib(40), &at("stopped"), 2, &mut |_| {
            heard += 1;
            if heard == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }
    prepare_quietly(&source, &options_with_shards_of_kib(40), &at("stopped"), 1).unwrap();
    assert_eq!(contents(&at("stopped")), whole);
    // Repeating it does nothing; other options are refused.
    prepare_quietly(&source, &options_with_shards_of_kib(40), &at("stopped"), 1).unwrap();
    let error =
        prepare_quietly(&source, &options_with_shards_of_kib(50), &at("stopped"), 1).unwrap_err().to_string();
    let words = "other settings or input; remove it, or choose another folder: \
                 maximum size of a shard: 0.0390625 MiB before, 0.048828125 MiB now";
    assert!(error.ends_with(words), "{error}");
    let smaller = PrepareOptions { smallest_side: Some(48), ..options_with_shards_of_kib(40) };
    let error = prepare_quietly(&source, &smaller, &at("stopped"), 1).unwrap_err().to_string();
    assert!(error.ends_with("folder: smallest side: 64 before, 48 now"), "{error}");
}

#[test]
fn failed_merge_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    FakeImagenet::new(&images()).write(&at("archives"));
    let strict = IlsvrcOptions { allow_incomplete: false, skip_md5: true };
    let source = Ilsvrc::open(&at("archives"), strict).unwrap();
    let parts = [at("one"), at("two")];
    for (number, part) in parts.iter().enumerate() {
        prepare_quietly(
            &source,
            &PrepareOptions { part: Partition { index: number, count: 2 }, ..options_with_shards_of_kib(40) },
            part,
            1,
        )
        .unwrap();
    }
    let error = merge(&parts, &at("out"), false).unwrap_err();
    assert!(matches!(error, Error::Incomplete { .. }), "{error}");
    // A killed merge also leaves such a file.
    std::fs::write(at("out/.train.names.1-0-1.partial"), "x").unwrap();
    let record = std::fs::read_dir(at("two/.preparation")).unwrap().map(|entry| entry.unwrap().path());
    let record = record.filter(|path| path.to_string_lossy().contains("train-")).min().unwrap();
    std::fs::rename(&record, at("elsewhere")).unwrap();
    let error = merge(&parts, &at("out"), true).unwrap_err().to_string();
    assert!(error.contains("two") && error.contains("not finished"), "{error}");
    // A changed class would become a wrong label.
    let text = std::fs::read_to_string(at("elsewhere")).unwrap();
    std::fs::write(&record, text.replacen("\"target\": ", "\"target\": 1", 1)).unwrap();
    let error = merge(&parts, &at("out"), true).unwrap_err().to_string();
    assert!(error.contains("its checksum does not match"), "{error}");
    std::fs::rename(at("elsewhere"), &record).unwrap();
    merge(&parts, &at("out"), true).unwrap();
    contents(&at("out"));
    let error = merge(&[at("out")], &at("other"), true).unwrap_err().to_string();
    assert!(error.contains("whole data set"), "{error}");
}

/// Class archives, the archive of one split, and other forms of the development kit give the same images.
#[test]
fn partial_and_unpacked_archives() {
    let dir = tempfile::tempdir().unwrap();
    let archives = dir.path().join("archives");
    let fake = FakeImagenet::new(&images());
    fake.write(&archives);
    let strict = IlsvrcOptions { allow_incomplete: false, skip_md5: true };
    // Class and pixels of every image of the splits that there are.
    let prepared = |name: &str| -> Vec<Vec<_>> {
        let out = dir.path().join(name);
        prepare_quietly(&ilsvrc(&archives), &options_with_shards_of_kib(40), &out, 1).unwrap();
        let sets = Manifest::read(&out).unwrap().splits;
        let sets = sets.keys().map(|&split| ImageSet::open(&out, split).unwrap());
        sets.map(|set| (0..set.len()).map(|i| (set.target(i), set.image(i).unwrap())).collect()).collect()
    };
    let whole = prepared("whole");
    assert_eq!(whole.len(), 2);

    let bytes = std::fs::read(archives.join("ILSVRC2012_img_train.tar")).unwrap();
    tar::Archive::new(bytes.as_slice()).unpack(archives.join("train")).unwrap();
    std::fs::remove_file(archives.join("ILSVRC2012_img_train.tar")).unwrap();
    assert!(prepared("class archives") == whole);

    // The development kit, decompressed and then unpacked.
    std::fs::remove_file(archives.join("ILSVRC2012_devkit_t12.tar.gz")).unwrap();
    let truth: String = fake.truth.iter().map(|id| format!("{id}\n")).collect();
    let files =
        [("meta.mat", fake.meta_mat()), ("ILSVRC2012_validation_ground_truth.txt", truth.into_bytes())];
    let mut kit = tar::Builder::new(Vec::new());
    for (name, bytes) in &files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        kit.append_data(&mut header, format!("ILSVRC2012_devkit_t12/data/{name}"), bytes.as_slice()).unwrap();
    }
    let tar_path = archives.join("ILSVRC2012_devkit_t12.tar");
    std::fs::write(&tar_path, kit.into_inner().unwrap()).unwrap();
    assert!(prepared("decompressed") == whole);
    std::fs::remove_file(tar_path).unwrap();
    let data = archives.join("ILSVRC2012_devkit_t12/data");
    std::fs::create_dir_all(&data).unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(data.join(name), bytes).unwrap());
    assert!(prepared("unpacked") == whole);

    std::fs::remove_dir_all(archives.join("train")).unwrap();
    let error = Ilsvrc::open(&archives, strict).err().unwrap().to_string();
    assert!(error.contains("has no ILSVRC2012_img_train.tar;"), "{error}");
    assert!(prepared("val") == whole[1..]);
}

#[test]
fn changed_input_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let mut fake = FakeImagenet::new(&images());
    let (archives, out) = (dir.path().join("archives"), dir.path().join("out"));
    fake.write(&archives);
    let part = PrepareOptions { part: Partition { index: 0, count: 2 }, ..options_with_shards_of_kib(40) };
    prepare_quietly(&ilsvrc(&archives), &part, &out, 1).unwrap();
    fake.train[0].1[0].1 = fake.train[1].1[0].1.clone();
    fake.write(&archives);
    let error = prepare_quietly(&ilsvrc(&archives), &part, &out, 1).unwrap_err().to_string();
    assert!(error.contains("input: ILSVRC2012_img_train.tar") && error.contains("before"), "{error}");
}

#[test]
fn prepared_folder_has_the_same_images() {
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
        let options = PrepareOptions { smallest_side, encoding, ..options_with_shards_of_kib(200) };
        prepare_quietly(&source, &options, &out, 2).unwrap();
        let mut statistics = vgg_data::PixelStatistics::default();
        for set in &sets {
            let prepared = ImageSet::open(&out, set.split()).unwrap();
            assert_eq!((prepared.len(), prepared.classes()), (set.len(), set.classes()));
            for i in 0..set.len() {
                let mut image = (*set.image(i).unwrap()).clone();
                if let Some(side) = smallest_side {
                    let (h, w) = vgg_data::scaled_size(image.dim().0, image.dim().1, side);
                    image = vgg_data::resize(&image, h, w, vgg_data::Interpolation::Bilinear).unwrap();
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
    // An invalid class.
    let index = dir.path().join("raw/val.index");
    let whole = std::fs::read(&index).unwrap();
    let mut bytes = whole.clone();
    bytes[24 + 18] = 1;
    std::fs::write(&index, bytes).unwrap();
    let error = ImageSet::open(&dir.path().join("raw"), Split::Val).err().unwrap().to_string();
    assert!(error.contains("val.index is damaged"), "{error}");
    std::fs::write(&index, whole).unwrap();
    // One flipped bit in a shard, and in each index file.
    for name in ["train-000000.tar", "val.index", "val.names", "classes.json", "index.json"] {
        let path = dir.path().join("raw").join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[700 % whole.len()] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let problems = match verify(&dir.path().join("raw"), &mut |_| ()) {
            Ok(verified) => verified.problems,
            Err(error) => vec![error.to_string()],
        };
        assert!(problems.len() == 1 && problems[0].contains(name), "{problems:?}");
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(verify(&dir.path().join("raw"), &mut |_| ()).unwrap().problems, [""; 0]);
}

#[test]
fn official_devkit_matches_the_published_class_map() {
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
