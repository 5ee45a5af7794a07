//! Data sets as they lie on disks: which images are read, and what a message says about the others.

#![cfg(unix)]

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{init, run, stderr, vgg};
use serde_json::Value;

/// A small JPEG whose contents depend on `seed`.
fn jpeg(seed: u8) -> Vec<u8> {
    let pixels: Vec<u8> = (0..40 * 48 * 3).map(|i| (i * 7 % 200) as u8 ^ seed).collect();
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.encode(&pixels, 48, 40, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// A data set: files with an image each, and other things.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(images: &[&str]) -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        images.iter().enumerate().for_each(|(i, path)| tree.file(path, &jpeg(i as u8)));
        init(tree.root(), "0.05", "w");
        tree
    }

    /// Two classes with two images each in `train` and `val`.
    fn usual() -> Tree {
        let splits = ["train", "val"].map(|split| {
            ["cat/0", "cat/1", "dog/0", "dog/1"].map(|image| format!("set/{split}/{image}.jpg"))
        });
        Tree::new(&splits.as_flattened().iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, path: &str, bytes: &[u8]) {
        self.raw(OsStr::new(path), bytes);
    }

    fn raw(&self, path: &OsStr, bytes: &[u8]) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn link(&self, target: &str, path: &str) {
        symlink(target, self.root().join(path)).unwrap();
    }

    /// The exit code, the number of evaluated images and stderr of an evaluation of `set`.
    fn evaluate(&self, options: &[&str]) -> (Option<i32>, Option<u64>, String) {
        let arguments = ["evaluate", "--weights", "w", "--dataset", "set", "--test-scales", "36", "--json"];
        let output = run(self.root(), &[&arguments, options].concat());
        let report: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        (output.status.code(), report.and_then(|report| report["n"].as_u64()), stderr(&output))
    }

    /// Asserts that an evaluation of `set` has `n` images, and that stderr contains the words.
    #[track_caller]
    fn has(&self, n: u64, words: &[&str]) {
        let (code, images, text) = self.evaluate(&[]);
        assert_eq!((code, images), (Some(0), Some(n)), "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "no {word:?} in {text}"));
    }

    /// Asserts that an evaluation of `set` fails with this exit code and these words.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        let (own, _, text) = self.evaluate(&[]);
        assert_eq!(own, Some(code), "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "no {word:?} in {text}"));
    }
}

#[test]
fn nested_images_count_and_unsupported_formats_are_reported() {
    let tree = Tree::usual();
    tree.file("set/val/cat/persian/a/0.JPG", &jpeg(9));
    tree.file("set/val/dog/1.jfif", &jpeg(8));
    tree.file("set/val/dog/grey.pgm", b"P5\n2 1\n255\nab");
    tree.file("set/val/dog/photo.heic", b"\0\0\0\x1cftypheic");
    tree.file("set/val/dog/scan.JP2", b"\0\0\0\x0cjP  ");
    tree.file("set/val/dog/notes.txt", b"text");
    tree.has(7, &["ignored 1 HEIC images", "ignored 1 JPEG 2000 images", "ignored 1 files"]);
    let (_, _, text) = tree.evaluate(&[]);
    assert!(!text.contains("despite"), "{text}");
    let inspect = run(tree.root(), &["data", "inspect", "set", "--json"]);
    let about: Value = serde_json::from_slice(&inspect.stdout).unwrap();
    assert_eq!(about["splits"][1]["images"], 7);
    assert!(stderr(&inspect).contains("HEIC"));
}

#[test]
fn litter_and_links_are_passed_over() {
    let tree = Tree::usual();
    for folder in ["@eaDir", "__MACOSX", "lost+found", ".ipynb_checkpoints"] {
        tree.file(&format!("set/val/{folder}/x.jpg"), &jpeg(3));
        tree.file(&format!("set/val/cat/{folder}/x.jpg"), &jpeg(3));
    }
    for file in ["_SUCCESS", "Icon\r", "Thumbs.db", ".DS_Store", "._0.jpg"] {
        tree.file(&format!("set/val/cat/{file}"), b"");
    }
    tree.raw(OsStr::from_bytes(b"set/val/cat/notes-caf\xe9.txt"), b"text");
    tree.raw(OsStr::from_bytes(b"set/val/cat/caf\xe9.jpg"), &jpeg(4));
    tree.link("nowhere", "set/val/cat/README");
    tree.link("user@host.1:2", "set/val/cat/.#0.jpg");
    tree.link("../cat", "set/val/cat/loop");
    tree.link("../../train/dog/0.jpg", "set/val/dog/linked.jpg");
    tree.has(6, &["ignored 5 files"]);
}

#[test]
fn bad_images_are_named_and_can_be_skipped() {
    for (file, bytes, words) in [
        ("empty.jpg", Vec::new(), "empty (0 bytes)"),
        ("pointer.jpg", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git lfs pull"),
        ("page.png", b"<html></html>".to_vec(), "web page"),
        ("photo.jpg", b"\0\0\0\x1cftypheic\0\0\0\0".to_vec(), "HEIC"),
        ("cut.jpg", jpeg(1)[..300].to_vec(), "truncated"),
    ] {
        let tree = Tree::usual();
        tree.file(&format!("set/val/cat/{file}"), &bytes);
        tree.fails(65, &[file, words]);
        assert_eq!(tree.evaluate(&["--on-bad-image", "skip"]).1, Some(4), "{file}");
    }
    let tree = Tree::usual();
    tree.link("gone", "set/val/cat/link.jpg");
    tree.fails(65, &["link.jpg", "dangling link to gone"]);
    assert_eq!(tree.evaluate(&["--on-bad-image", "skip"]).1, Some(4));
}

#[test]
fn other_folders_of_splits_are_used_or_named() {
    for folder in ["valid", "validation", "test", "Val"] {
        let usual = ["cat/0", "dog/0", "dog/1"].map(|image| format!("set/{folder}/{image}.jpg"));
        let tree = Tree::new(&usual.each_ref().map(String::as_str));
        tree.has(3, &[&format!("the folder {folder} serves as val")]);
    }
    let only_val = Tree::new(&["set/val/cat/0.jpg", "set/val/dog/0.jpg"]);
    only_val.has(2, &[]);
    for (images, words) in [
        (&["set/cat/0.jpg", "set/dog/0.jpg"][..], &["cat, dog", "train/<class> and val/<class>"][..]),
        (&["set/train/cat/0.jpg", "set/train/dog/0.jpg"], &["no val/<class>/*", "only train"]),
        (&["set/val/ILSVRC2012_val_00000001.JPEG"], &["move each image into the folder of its class"]),
        (&["set/0.jpg"], &["images without class folders"]),
        (&["set/val/n01440764.tar"], &["unpack each (n01440764.tar)"]),
        (&["set/ILSVRC/Data/CLS-LOC/val/a.JPEG"], &["Kaggle", "prepared first"]),
        (&["set/ILSVRC2012_img_val.tar"], &["archives of ImageNet", "prepared first"]),
    ] {
        Tree::new(images).fails(66, words);
    }
}

#[test]
fn class_folders_are_checked_together() {
    let tree = Tree::usual();
    for class in ["ant", "bee", "wasp"] {
        for split in ["train", "val"] {
            tree.file(&format!("set/{split}/{class}/notes.txt"), b"text");
        }
    }
    tree.fails(66, &["3 class folders have no images: ant, bee, wasp"]);
    let tree = Tree::usual();
    tree.file("set/train/ant/0.jpg", &jpeg(1));
    tree.file("set/val/bee/0.jpg", &jpeg(1));
    tree.fails(65, &["does not have these class folders of train: ant", "train does not have: bee"]);
    // The same name in both Unicode forms: composed, and letter with accent.
    let images = [
        "set/train/caf\u{e9}/0.jpg",
        "set/train/dog/0.jpg",
        "set/val/cafe\u{301}/0.jpg",
        "set/val/dog/0.jpg",
    ];
    Tree::new(&images).has(2, &[]);
}

#[test]
fn predict_goes_on_after_a_bad_image() {
    let tree = Tree::usual();
    tree.file("bad.jpg", b"nothing");
    let images = ["set/val/cat/0.jpg", "bad.jpg", "absent.jpg", "set/val/dog/0.jpg"];
    let arguments = [&["predict", "--weights", "w", "--test-scales", "36"][..], &images].concat();
    let output = run(tree.root(), &arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(65));
    assert!(text.contains("set/val/cat/0.jpg") && text.contains("set/val/dog/0.jpg"), "{text}");
    let output = vgg(tree.root()).args(&arguments).arg("--json").output().unwrap();
    let documents: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(65));
    assert!(documents[1]["error"].as_str().unwrap().contains("bad.jpg"));
    assert!(documents[2]["error"].as_str().unwrap().contains("does not exist"));
    assert_eq!(documents[3]["predictions"].as_array().unwrap().len(), 2);
}

/// Every command that reads a set treats a bad image alike: it stops with 65, or skips the image and reports it.
#[test]
fn on_bad_image_is_the_same_in_all_commands() {
    let tree = Tree::usual();
    common::experiment_file(tree.root());
    tree.link("gone", "set/train/cat/link.jpg");
    tree.file("set/val/cat/cut.jpg", &jpeg(1)[..300]);
    for (i, command) in [
        "train a.toml --out run",
        "evaluate --weights w --dataset set --test-scales 36",
        "evaluate --weights w --dataset set --test-scales 36 --split train --dump-views views",
        "features --weights w --dataset set --layer fc7 --test-scales 36 --out f",
        "predict --weights w --test-scales 36 set/val/cat/0.jpg set/val/cat/cut.jpg",
        "data prepare-folder --dataset set --out shards",
        "data show-batch --dataset set --train-scale 36 --crop 32 --out sheet.png",
    ]
    .iter()
    .enumerate()
    {
        let words: Vec<&str> = command.split(' ').collect();
        for (policy, code) in [("stop", 65), ("skip", 0)] {
            let output = run(tree.root(), &[&words[..], &["--on-bad-image", policy]].concat());
            let _ = std::fs::remove_dir_all(tree.root().join("run"));
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(code), "{i} {policy}: {text}");
            assert!(text.contains("link.jpg") || text.contains("cut.jpg"), "{i} {policy}: {text}");
        }
    }
    assert!(tree.root().join("views/views.json").is_file() && tree.root().join("sheet.png").is_file());
}

/// A JPEG with the EXIF orientation 6: turn by 90 degrees.
fn turned(jpeg: &[u8]) -> Vec<u8> {
    let exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xFF, 0xE1], &length, exif, &jpeg[2..]].concat()
}

