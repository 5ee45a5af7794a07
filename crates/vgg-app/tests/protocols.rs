//! Evaluation under every protocol, and commands on posteriors and weights.

mod common;

use std::path::Path;

use common::{fails, init, ok, run, small_set, stderr};
use ndarray::Array2;
use serde_json::Value;
use vgg_eval::Posteriors;
use vgg_testkit::assert_close;

const SET: [&str; 4] = ["--dataset", "set", "--device", "cpu"];

/// Runs `vgg evaluate` and returns the JSON document.
fn evaluate(dir: &Path, weights: &str, more: &[&str]) -> Value {
    let arguments = [&["evaluate", "--weights", weights, "--json"][..], &SET, more].concat();
    serde_json::from_str(&ok(dir, &arguments)).unwrap()
}

/// Asserts equal images, and posteriors equal within a few f32 roundings of a mean.
fn assert_same(ours: &Posteriors, paths: &[String], values: &Array2<f32>) {
    assert_eq!((ours.paths.as_slice(), ours.values.dim()), (paths, values.dim()));
    assert_close(ours.values.as_slice().unwrap(), values.as_slice().unwrap(), 1e-6, "posteriors");
}

/// Indices of the images whose likelier class, of two, is wrong.
fn wrong(of: &Posteriors) -> Vec<usize> {
    (0..of.labels.len()).filter(|i| of.values[[*i, of.labels[*i] as usize]] < 0.5).collect()
}

#[test]
fn combined_is_the_fusion_of_dense_and_crops_and_parts_make_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    init(dir, "0.125", "w.safetensors");
    for protocol in ["dense", "multi-crop", "combined"] {
        let file = format!("{protocol}.p");
        let document = evaluate(
            dir,
            "w.safetensors",
            &["--protocol", protocol, "--test-scales", "36,40", "--posteriors", &file],
        );
        assert_eq!(
            (document["protocol"].as_str().unwrap(), &document["flip"]),
            (protocol, &Value::Bool(true))
        );
    }
    let fused: Value =
        serde_json::from_str(&ok(dir, &["fuse", "dense.p", "multi-crop.p", "--out", "fused.p", "--json"]))
            .unwrap();
    assert_eq!(fused["networks"].as_array().unwrap().len(), 2);
    let load = |name: &str| Posteriors::load(&dir.join(name)).unwrap();
    let (dense, crops) = (load("dense.p"), load("multi-crop.p"));
    let mean = (&dense.values + &crops.values) / 2.0;
    assert_same(&load("fused.p"), &dense.paths, &mean);
    assert_same(&load("combined.p"), &dense.paths, &mean);
    assert_ne!(dense.values, crops.values);

    for part in ["1/2", "2/2"] {
        let file = format!("{}.s", &part[..1]);
        evaluate(
            dir,
            "w.safetensors",
            &["--protocol", "dense", "--test-scales", "36,40", "--part", part, "--posteriors", &file],
        );
    }
    ok(dir, &["merge", "2.s", "1.s", "--out", "merged.p"]);
    assert_same(&load("merged.p"), &dense.paths, &dense.values);
    let missing = run(dir, &["merge", "1.s", "--out", "x.p"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("missing parts: 2/2"), "{}", stderr(&missing));

    ok(dir, &["analyse", "dense.p", "--out", "analysis", "--dataset", "set"]);
    for name in ["classes.csv", "confusion.csv", "confusion.png", "mistakes.csv"] {
        assert!(std::fs::metadata(dir.join("analysis").join(name)).unwrap().len() > 20, "{name}");
    }
}

