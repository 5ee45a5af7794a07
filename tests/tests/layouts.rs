//! Published data set layouts become shards with the right classes, splits and boxes.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use vgg_data::prepare::{Entry, Files, Layout, PrepareOptions, Source, prepare};
use vgg_data::{Encoding, ImageSet, Split};
use vgg_testkit::imagenet::FakeImagenet;

/// Writes a file and creates its parent folders.
fn put(root: &Path, path: &str, contents: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

fn ppm(level: u8) -> Vec<u8> {
    [b"P6\n8 6\n255\n".as_slice(), &[level; 8 * 6 * 3]].concat()
}

fn png(level: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(8, 6, image::Rgb([level; 3]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn xml(objects: &[(&str, [u32; 4])]) -> String {
    let object = |(name, [a, b, c, d]): &(&str, [u32; 4])| {
        format!(
            "<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        )
    };
    format!("<annotation>{}</annotation>", objects.iter().map(object).collect::<String>())
}

/// Source, class and number of boxes of each image.
fn all(files: &Files, split: Split) -> Vec<(String, String, Option<usize>)> {
    let mut found = Vec::new();
    files
        .entries(split, &mut |entry: Entry| {
            let class = files.classes()[entry.target as usize].name.clone();
            found.push((entry.source, class, entry.boxes.map(|boxes| boxes.len())));
            Ok(())
        })
        .unwrap();
    found
}

fn made(files: &Files, out: &Path) {
    let encoding = Encoding::Jpeg { quality: 95 };
    let options = PrepareOptions {
        smallest_side: Some(512),
        encoding,
        shard_bytes: 1 << 20,
        part: vgg_data::Partition::WHOLE,
    };
    prepare(files, &options, out, 1, &mut |_| ControlFlow::Continue(())).unwrap();
}

fn own(source: &str, class: &str, boxes: Option<usize>) -> (String, String, Option<usize>) {
    (source.to_owned(), class.to_owned(), boxes)
}

#[test]
fn tiny_imagenet() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    put(root, "words.txt", "n01443537\tgoldfish\nn09999999\tsomething\n");
    for wnid in ["n09999999", "n01443537"] {
        put(root, &format!("train/{wnid}/{wnid}_boxes.txt"), format!("{wnid}_0.JPEG\t0\t1\t5\t4\n"));
        put(root, &format!("train/{wnid}/images/{wnid}_0.JPEG"), ppm(1));
        put(root, &format!("train/{wnid}/images/{wnid}_1.JPEG"), ppm(2));
    }
    put(
        root,
        "val/val_annotations.txt",
        "val_1.JPEG\tn01443537\t0\t0\t3\t3\r\nval_0.JPEG\tn09999999\t0\t0\t3\t3\r\n",
    );
    (0..2).for_each(|i| put(root, &format!("val/images/val_{i}.JPEG"), ppm(3)));
    let files = Files::open(root, Layout::TinyImagenet).unwrap();
    assert_eq!(files.classes()[1].words.as_deref(), Some("something"));
    let train = all(&files, Split::Train);
    assert_eq!(train.len(), 4);
    assert_eq!(train[0], own("train/n01443537/images/n01443537_0.JPEG", "n01443537", Some(1)));
    assert_eq!(train[3], own("train/n09999999/images/n09999999_1.JPEG", "n09999999", None));
    let val = [
        own("val/images/val_0.JPEG", "n09999999", Some(1)),
        own("val/images/val_1.JPEG", "n01443537", Some(1)),
    ];
    assert_eq!(all(&files, Split::Val), val);
    put(root, "val/val_annotations.txt", "val_1.JPEG\tn00000000\t0\t0\t3\t3\n");
    let error = Files::open(root, Layout::TinyImagenet).err().unwrap().to_string();
    assert!(error.contains("val_annotations.txt") && error.contains("n00000000"), "{error}");
}

/// Copies without boxes, and copies with the validation images in class folders, `val/<wnid>/images` or `val/<wnid>`.
#[test]
fn tiny_imagenet_without_boxes_or_list() {
    for inner in ["images/", ""] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for wnid in ["n01443537", "n01629819"] {
            put(root, &format!("train/{wnid}/images/{wnid}_0.JPEG"), ppm(1));
            put(root, &format!("val/{wnid}/{inner}{wnid}.JPEG"), ppm(2));
        }
        let files = Files::open(root, Layout::TinyImagenet).unwrap();
        let train = own("train/n01629819/images/n01629819_0.JPEG", "n01629819", None);
        assert_eq!(all(&files, Split::Train)[1], train);
        let val = own(&format!("val/n01629819/{inner}n01629819.JPEG"), "n01629819", None);
        assert_eq!(all(&files, Split::Val)[1], val);
        fs::remove_dir_all(root.join("val/n01629819")).unwrap();
        let error = Files::open(root, Layout::TinyImagenet).err().unwrap().to_string();
        assert!(error.contains("n01629819"), "{error}");
    }
}

#[test]
fn caltech() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("101_ObjectCategories");
    for (class, images) in [("yin_yang", 7), ("accordion", 5)] {
        (0..images).for_each(|i| put(&root, &format!("{class}/image_{i:04}.jpg"), ppm(i)));
    }
    put(&root, "accordion/RENAME2.txt", "");
    let layout = |train_per_class, seed| Layout::Caltech { train_per_class, test_per_class: 3, seed };
    let open = |seed| Files::open(dir.path(), layout(3, seed)).unwrap();
    let (train, val) = (all(&open(1), Split::Train), all(&open(1), Split::Val));
    assert_eq!((train.len(), val.len()), (6, 2 + 3), "three per class, and up to three of the rest");
    assert!(val.iter().all(|image| !train.contains(image)));
    assert_ne!(train, all(&open(2), Split::Train));
    assert_eq!(train, all(&open(1), Split::Train));
    let error = Files::open(dir.path(), layout(5, 1)).err().unwrap().to_string();
    assert!(error.contains("accordion has 5 images"), "{error}");
}

#[test]
fn pascal_voc() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("VOCdevkit/VOC2007");
    let objects = [
        vec![("dog", [1, 1, 2, 2]), ("person", [1, 1, 8, 6])],
        vec![("dog", [1, 1, 4, 4])],
        vec![("cat", [2, 2, 5, 5]), ("cat", [1, 1, 2, 2])],
    ];
    for (i, objects) in objects.iter().enumerate() {
        put(&inner, &format!("JPEGImages/{i:06}.jpg"), ppm(9));
        put(&inner, &format!("Annotations/{i:06}.xml"), xml(objects));
    }
    put(&inner, "ImageSets/Main/test.txt", "000001\n");
    let files = Files::open(dir.path(), Layout::Voc { seed: 1 }).unwrap();
    let of = |i: usize, class: &str, boxes| {
        own(&format!("VOCdevkit/VOC2007/JPEGImages/{i:06}.jpg"), class, Some(boxes))
    };
    assert_eq!(all(&files, Split::Train), [of(0, "person", 2), of(2, "cat", 2)]);
    assert_eq!(all(&files, Split::Val), [of(1, "dog", 1)]);
}

#[test]
fn imagenet_from_kaggle() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let layout = |allow_incomplete| Layout::Imagenet { allow_incomplete };
    put(root, "ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG", ppm(1));
    put(root, "ILSVRC/Data/CLS-LOC/train/n15075141/n15075141_5.JPEG", ppm(1));
    put(
        root,
        "ILSVRC/Annotations/CLS-LOC/train/n15075141/n15075141_5.xml",
        xml(&[("n15075141", [0, 0, 3, 3])]),
    );
    put(root, "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG", ppm(1));
    put(
        root,
        "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml",
        xml(&[("n15075141", [0, 0, 3, 3])]),
    );
    let solution = "ImageId,PredictionString\nILSVRC2012_val_00000001,n15075141 1 2 3 4 n15075141 1 1 2 2\n";
    put(root, "LOC_val_solution.csv", solution);
    let error = Files::open(root, layout(false)).err().unwrap().to_string();
    assert!(error.contains("998 of 1000 classes are missing") && error.contains("n01443537"), "{error}");
    let files = Files::open(root, layout(true)).unwrap();
    assert_eq!((files.classes().len(), files.expected(Split::Val).unwrap()[999]), (1000, 50));
    assert_eq!(files.classes()[999].name, "n15075141");
    let boxes: Vec<_> = all(&files, Split::Train).into_iter().map(|image| (image.1, image.2)).collect();
    assert_eq!(boxes, [("n01440764".to_owned(), None), ("n15075141".to_owned(), Some(1))]);
    let val = all(&files, Split::Val);
    assert_eq!(val, [own("ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG", "n15075141", Some(1))]);
    put(root, "LOC_val_solution.csv", "ImageId,PredictionString\n");
    let error = Files::open(root, layout(true)).err().unwrap().to_string();
    assert!(error.contains("no class for ILSVRC2012_val_00000001.JPEG"), "{error}");
}