#[test]
fn exif_orientation_is_an_option() {
    let tree = Tree::usual();
    tree.file("set/val/cat/0.jpg", &turned(&jpeg(3)));
    let first_view = |options: &[&str], dir: &str| {
        assert_eq!(tree.evaluate(&[&["--dump-views", dir], options].concat()).0, Some(0));
        let path = tree.root().join(dir).join("0/0.png");
        vgg_data::decode(&std::fs::read(&path).unwrap(), &path).unwrap()
    };
    let usual = first_view(&[], "usual");
    let turned = first_view(&["--exif-orientation", "true"], "turned");
    assert_eq!((usual.dim(), turned.dim()), ((36, 43, 3), (43, 36, 3)));
    // The views of an earlier dump are removed.
    let set = tree.root().join("usual");
    assert!(set.join("3/0.png").is_file());
    std::fs::write(set.join("3/mine.png"), b"").unwrap();
    assert_eq!(tree.evaluate(&["--dump-views", "usual", "--part", "1/2", "--force"]).0, Some(0));
    assert!(
        set.join("1/0.png").is_file() && !set.join("3/0.png").exists() && set.join("3/mine.png").exists()
    );
    // The hash of the data set tells both apart, as the posteriors differ.
    let hash = |options: &[&str]| {
        let arguments = ["evaluate", "--weights", "w", "--dataset", "set", "--test-scales", "36", "--json"];
        let output = run(tree.root(), &[&arguments, options].concat());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["dataset"].clone()
    };
    assert_ne!(hash(&[]), hash(&["--exif-orientation", "true"]));

    common::experiment_file(tree.root());
    let train = ["train", "a.toml", "--set", "data.exif_orientation=true"];
    let output = run(tree.root(), &[&train[..], &["--out", "run"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn image_limits_have_units() {
    let tree = Tree::usual();
    // The images have 48 x 40 pixels.
    assert_eq!(tree.evaluate(&["--max-image-pixels", "1920"]).0, Some(0));
    let (code, _, text) = tree.evaluate(&["--max-image-pixels", "1.9k"]);
    assert!(code == Some(65) && text.contains("48"), "{text}");
    assert_eq!(tree.evaluate(&["--max-image-pixels", "lots"]).0, Some(2));
    common::experiment_file(tree.root());
    for cache in ["0", "5KB", "1GiB"] {
        let out = format!("run-{cache}");
        let output = run(tree.root(), &["train", "a.toml", "--out", &out, "--image-cache", cache]);
        assert!(output.status.success(), "{cache}: {}", stderr(&output));
        let weights = |out: &str| std::fs::read(tree.root().join(out).join("weights.safetensors")).unwrap();
        assert!(weights(&out) == weights("run-0"), "the cache changes the weights");
    }
}
