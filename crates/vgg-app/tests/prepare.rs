//! Preparation by the program: killed at any time, run twice at once, without space, and training on the
//! result.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{fails, init, ok, run, small_set, stderr, vgg};
use vgg_data::{ImageSet, Split};
use vgg_testkit::imagenet::FakeImagenet;

/// Writes archives of images of the synthetic set.
fn archives(dir: &Path) {
    let train = ImageSet::open(&small_set(dir), Split::Train).unwrap();
    let file = |i: usize| std::fs::read(train.root().join(&*train.path(i))).unwrap();
    let images: Vec<Vec<u8>> = (0..240).map(|i| file(i % train.len())).collect();
    FakeImagenet::new(&images).write(&dir.join("archives"));
}

const PREPARE: [&str; 11] = [
    "data",
    "prepare-imagenet",
    "--archives",
    "archives",
    "--allow-incomplete",
    "--skip-md5",
    "--shard-mib",
    "1",
    "--smallest-side",
    "64",
    "--out",
];

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.file_name().unwrap().into(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn preparation_killed_at_any_time_writes_identical_shards() {
    let dir = tempfile::tempdir().unwrap();
    archives(dir.path());
    let start = Instant::now();
    let told = ok(dir.path(), &[&PREPARE[..], &["whole", "--threads", "1"]].concat());
    let took = start.elapsed();
    assert!(told.contains("train: 240 images in") && told.contains("incomplete classes: 1000"), "{told}");
    let whole = contents(&dir.path().join("whole"));
    assert!(whole.len() > 6, "several shards: {:?}", whole.keys());
    let mut killed = 0;
    for moment in 0..20 {
        // Not in order of time, so that later attempts find less work done or more.
        let wait = took.mul_f64(f64::from(moment * 7 % 20) / 20.0);
        let mut child = vgg(dir.path())
            .args([&PREPARE[..], &["out", "--threads", if moment % 2 == 0 { "2" } else { "4" }]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(wait.max(Duration::from_millis(5)));
        let done = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        killed += usize::from(done.is_none());
        if done.is_some() {
            std::fs::remove_dir_all(dir.path().join("out")).unwrap();
        }
    }
    assert!(killed > 3, "too few attempts were killed before they ended");
    ok(dir.path(), &[&PREPARE[..], &["out"]].concat());
    assert_eq!(contents(&dir.path().join("out")), whole);
    assert!(ok(dir.path(), &["data", "verify", "out"]).contains("480 images"));
    assert!(ok(dir.path(), &["data", "inspect", "out"]).contains("val: 240 images in 1000 classes"));
}

#[test]
fn invalid_preparations_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    archives(dir.path());
    let prepare = |out: &'static str| [&PREPARE[..], &[out]].concat();
    let plan = ok(dir.path(), &[&prepare("out")[..], &["--dry-run"]].concat());
    assert!(plan.contains("ILSVRC2012_img_val.tar") && plan.contains(" free\n"), "{plan}");
    assert!(!dir.path().join("out").exists(), "a dry run must not write");
    // Another process holds the output.
    let _lock = vgg_files::Lock::acquire(&dir.path().join("out")).unwrap();
    fails(dir.path(), &prepare("out"), 74, &["out is in use by another process"]);
    std::fs::write(dir.path().join("file"), "").unwrap();
    fails(dir.path(), &prepare("file/out"), 74, &["file/out"]);
    fails(dir.path(), &["data", "verify", "out"], 66, &["no index.json"]);
    fails(
        dir.path(),
        &["data", "prepare-imagenet", "--archives", "out", "--out", "x"],
        66,
        &["image-net.org"],
    );
    let small = ["data", "prepare-folder", "--dataset", "set", "--out", "x", "--smallest-side", "8"];
    fails(dir.path(), &small, 2, &["at least 32"]);
    let of = |dataset| ["data", "prepare-folder", "--dataset", dataset, "--out", "x"];
    let message = fails(dir.path(), &of("nowhere"), 66, &["nowhere: the folder does not exist"]);
    assert!(!message.contains("--layout"), "{message}");
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    fails(dir.path(), &of("empty"), 66, &["empty cannot be read with --layout folders: "]);
}

#[test]
fn training_on_shards_equals_training_on_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    ok(
        dir.path(),
        &["data", "prepare-folder", "--dataset", "set", "--out", "shards", "--smallest-side", "0"],
    );
    let small = ["data", "prepare-folder", "--dataset", "set", "--out", "small", "--smallest-side", "32"];
    ok(dir.path(), &small);
    let train = ["experiment", "table3", "--profile", "smoke", "--dataset", "small"];
    fails(dir.path(), &train, 2, &["reduced to a smallest side of 32", "data.enlarge"]);
    init(dir.path(), "0.125", "w.safetensors");
    let evaluate = |set: &str| {
        let out = run(
            dir.path(),
            &[
                "evaluate",
                "--weights",
                "w.safetensors",
                "--dataset",
                set,
                "--protocol",
                "dense",
                "--test-scales",
                "48",
                "--json",
            ],
        );
        assert!(out.status.success(), "{}", stderr(&out));
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        ["n", "top1_error", "top5_error", "loss"].map(|field| json[field].as_f64().unwrap())
    };
    assert_eq!(evaluate("shards"), evaluate("set"));
    let table = |set: &str| {
        ok(
            dir.path(),
            &[
                "experiment",
                "table3",
                "--profile",
                "smoke",
                "--dataset",
                set,
                "--out",
                &format!("runs-{set}"),
            ],
        );
        let out = dir.path().join(format!("runs-{set}"));
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("table3.json")).unwrap()).unwrap();
        let rows = json["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 12);
        let result = |row: &serde_json::Value| {
            let errors = ["top1_error", "top5_error"].map(|field| row[field].as_f64().unwrap());
            // File hashes differ, as names and settings contain the data set's path; the weights must be
            // equal.
            let weights = out.join(row["run"].as_str().unwrap()).join("weights.safetensors");
            let mut weights = vgg_files::TensorFile::open(&weights).unwrap();
            let values: Vec<Vec<f32>> =
                weights.names().iter().map(|name| weights.read_f32(name).unwrap()).collect();
            (row["config"].clone(), errors, values)
        };
        rows.iter().map(result).collect::<Vec<_>>()
    };
    assert!(table("shards") == table("set"));
}