/// Images whose annotation is missing, damaged or without objects have no class. They are skipped by name.
#[test]
fn voc_images_without_a_class_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    for i in 0..9 {
        put(&root, &format!("JPEGImages/{i}.png"), png(i));
        put(&root, &format!("Annotations/{i}.xml"), xml(&[(["cat", "dog"][i as usize % 2], [1, 1, 4, 4])]));
    }
    put(&root, "ImageSets/Main/val.txt", "0\n1\n");
    put(&root, "Annotations/3.xml", xml(&[]));
    put(&root, "Annotations/5.xml", "<annotation><object><name>cat</name></object></annotation>");
    put(&root, "Annotations/6.xml", "<annotation");
    fs::remove_file(root.join("Annotations/7.xml")).unwrap();
    // Above the limit of 1 MiB.
    put(&root, "Annotations/8.xml", vec![b' '; 2 << 20]);
    let files = Files::open(&root, Layout::Voc { seed: 1 }).unwrap();
    made(&files, &dir.path().join("out"));
    let manifest = vgg_data::Manifest::read(&dir.path().join("out")).unwrap();
    let skipped = &manifest.splits[&Split::Train].skipped;
    let reasons: Vec<&str> = skipped.iter().map(|image| image.reason.as_str()).collect();
    let words = ["it has no objects", "no bndbox", "", "does not exist", "larger than"];
    assert_eq!(reasons.len(), words.len(), "{reasons:?}");
    for ((i, word), image) in [3, 5, 6, 7, 8].into_iter().zip(words).zip(skipped) {
        assert_eq!(image.path, format!("JPEGImages/{i}.png"));
        let named = image.reason.contains(&format!("its annotation Annotations/{i}.xml"));
        assert!(named && image.reason.contains(word), "{}", image.reason);
    }
    assert_eq!(manifest.splits[&Split::Train].images, 2);
    (0..9).for_each(|i| put(&root, &format!("Annotations/{i}.xml"), xml(&[])));
    let error = Files::open(&root, Layout::Voc { seed: 1 }).err().unwrap().to_string();
    assert!(error.contains("no image has an annotation with an object"), "{error}");
}

