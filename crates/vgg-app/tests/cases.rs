//! What people really have, and what strangers send, as one table: an input, a command, its exit code and what it says.
//! Other tests look at the values; these look at the way out.

#![cfg(unix)]

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;

use common::{init, run, stderr};

/// A row: a change of the folder, a command, its exit code, and words on stdout or stderr.
type Case = (fn(&Path), &'static str, i32, &'static [&'static str]);

const EVALUATE: &str = "evaluate --weights w --dataset set --test-scales 36";
const INSPECT: &str = "data inspect set";
const TRAIN_SET: &str = "data prepare-folder --dataset set --out out";
const PREPARED: &str = "evaluate --weights w --dataset shards --test-scales 36";

/// Each folder has weights `w` of two classes, and `set` with two images of the classes cat and dog in train and val.
const CASES: &[Case] = &[
    // Data sets as they lie on disks.
    (|d| image(d, "set/val/cat/persian/2.jpg"), INSPECT, 0, &["val: 5 images"]),
    (
        |d| image(d, "set/val/stray.jpg"),
        EVALUATE,
        0,
        &["4 images", "ignored 1 images outside of the class folders"],
    ),
    (|d| file(d, "set/val/cat/2.heic", HEIC), EVALUATE, 0, &["ignored 1 HEIC images"]),
    (|d| file(d, "set/val/dog/2.avif", AVIF), TRAIN_SET, 0, &["ignored 1 AVIF images"]),
    (|d| file(d, "set/val/@eaDir/0.jpg/x", b"x"), EVALUATE, 0, &["4 images"]),
    (|d| file(d, "set/val/cat/_SUCCESS", b""), EVALUATE, 0, &["ignored 1 files"]),
    (|d| symlink("gone", d.join("set/val/cat/README")).unwrap(), EVALUATE, 0, &["4 images"]),
    (|d| symlink("gone", d.join("set/val/cat/2.jpg")).unwrap(), EVALUATE, 65, &["dangling link to gone"]),
    (|d| rename(d, "set/val", "set/validation"), EVALUATE, 0, &["the folder validation serves as val"]),
    (|d| remove(d, "set/train"), EVALUATE, 0, &["4 images"]),
    (|d| remove(d, "set/val"), EVALUATE, 66, &["val"]),
    (|d| flat(d), EVALUATE, 66, &["cat", "train"]),
    (|d| empty_classes(d), INSPECT, 66, &["ant", "bee"]),
    (|d| rename(d, "set/val/cat", "set/val/ape"), INSPECT, 65, &["ape", "cat"]),
    (|d| rename(d, "set/val/cat", "set/val/cafe\u{301}"), INSPECT, 65, &["café"]),
    (|d| rename(d, "set", "outer/set"), "data inspect outer", 66, &["pass outer/set"]),
    (nothing, "data inspect w", 66, &["it is a file: pass the folder"]),
    (|d| file(d, "set.zip", b"PK"), "data inspect set.zip", 66, &["it is an archive: unpack it"]),
    (|d| one_class(d), "evaluate --weights w1 --dataset set --test-scales 36", 0, &["has one class"]),
    (
        |d| {
            file(d, "in/train/n01440764.tar", b"");
            std::fs::create_dir(d.join("in/train/n01443537")).unwrap();
        },
        "data prepare-imagenet --archives in --out out",
        65,
        &["some classes are not in plain tar files (n01443537)"],
    ),
    (
        |d| file(d, "in/train/n01440764.tar.gz", b""),
        "data prepare-imagenet --archives in --out out",
        65,
        &["decompress archives"],
    ),
    // Images.
    (|d| file(d, "set/val/cat/0.jpg", b""), EVALUATE, 65, &["0.jpg", "empty (0 bytes)"]),
    (|d| file(d, "set/val/cat/0.jpg", LFS), EVALUATE, 65, &["git lfs pull"]),
    (|d| file(d, "set/val/cat/0.jpg", b"<!DOCTYPE html><p>"), EVALUATE, 65, &["web page"]),
    (|d| file(d, "set/val/cat/0.jpg", HEIC), EVALUATE, 65, &["HEIC"]),
    (|d| cut(d, "set/val/cat/0.jpg"), EVALUATE, 65, &["truncated"]),
    (
        |d| cut(d, "set/val/cat/0.jpg"),
        "evaluate --weights w --dataset set --test-scales 36 --on-bad-image skip",
        0,
        &["3 images", "skipped"],
    ),
    (|d| huge_png(d), "predict --weights w huge.png", 65, &["huge.png", "pixels"]),
    (
        |d| std::fs::create_dir(d.join("x.jpg")).unwrap(),
        "predict --weights w x.jpg",
        65,
        &["not a regular file"],
    ),
    (nothing, "predict --weights w /dev/zero", 65, &["/dev/zero", "not a regular file"]),
    (nothing, "predict --weights w gone.jpg set/val/cat/0.jpg", 66, &["gone.jpg", "set/val/cat/0.jpg\n"]),
    // Weights.
    (|d| file(d, "x.pth", LFS), "summary --weights x.pth", 65, &["git lfs pull"]),
    (|d| file(d, "x.pth", b"<html>"), "summary --weights x.pth", 65, &["web page"]),
    (|d| file(d, "x.h5", b"\x89HDF\r\n\x1a\n"), "summary --weights x.h5", 65, &["Keras", "numpy.savez"]),
    (|d| file(d, "x.npy", b"\x93NUMPY\x01\0"), "summary --weights x.npy", 65, &["numpy.savez"]),
    (|d| file(d, "x.pth", b"\x80\x02}q\0."), "summary --weights x.pth", 65, &["not of torch.save"]),
    (|d| cut(d, "w"), "summary --weights w", 65, &["w"]),
    (nothing, "convert w x.pth", 2, &[".safetensors, .onnx or .caffemodel"]),
    (nothing, "convert w x.onnx --to caffe", 2, &["--to caffe writes .caffemodel files"]),
    (nothing, "summary --weights gone.pth", 66, &["gone.pth does not exist"]),
    (|d| pipe(d, "p"), "summary --weights p", 65, &["not a regular file"]),
    (|d| pipe(d, "p"), "compare p p", 74, &["not a regular file"]),
    (|d| pipe(d, "p"), "train p", 74, &["not a regular file"]),
    (nothing, "convert w x.onnx --to native", 2, &["--to native writes .safetensors files"]),
    // Prepared data sets.
    (|d| std::fs::remove_file(d.join("shards/index.json")).unwrap(), PREPARED, 66, &["no index.json: copy"]),
    (
        |d| {
            remove_file(d, "shards/classes.json");
            pipe(d, "shards/classes.json")
        },
        "data verify shards",
        65,
        &["not a regular file"],
    ),
    (|d| flip(d, "shards/val.index", 40), PREPARED, 65, &["val.index is damaged"]),
    (|d| flip(d, "shards/val.names", 3), PREPARED, 65, &["val.names is damaged"]),
    (|d| flip(d, "shards/index.json", 300), PREPARED, 65, &["index.json is damaged"]),
    (|d| flip(d, "shards/val-000000.tar", 900), PREPARED, 65, &["CRC-32"]),
    (|d| cut(d, "shards/val-000000.tar"), PREPARED, 65, &["val-000000.tar has"]),
    (|d| flip(d, "shards/classes.json", 9), "data verify shards", 65, &["classes.json is damaged"]),
    (|d| device(d, "shards/val-000000.tar"), "data verify shards", 65, &["not a regular file"]),
    // Files that are written.
    (
        |d| file(d, "out", b"mine"),
        "init --config A --classes 2 --width 0.05 --out out",
        2,
        &["out already exists", "--force"],
    ),
    (
        nothing,
        "init --config A --classes 2 --width 0.05 --out /dev/null --force",
        74,
        &["not a regular file"],
    ),
    (nothing, "convert w w --to native --force", 2, &["w is an input of this command"]),
    (
        nothing,
        "features --weights w --dataset set --layer pool5 --test-scales 36 --out w --force",
        2,
        &["w is an input of this command"],
    ),
    (
        |d| image(d, "x.png"),
        "predict --weights w --score-map x.png x.png --force",
        2,
        &["x.png is an input of this command"],
    ),
    (nothing, "data show-batch --dataset set --train-scale 36 --crop 32 --out w", 2, &["w already exists"]),
    // Settings.
    (nothing, "init --config A --head 1048576,1048576 --out x", 2, &["head"]),
    (nothing, "bench --config A --batch 1000000000", 2, &["batch"]),
    (nothing, "bench --config A --batch 1 --head 1048576,1048576", 2, &["--head"]),
    (nothing, "predict --weights w --max-image-pixels 0 set/val/cat/0.jpg", 2, &["pixels above 0"]),
    (
        nothing,
        "evaluate --weights w --dataset set --part 9/20",
        2,
        &["--part 9/20 has no images: the split has 4"],
    ),
    (nothing, "init --config A --width 1e300 --out x", 2, &["width 1e300 must be"]),
    (nothing, "predict --weights w --max-image-pixels=-1 set/val/cat/0.jpg", 2, &["--max-image-pixels"]),
    (
        nothing,
        "predict --weights w --device cpu --precision tf32 set/val/cat/0.jpg",
        2,
        &["precision tf32 is not available: a CPU computes in f32 or bf16"],
    ),
    (nothing, "predict --weights w --threads 100000 set/val/cat/0.jpg", 2, &["--threads"]),
    (
        |d| ["train", "val"].iter().for_each(|split| bad_images(d, split)),
        "data show-batch --dataset set --on-bad-image skip --train-scale 36 --crop 32 --out x.png",
        65,
        &["none of the images can be decoded"],
    ),
    (nothing, "predict --weights w --geometry square set/val/cat/0.jpg", 2, &["paper, torchvision, caffe"]),
];

const LFS: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n";
const HEIC: &[u8] = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic";
const AVIF: &[u8] = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1";

fn nothing(_: &Path) {}

fn file(dir: &Path, path: &str, bytes: &[u8]) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn image(dir: &Path, path: &str) {
    let mut bytes = Vec::new();
    let pixels: Vec<u8> = (0..40 * 48 * 3).map(|i| (i * 7 % 200) as u8 ^ path.len() as u8).collect();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.encode(&pixels, 48, 40, jpeg_encoder::ColorType::Rgb).unwrap();
    file(dir, path, &bytes);
}

fn rename(dir: &Path, from: &str, to: &str) {
    std::fs::create_dir_all(dir.join(to).parent().unwrap()).unwrap();
    std::fs::rename(dir.join(from), dir.join(to)).unwrap();
}

fn remove(dir: &Path, path: &str) {
    std::fs::remove_dir_all(dir.join(path)).unwrap();
}

/// Keeps the first half of a file.
fn cut(dir: &Path, path: &str) {
    let bytes = std::fs::read(dir.join(path)).unwrap();
    std::fs::write(dir.join(path), &bytes[..bytes.len() / 2]).unwrap();
}

fn flip(dir: &Path, path: &str, at: usize) {
    let mut bytes = std::fs::read(dir.join(path)).unwrap();
    bytes[at] ^= 1;
    std::fs::write(dir.join(path), bytes).unwrap();
}

fn remove_file(dir: &Path, path: &str) {
    std::fs::remove_file(dir.join(path)).unwrap();
}

/// A named pipe that nobody writes to.
fn pipe(dir: &Path, path: &str) {
    let status = std::process::Command::new("mkfifo").arg(dir.join(path)).status();
    assert!(status.unwrap().success());
}

/// A data set of one class, and weights `w1` for it.
fn one_class(dir: &Path) {
    ["train", "val"].iter().for_each(|split| remove(dir, &format!("set/{split}/dog")));
    let arguments =
        ["init", "--config", "A", "--classes", "1", "--width", "0.05", "--crop", "32", "--out", "w1"];
    common::ok(dir, &arguments);
}

/// Replaces a file by a link to a device that never ends.
fn device(dir: &Path, path: &str) {
    std::fs::remove_file(dir.join(path)).unwrap();
    symlink("/dev/zero", dir.join(path)).unwrap();
}

/// Class folders without splits.
fn flat(dir: &Path) {
    rename(dir, "set/train", "classes");
    remove(dir, "set");
    rename(dir, "classes", "set");
}

fn empty_classes(dir: &Path) {
    for class in ["ant", "bee"] {
        for split in ["train", "val"] {
            std::fs::create_dir(dir.join("set").join(split).join(class)).unwrap();
        }
    }
}

fn bad_images(dir: &Path, split: &str) {
    for name in ["cat/0", "cat/1", "dog/0", "dog/1"] {
        file(dir, &format!("set/{split}/{name}.jpg"), b"");
    }
}

/// The header of a PNG of 30,000 x 30,000 pixels.
fn huge_png(dir: &Path) {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for chunk in [&b"IHDR\0\0\x75\x30\0\0\x75\x30\x08\x02\0\0\0"[..], b"IDAT\x78\x9c"] {
        png.extend((chunk.len() as u32 - 4).to_be_bytes());
        png.extend(chunk);
        png.extend(crc32fast::hash(chunk).to_be_bytes());
    }
    file(dir, "huge.png", &png);
}

/// The folder without a change.
fn unchanged() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for split in ["train", "val"] {
        for name in ["cat/0", "cat/1", "dog/0", "dog/1"] {
            image(folder.path(), &format!("set/{split}/{name}.jpg"));
        }
    }
    init(folder.path(), "0.05", "w");
    common::ok(folder.path(), &["data", "prepare-folder", "--dataset", "set", "--out", "shards"]);
    folder
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

#[test]
fn every_case_ends_as_it_should() {
    let (mut wrong, unchanged) = (Vec::new(), unchanged());
    for (change, command, code, words) in CASES {
        let folder = tempfile::tempdir().unwrap();
        copy(unchanged.path(), folder.path());
        change(folder.path());
        let output = run(folder.path(), &command.split(' ').collect::<Vec<_>>());
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
        let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
        if output.status.code() != Some(*code) || !missing.is_empty() {
            wrong.push(format!(
                "{command}: {:?} instead of {code}, without {missing:?}:\n{text}",
                output.status.code()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}
