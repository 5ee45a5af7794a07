//! Run identity: a run directory is refused, with the changed setting's name, if anything that determines the
//! run has changed; other settings may change.

mod common;

use std::path::Path;

use common::{experiment_file, fails, init, ok, small_set};

/// Changed settings, and the differences that the refusal must list.
const DECIDES: &[(&[&str], &[&str])] = &[
    (&["network.config=B"], &["network.config: \"A\" before, \"B\" now"]),
    (&["network.width=0.25"], &["network.width: 0.125 before, 0.25 now"]),
    (&["network.head=[16, 24]"], &["network.head: [16,16] before, [16,24] now"]),
    (&["network.dropout=0.25"], &["network.dropout: 0.5 before, 0.25 now"]),
    (&["network.lrn_style=caffe"], &["network.lrn_style: \"alexnet\" before, \"caffe\" now"]),
    (&["network.pool_rounding=ceil"], &["network.pool_rounding: \"floor\" before, \"ceil\" now"]),
    (&["network.init.scheme=glorot-normal"], &["network.init.scheme: \"he\" before, \"glorot-normal\" now"]),
    (
        &["network.init.from=a.safetensors", "network.init.layers=all"],
        &["start: none before", "network.init.layers: none before, \"all\" now"],
    ),
    (&["network.train_layers=[\"fc8\"]"], &["network.train_layers: none before, [\"fc8\"] now"]),
    (&["data.train_scale=[36, 47]"], &["data.train_scale: [36,48] before, [36,47] now"]),
    (
        &["data.crop=64", "data.train_scale=64", "validate.test_scale=64"],
        &["data.crop: 32 before, 64 now", "data.train_scale: [36,48] before, 64 now"],
    ),
    (&["data.interpolation=bicubic"], &["data.interpolation: \"bilinear\" before, \"bicubic\" now"]),
    (&["data.flip=false"], &["data.flip: true before, false now"]),
    (&["data.pca_jitter_std=0.2"], &["data.pca_jitter_std: 0.1 before, 0.2 now"]),
    (&["data.pixel_scale=0.5"], &["data.pixel_scale: \"unit-variance\" before, 0.5 now", "pixels.scale: "]),
    (
        &["data.pixel_scale=torchvision"],
        &[
            "data.pixel_scale: ",
            "pixels.mean_rgb: ",
            "pixels.std_rgb: [1.0,1.0,1.0] before, [0.229,0.224,0.225] now",
        ],
    ),
    (&["data.on_bad_image=skip"], &["data.on_bad_image: \"stop\" before, \"skip\" now"]),
    (&["optimizer.momentum_variant=torch"], &["optimizer.momentum_variant: \"caffe\" before, \"torch\" now"]),
    (&["optimizer.batch=6"], &["optimizer.batch: 4 before, 6 now"]),
    (&["optimizer.micro_batch=2"], &["optimizer.micro_batch: 3 before, 2 now"]),
    (&["optimizer.momentum=0.5"], &["optimizer.momentum: 0.9 before, 0.5 now"]),
    (&["optimizer.weight_decay=0.25"], &["optimizer.weight_decay: 0.0005 before, 0.25 now"]),
    (&["optimizer.decay_biases=true"], &["optimizer.decay_biases: false before, true now"]),
    (&["optimizer.bias_lr_mult=2.0"], &["optimizer.bias_lr_mult: 1.0 before, 2.0 now"]),
    (&["schedule.lr=0.02"], &["schedule.lr: 0.01 before, 0.02 now"]),
    (&["schedule.gamma=0.2"], &["schedule.gamma: 0.1 before, 0.2 now"]),
    (&["schedule.milestones=[2]"], &["schedule.milestones: [1] before, [2] now"]),
    (&["validate.test_scale=37"], &["validate.test_scale: 36 before, 37 now"]),
    (&["validate.every_epochs=2"], &["validate.every_epochs: 1 before, 2 now"]),
    (&["run.seed=2"], &["run.seed: 1 before, 2 now"]),
    (&["run.max_epochs=3"], &["run.max_epochs: 1 before, 3 now"]),
];

/// The arguments of a one-epoch run in `out` with these settings overridden.
fn train<'a>(out: &'a str, set: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["train", "a.toml", "--threads", "1", "--out", out, "--set", "run.max_epochs=1"];
    set.iter().for_each(|pair| arguments.extend(["--set", pair]));
    arguments
}

/// Trains a run of one epoch in `dir/run`.
fn started_run(dir: &Path) {
    small_set(dir);
    experiment_file(dir);
    init(dir, "0.125", "a.safetensors");
    ok(dir, &train("run", &[]));
}