/// ImageNet without class folders: the class is in the name, or in the development kit.
#[test]
fn flat_imagenet() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    put(root, "train/n01440764_10026_n01440764.JPEG", ppm(1));
    put(root, "val/ILSVRC2012_val_00000001_n15075141.JPEG", ppm(1));
    let open = || Files::open(root, Layout::Imagenet { allow_incomplete: true });
    let files = open().unwrap();
    let train = [own("train/n01440764_10026_n01440764.JPEG", "n01440764", None)];
    assert_eq!(all(&files, Split::Train), train);
    let val = [own("val/ILSVRC2012_val_00000001_n15075141.JPEG", "n15075141", None)];
    assert_eq!(all(&files, Split::Val), val);

    fs::remove_dir_all(root.join("train")).unwrap();
    put(root, "val/ILSVRC2012_val_00000003.JPEG", ppm(1));
    let error = open().err().unwrap().to_string();
    assert!(error.contains("put ILSVRC2012_devkit_t12.tar.gz"), "{error}");
    let fake = FakeImagenet::new(&[ppm(1)]);
    let truth: String = fake.truth.iter().map(|id| format!("{id}\n")).collect();
    put(root, "ILSVRC2012_devkit_t12/data/meta.mat", fake.meta_mat());
    put(root, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth);
    let files = open().unwrap();
    assert_eq!(files.splits(), [Split::Val]);
    let wnid = &fake.classes[fake.truth[2] as usize - 1].1;
    let class = files.classes()[fake.index(wnid)].name.clone();
    assert_eq!(all(&files, Split::Val)[1], own("val/ILSVRC2012_val_00000003.JPEG", &class, None));
    put(root, "val/holiday.JPEG", ppm(1));
    let error = open().err().unwrap().to_string();
    assert!(error.contains("holiday.JPEG has no class"), "{error}");
}