#[test]
fn compare_counts_images_wrong_in_only_one_network() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    init(dir, "0.125", "w.safetensors");
    let load = |name: &str| Posteriors::load(&dir.join(name)).unwrap();
    // The same posteriors except for five images: four wrong ones become right, and one right one becomes
    // wrong.
    evaluate(dir, "w.safetensors", &["--split", "train", "--posteriors", "first.p"]);
    let mut second = load("first.p");
    let wrongs = wrong(&second);
    let rights: Vec<usize> = (0..12).filter(|i| !wrongs.contains(i)).collect();
    assert!(wrongs.len() >= 4 && !rights.is_empty());
    for image in wrongs[..4].iter().chain(&rights[..1]) {
        let other = 1.0 - &second.values.row(*image);
        second.values.row_mut(*image).assign(&other);
    }
    second.save(&dir.join("second.p")).unwrap();
    let compared: Value =
        serde_json::from_str(&ok(dir, &["compare", "first.p", "second.p", "--json"])).unwrap();
    let top1 = &compared["top1"];
    assert_eq!(
        (&top1["n"], &top1["only_first_wrong"], &top1["only_second_wrong"]),
        (&12.into(), &4.into(), &1.into())
    );
    assert_eq!(top1["difference"], 3.0 / 12.0);
    // Twice the probability of at most one head in five tosses.
    assert_eq!(top1["p_value"], 2.0 * (1.0 + 5.0) / 32.0);
}

#[test]
fn views_and_a_score_map_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    init(dir, "0.125", "w.safetensors");
    evaluate(
        dir,
        "w.safetensors",
        &["--protocol", "multi-crop", "--test-scales", "40", "--dump-views", "views"],
    );
    let list: Value = serde_json::from_slice(&std::fs::read(dir.join("views/views.json")).unwrap()).unwrap();
    let list = list.as_array().unwrap();
    let images = Posteriors::load(&{
        evaluate(dir, "w.safetensors", &["--posteriors", "p"]);
        dir.join("p")
    });
    assert_eq!(list.len(), 50 * images.unwrap().labels.len());
    assert!(list.iter().all(|view| dir.join("views").join(view["file"].as_str().unwrap()).is_file()));
    assert_eq!(list[49]["view"]["region"]["grid"]["column"], 4);

    let image = list[0]["image"].as_str().unwrap();
    let image = format!("set/{image}");
    let predict = ["predict", "--weights", "w.safetensors", "--device", "cpu", "--test-scales", "96", &image];
    ok(dir, &[&predict[..], &["--score-map", "map.png"]].concat());
    assert!(dir.join("map.png").is_file());
    let crops = run(dir, &[&predict[..], &["--score-map", "x.png", "--protocol", "centre"]].concat());
    assert_eq!(crops.status.code(), Some(2));
}

#[test]
fn weights_survive_conversion_to_other_libraries_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    init(dir, "0.125", "w.safetensors");
    ok(dir, &["convert", "w.safetensors", "t.safetensors", "--to", "timm"]);
    ok(dir, &["convert", "t.safetensors", "w.caffemodel", "--to", "caffe"]);
    let again = run(dir, &["convert", "t.safetensors", "w.caffemodel", "--to", "caffe"]);
    assert_eq!(again.status.code(), Some(2));
    // The extension decides without --to, and must not contradict it.
    ok(dir, &["convert", "t.safetensors", "w.onnx"]);
    ok(dir, &["convert", "t.safetensors", "again.caffemodel"]);
    assert_eq!(
        std::fs::read(dir.join("w.caffemodel")).unwrap(),
        std::fs::read(dir.join("again.caffemodel")).unwrap()
    );
    assert!(!std::fs::read(dir.join("w.onnx")).unwrap()[8..].starts_with(b"{"));
    for (arguments, word) in [
        (&["x.pth"][..], "does not say the format"),
        (&["x"], "does not say the format"),
        (&["x.onnx", "--to", "torchvision"], ".safetensors files"),
        (&["x.pth", "--to", "native"], ".safetensors files"),
    ] {
        fails(dir, &[&["convert", "t.safetensors"], arguments].concat(), 2, &[word]);
    }
    let caffe = run(dir, &["convert", "w.caffemodel", "back.safetensors"]);
    assert!(caffe.status.success() && stderr(&caffe).contains("BGR"), "{}", stderr(&caffe));
    // Conversion moves values without arithmetic: the results are bitwise identical.
    let [own, timm, back] = ["w.safetensors", "t.safetensors", "back.safetensors"]
        .map(|w| evaluate(dir, w, &[])["loss"].as_f64().unwrap());
    assert_eq!((timm, back), (own, own));
}