#[test]
fn every_changed_setting_of_the_identity_is_named() {
    let dir = tempfile::tempdir().unwrap();
    started_run(dir.path());
    for (set, names) in DECIDES {
        fails(dir.path(), &train("run", set), 2, names);
    }
    // Every key of the file is in the list, except those that the tests below change, and validate.protocol,
    // which can only be centre.
    let text = std::fs::read_to_string(dir.path().join("a.toml")).unwrap();
    let file: toml::Table = toml::from_str(&text).unwrap();
    let mut keys = Vec::new();
    for (table, values) in &file {
        for (key, value) in values.as_table().unwrap() {
            match value.as_table() {
                Some(inner) => keys.extend(inner.keys().map(|last| format!("{table}.{key}.{last}"))),
                None => keys.push(format!("{table}.{key}")),
            }
        }
    }
    let elsewhere = ["data.dataset", "schedule.kind", "validate.protocol"];
    for key in keys.iter().filter(|key| !elsewhere.contains(&key.as_str())) {
        let listed = DECIDES.iter().any(|(set, _)| set[0].split_once('=').unwrap().0 == key);
        assert!(listed, "no other value of {key} is tried");
    }
}

#[test]
fn every_key_of_the_plateau_schedule_is_in_the_identity() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    experiment_file(dir.path());
    let path = dir.path().join("a.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let plateau = r#"{ kind = "plateau", lr = 0.01, factor = 0.1, max_reductions = 3, patience = 4, threshold = 0.001, on_exhausted = "stop" }"#;
    let changed = text.replace(r#"{ kind = "steps", lr = 0.01, gamma = 0.1, milestones = [1] }"#, plateau);
    assert_ne!(changed, text);
    std::fs::write(&path, changed).unwrap();
    ok(dir.path(), &train("run", &[]));
    for (set, difference) in [
        ("schedule.lr=0.02", "schedule.lr: 0.01 before, 0.02 now"),
        ("schedule.factor=0.2", "schedule.factor: 0.1 before, 0.2 now"),
        ("schedule.max_reductions=2", "schedule.max_reductions: 3 before, 2 now"),
        ("schedule.patience=5", "schedule.patience: 4 before, 5 now"),
        ("schedule.threshold=0.002", "schedule.threshold: 0.001 before, 0.002 now"),
        ("schedule.on_exhausted=continue", "schedule.on_exhausted: \"stop\" before, \"continue\" now"),
    ] {
        fails(dir.path(), &train("run", &[set]), 2, &[difference]);
    }
}

#[test]
fn schedule_kind_is_in_the_identity() {
    let dir = tempfile::tempdir().unwrap();
    started_run(dir.path());
    let path = dir.path().join("a.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let constant = r#"{ kind = "constant", lr = 0.01 }"#;
    let changed = text.replace(r#"{ kind = "steps", lr = 0.01, gamma = 0.1, milestones = [1] }"#, constant);
    assert_ne!(changed, text);
    std::fs::write(&path, changed).unwrap();
    let names = ["schedule.kind: \"steps\" before, \"constant\" now", "schedule.gamma: 0.1 before, none now"];
    fails(dir.path(), &train("run", &[]), 2, &names);
}

#[test]
fn images_initial_weights_and_instruction_set_are_in_the_identity() {
    let dir = tempfile::tempdir().unwrap();
    started_run(dir.path());
    let started = train("started", &["network.init.from=a.safetensors", "network.init.layers=all"]);
    ok(dir.path(), &started);
    // Weights of another seed under the same file name.
    std::fs::remove_file(dir.path().join("a.safetensors")).unwrap();
    let size = ["--classes", "2", "--head", "16,16", "--crop", "32", "--width", "0.125"];
    ok(
        dir.path(),
        &[&["init", "--config", "A", "--seed", "9", "--out", "a.safetensors"][..], &size].concat(),
    );
    fails(dir.path(), &started, 2, &["start: "]);

    let run = train("run", &[]);
    fails(dir.path(), &[&run[..], &["--instruction-set", "portable"]].concat(), 2, &["numerics"]);
    fails(dir.path(), &[&run[..], &["--conv-algorithm", "direct"]].concat(), 2, &["numerics"]);

    let class = dir.path().join("set/val").join(vgg_data::synthetic::CLASSES[0]);
    std::fs::rename(class.join("00000.jpg"), class.join("renamed.jpg")).unwrap();
    fails(dir.path(), &run, 2, &["dataset: "]);
}

#[test]
fn threads_workers_checkpoints_and_the_data_path_are_not_in_the_identity() {
    let dir = tempfile::tempdir().unwrap();
    started_run(dir.path());
    let metrics = std::fs::read(dir.path().join("run/metrics.jsonl")).unwrap();
    std::fs::rename(dir.path().join("set"), dir.path().join("moved")).unwrap();
    let mut same = train("run", &["data.dataset=moved", "data.enlarge=true", "network.classes=2"]);
    same.extend([
        "--workers",
        "3",
        "--checkpoint-steps",
        "1",
        "--keep-checkpoints",
        "3",
        "--checkpoint-minutes",
        "0",
    ]);
    ok(dir.path(), &same);
    assert_eq!(std::fs::read(dir.path().join("run/metrics.jsonl")).unwrap(), metrics);
}