#[test]
fn cifar_10() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    put(&root, "batches.meta.txt", "airplane\nautomobile\n\n");
    // Red, green and blue planes that increase with the position.
    let record = |label: u8| {
        let plane = |add: usize| (0..1024).map(move |i| ((i + add) % 251) as u8);
        [vec![label], plane(0).chain(plane(1)).chain(plane(2)).collect()].concat()
    };
    (1..=5).for_each(|i| put(&root, &format!("data_batch_{i}.bin"), [record(0), record(1)].concat()));
    put(&root, "test_batch.bin", record(1));
    let files = Files::open(&root, Layout::Cifar10).unwrap();
    made(&files, &dir.path().join("out"));
    let train = ImageSet::open(&dir.path().join("out"), Split::Train).unwrap();
    assert_eq!((train.len(), train.classes().len(), train.target(0), train.target(9)), (10, 2, 0, 1));
    let image = train.image(7).unwrap();
    assert_eq!(
        (image.dim(), image[[31, 30, 0]], image[[31, 30, 2]]),
        ((32, 32, 3), 18, 20),
        "pixels must be exact"
    );
    put(&root, "test_batch.bin", &record(1)[..3000]);
    let error = Files::open(&root, Layout::Cifar10).err().unwrap().to_string();
    assert!(error.contains("test_batch.bin") && error.contains("not a multiple of 3073"), "{error}");
}

#[test]
fn images_whose_names_differ_only_in_extension_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    for name in ["a.jpg", "a.png", "b.jpg", "c.d.jpg", "\u{e9}.jpg"] {
        put(&root, &format!("train/x/{name}"), ppm(1));
    }
    made(&Files::open(&root, Layout::Folders).unwrap(), &dir.path().join("out"));
    let train = ImageSet::open(&dir.path().join("out"), Split::Train).unwrap();
    let mut keys: Vec<String> = (0..5).map(|i| train.path(i).split('.').nth(1).unwrap().to_owned()).collect();
    assert!(keys.iter().any(|key| key.ends_with("/b")), "{keys:?}");
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 5, "{keys:?}");
}

#[test]
fn real_data_sets_are_read() {
    let (Some(caltech), Some(raccoons)) =
        (vgg_tests::real_images("caltech101-10"), vgg_tests::real_images("voc-raccoon"))
    else {
        return;
    };
    let layout = Layout::Caltech { train_per_class: 30, test_per_class: 50, seed: 1 };
    let files = Files::open(&caltech, layout).unwrap();
    assert_eq!((files.classes().len(), all(&files, Split::Train).len()), (10, 300));
    let files = Files::open(&raccoons, Layout::Voc { seed: 1 }).unwrap();
    let (train, val) = (all(&files, Split::Train), all(&files, Split::Val));
    assert_eq!((files.classes().len(), train.len(), val.len()), (1, 160, 40));
    assert!(train.iter().chain(&val).all(|image| image.2.is_some_and(|boxes| boxes > 0)));
}
