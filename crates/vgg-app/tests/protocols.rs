//! Evaluation by every protocol, and what is done with posteriors and weights afterwards.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::path::Path;

use common::{init, ok, run, small_set, stderr};
use serde_json::Value;
use vgg_eval::Posteriors;

const SET: [&str; 4] = ["--dataset", "set", "--device", "cpu"];

/// Evaluates and returns the JSON document.
fn evaluate(dir: &Path, weights: &str, more: &[&str]) -> Value {
    let arguments = [&["evaluate", "--weights", weights, "--json"][..], &SET, more].concat();
    serde_json::from_str(&ok(dir, &arguments)).unwrap()
}

fn largest_difference(a: &Posteriors, b: &Posteriors) -> f32 {
    a.values.iter().zip(&b.values).fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

#[test]
fn combined_is_the_fusion_of_dense_and_crops_and_shards_make_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    init(dir, "0.125", "w.safetensors");
    for protocol in ["dense", "multi-crop", "combined"] {
        let file = format!("{protocol}.p");
        let document = evaluate(
            dir,
            "w.safetensors",
            &["--protocol", protocol, "--test-sides", "36,40", "--posteriors", &file],
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
    assert!(largest_difference(&load("fused.p"), &load("combined.p")) < 1e-6);

    for shard in ["1/2", "2/2"] {
        let file = format!("{}.s", &shard[..1]);
        evaluate(
            dir,
            "w.safetensors",
            &["--protocol", "dense", "--test-sides", "36,40", "--shard", shard, "--posteriors", &file],
        );
    }
    ok(dir, &["merge", "2.s", "1.s", "--out", "merged.p"]);
    assert_eq!(load("merged.p").paths, load("dense.p").paths);
    assert!(largest_difference(&load("merged.p"), &load("dense.p")) < 1e-6);
    let missing = run(dir, &["merge", "1.s", "--out", "x.p"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("of 2 shards, 2 are missing"), "{}", stderr(&missing));

    let compared: Value =
        serde_json::from_str(&ok(dir, &["compare", "dense.p", "dense.p", "--json"])).unwrap();
    assert_eq!(compared["top1"]["p_value"], 1.0);
    ok(dir, &["analyse", "dense.p", "--out", "analysis", "--dataset", "set"]);
    for name in ["classes.csv", "confusion.csv", "confusion.png", "mistakes.csv"] {
        assert!(std::fs::metadata(dir.join("analysis").join(name)).unwrap().len() > 20, "{name}");
    }
}

#[test]
fn views_are_written_as_the_network_sees_them_and_a_score_map_is_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    init(dir, "0.125", "w.safetensors");
    evaluate(
        dir,
        "w.safetensors",
        &["--protocol", "multi-crop", "--test-sides", "40", "--dump-views", "views"],
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
    let predict = ["predict", "--weights", "w.safetensors", "--device", "cpu", "--test-sides", "96", &image];
    ok(dir, &[&predict[..], &["--score-map", "map.png"]].concat());
    assert!(dir.join("map.png").is_file());
    let crops = run(dir, &[&predict[..], &["--score-map", "x.png", "--protocol", "centre"]].concat());
    assert_eq!(crops.status.code(), Some(2));
}

#[test]
fn weights_go_to_another_library_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    init(dir, "0.125", "w.safetensors");
    ok(dir, &["convert", "w.safetensors", "t.safetensors", "--to", "timm"]);
    ok(dir, &["convert", "t.safetensors", "w.caffemodel", "--to", "caffe"]);
    let again = run(dir, &["convert", "t.safetensors", "w.caffemodel", "--to", "caffe"]);
    assert_eq!(again.status.code(), Some(2));
    let [own, timm] =
        ["w.safetensors", "t.safetensors"].map(|w| evaluate(dir, w, &[])["loss"].as_f64().unwrap());
    assert_eq!(own, timm);
    let caffe = run(dir, &["convert", "w.caffemodel", "back.safetensors"]);
    assert!(stderr(&caffe).contains("B, G, R"), "{}", stderr(&caffe));
}
