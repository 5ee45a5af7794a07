//! The commands as users and scripts run them.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{experiment_file, fails, ok, run, small_set, stderr, vgg};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn table_3_is_made_whole_and_a_second_time_from_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["experiment", "table3", "--profile", "smoke", "--out", "out"];
    let first = ok(dir.path(), &arguments);
    let table = json(&std::fs::read_to_string(dir.path().join("out/table3.json")).unwrap());
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 12);
    for row in rows {
        for field in ["top1_error", "top5_error", "paper_top1_error", "paper_top5_error"] {
            assert!((0.0..=1.0).contains(&row[field].as_f64().unwrap()), "{field} of {row}");
        }
        for field in ["train_scale", "test_scales", "top1_ci", "paper_train_scale", "paper_test_scales"] {
            assert!(row[field].is_array(), "{field} of {row}");
        }
        assert_eq!((row["protocol"].as_str(), row["epochs"].as_u64()), (Some("dense"), Some(1)));
        assert_eq!((row["n"].as_u64(), row["seed"].as_u64()), (Some(20), Some(1)));
        let run = dir.path().join("out").join(row["run"].as_str().unwrap());
        assert!(run.join("weights.safetensors").is_file() && !run.join("checkpoints").exists());
    }
    let configs: Vec<&str> = rows.iter().map(|r| r["config"].as_str().unwrap()).collect();
    assert_eq!(configs, ["A", "A-LRN", "B", "C", "C", "C", "D", "D", "D", "E", "E", "E"]);
    let csv = std::fs::read_to_string(dir.path().join("out/table3.csv")).unwrap();
    assert!(csv.lines().count() == 13 && csv.contains(",256;512,384,"), "{csv}");
    let markdown = std::fs::read_to_string(dir.path().join("out/table3.md")).unwrap();
    assert!(
        markdown.contains("profile smoke; differs from the paper (in brackets): width 0.125 (1);")
            && markdown.contains("chance error 90.0 %"),
        "{markdown}"
    );

    let again = run(dir.path(), &arguments);
    assert_eq!(String::from_utf8_lossy(&again.stdout), first);
    assert_eq!(stderr(&again).matches("already trained").count(), 12, "{}", stderr(&again));
    // Another seed gives other runs; the initial weights are part of a run's identity.
    let mut seeded = arguments.to_vec();
    // A value set under `base` overrides the runs' own values.
    seeded.extend(["--set", "base.run.seed=2", "--set", "base.schedule.lr=0.002"]);
    assert_eq!(stderr(&run(dir.path(), &seeded)).matches("already trained").count(), 0);
    let markdown = std::fs::read_to_string(dir.path().join("out/table3.md")).unwrap();
    assert!(markdown.contains("initial learning rate 0.002 (0.01, 0.001)"), "{markdown}");
    assert!(markdown.contains("overridden settings: base.run.seed=2, base.schedule.lr=0.002"), "{markdown}");
}

#[test]
fn several_seeds_give_means_and_reuse_what_was_trained() {
    let dir = tempfile::tempdir().unwrap();
    let two = ["experiment", "shallow", "--profile", "smoke", "--seeds", "2", "--out", "out"];
    let one = ["experiment", "shallow", "--profile", "smoke", "--set", "base.run.seed=2", "--out", "out"];
    let rows = |arguments: &[&str]| -> Vec<Value> {
        run(dir.path(), arguments);
        let table = json(&std::fs::read_to_string(dir.path().join("out/shallow.json")).unwrap());
        assert_eq!(table["findings"].as_array().unwrap().len(), 1, "{table}");
        table["rows"].as_array().unwrap().clone()
    };
    let (means, second) = (rows(&two), rows(&one));
    for (mean, second) in means.iter().zip(&second) {
        let [by_first, by_second] = mean["by_seed"].as_array().unwrap().as_slice() else { panic!("{mean}") };
        assert_eq!((by_first["seed"].as_u64(), by_second), (Some(1), &second["by_seed"][0]));
        let errors = [by_first, by_second].map(|result| result["top1_error"].as_f64().unwrap());
        assert!((mean["top1_error"].as_f64().unwrap() - (errors[0] + errors[1]) / 2.0).abs() < 1e-12);
        let runs: Vec<&Value> = mean["members"].as_array().unwrap().iter().map(|m| &m["run"]).collect();
        assert!(runs.len() == 2 && runs[0] != runs[1] && *runs[1] == second["run"], "{runs:?}");
    }
    let again = run(dir.path(), &two);
    let (printed, notes) = (String::from_utf8_lossy(&again.stdout).into_owned(), stderr(&again));
    // The runs start from A, so there are three for each seed.
    assert_eq!(notes.matches("already trained").count(), 6, "{notes}");
    assert!(notes.contains(", seed 2 of 2") && printed.contains("over 2 seeds"), "{notes}{printed}");
    for bad in ["0", "31", "x"] {
        let arguments = ["experiment", "shallow", "--profile", "smoke", "--seeds", bad];
        fails(dir.path(), &arguments, 2, &["--seeds", "1 to 30"]);
    }
}

#[test]
fn a_signal_saves_and_the_same_command_comes_to_the_same_weights() {
    interrupt_and_resume(&[]);
}

/// As above in bf16, on the software model of the tile unit. A run in f32 cannot continue the run in bf16.
#[test]
fn a_signal_saves_a_run_in_bf16() {
    let portable = ["--device", "cpu", "--instruction-set", "portable"];
    let dir = interrupt_and_resume(&[&portable[..], &["--precision", "bf16"]].concat());
    let f32_run = ["train", "a.toml", "--set", "run.max_epochs=30", "--out", "parts"];
    fails(dir.path(), &[&f32_run[..], &portable].concat(), 2, &["numerics", "bf16 (software model of AMX)"]);
}

/// Interrupts a run by a signal, resumes it, and compares it with an uninterrupted one.
fn interrupt_and_resume(device: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    experiment_file(dir.path());
    let arguments = ["train", "a.toml", "--set", "run.max_epochs=30", "--out"];
    let train = |out: &str, threads: &str| {
        let mut command = vgg(dir.path());
        command.args(arguments).args([out, "--threads", threads]).args(device);
        command
    };
    assert!(train("whole", "2").output().unwrap().status.success());
    let mut child = train("parts", "1").stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut line = || lines.next().map(Result::unwrap);
    while line().is_some_and(|line| !line.contains("epoch 2/30")) {}
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut last = String::new();
    while let Some(next) = line() {
        last = next;
    }
    assert_eq!(child.wait().unwrap().code(), Some(130), "{last}");
    assert!(last.contains("interrupted"), "{last}");
    // An interrupted run with other settings is left unchanged.
    let what = std::fs::read(dir.path().join("parts/run.json")).unwrap();
    let other = train("parts", "1").args(["--set", "run.seed=5"]).output().unwrap();
    assert_eq!(other.status.code(), Some(2), "{}", stderr(&other));
    assert!(std::fs::read(dir.path().join("parts/run.json")).unwrap() == what);
    let resumed = train("parts", "2").output().unwrap();
    assert!(stderr(&resumed).contains("resuming after epoch"), "{}", stderr(&resumed));
    for file in ["weights.safetensors", "metrics.jsonl", "metrics.csv"] {
        let read = |out: &str| std::fs::read(dir.path().join(out).join(file)).unwrap();
        assert!(read("whole") == read("parts"), "{file} differs");
    }
    // A finished run is not trained again, and a run with other settings is not overwritten.
    assert!(stderr(&train("parts", "1").output().unwrap()).contains("already trained"));
    let other = train("parts", "1").args(["--set", "run.seed=5"]).output().unwrap();
    assert_eq!(other.status.code(), Some(2), "{}", stderr(&other));
    assert!(stderr(&other).contains("contains a run with other settings"), "{}", stderr(&other));
    dir
}

#[test]
fn evaluate_and_predict_agree() {
    let dir = tempfile::tempdir().unwrap();
    let set = small_set(dir.path());
    experiment_file(dir.path());
    ok(dir.path(), &["train", "a.toml", "--out", "run"]);
    let weights = "run/weights.safetensors";
    let evaluate =
        ["evaluate", "--weights", weights, "--dataset", "set", "--posteriors", "p.safetensors", "--json"];
    let result = json(&ok(dir.path(), &evaluate));
    // Defaults: the middle of the scale jitter, and flips.
    assert_eq!(result["test_scales"], json("[42]"));
    assert_eq!((result["protocol"].as_str(), result["flip"].as_bool()), (Some("dense"), Some(true)));
    assert_eq!((result["n"].as_u64(), result["top5_error"].as_f64()), (Some(4), Some(0.0)));
    assert!(result["images_per_s"].as_f64().unwrap() > 0.0);
    let posteriors = vgg_eval::Posteriors::load(&dir.path().join("p.safetensors")).unwrap();
    assert_eq!(posteriors.values.dim(), (4, 2));
    assert_eq!(posteriors.paths.len(), 4);
    for (i, path) in posteriors.paths.iter().enumerate() {
        let path = Path::new("set").join(path);
        let predict = ["predict", "--weights", weights, path.to_str().unwrap(), "--json", "--top", "2"];
        let predicted = json(&ok(dir.path(), &predict));
        let best = &predicted[0]["predictions"][0];
        let (class, p) = (best["class"].as_u64().unwrap() as usize, best["posterior"].as_f64().unwrap());
        // The same views through the same network: a batch never has a single image, as each comes with its
        // flip.
        assert_eq!(posteriors.values[[i, class]], p as f32);
        let other = &predicted[0]["predictions"][1];
        assert_eq!(other["class"].as_u64(), Some(1 - class as u64));
        assert!(p >= other["posterior"].as_f64().unwrap(), "the most likely class comes first");
        assert!(["barred-cross", "bricked-square"].contains(&best["name"].as_str().unwrap()));
    }
    let centre =
        ["evaluate", "--weights", weights, "--dataset", "set", "--protocol", "centre", "--test-scales", "36"];
    assert!(ok(dir.path(), &centre).contains("config A, centre, Q = 36: 4 images"));
    assert!(set.join("boxes.csv").is_file());
}

#[test]
fn tables_1_and_2_are_the_papers() {
    let dir = tempfile::tempdir().unwrap();
    ok(dir.path(), &["experiment", "table2", "--out", "."]);
    let table = json(&std::fs::read_to_string(dir.path().join("table2.json")).unwrap());
    let rows = table["rows"].as_array().unwrap();
    let of = |field: &str| rows.iter().map(|row| row[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("config"), ["A", "A-LRN", "B", "C", "D", "E"]);
    assert_eq!(of("parameters_millions"), [133, 133, 133, 134, 138, 144]);
    assert_eq!(of("paper_parameters_millions"), [133, 133, 133, 134, 138, 144]);
    let text = ok(dir.path(), &["experiment", "table1", "--out", "."]);
    assert!(text.contains("3x3-256 3x3-256 1x1-256") && text.contains("3x3-64 LRN"), "{text}");
    assert!(ok(dir.path(), &["experiment", "--print", "table3"]).contains("profile   = \"mini\""));
}

#[test]
fn random_weights_are_deterministic() {
    let dir = tempfile::tempdir().unwrap();
    for (out, seed) in [("a", "1"), ("b", "1"), ("c", "2")] {
        let arguments = [
            "init",
            "--config",
            "A",
            "--width",
            "0.125",
            "--classes",
            "10",
            "--head",
            "16,16",
            "--crop",
            "64",
        ];
        ok(dir.path(), &[&arguments[..], &["--seed", seed, "--out", out]].concat());
    }
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert!(read("a") == read("b") && read("a") != read("c"));
}

#[test]
fn custom_stages_are_trained_evaluated_and_fine_tuned() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    experiment_file(dir.path());
    let stages = "network.stages=[[12], [{ filters = 8, kernel = 1 }, 24]]";
    let train = ["train", "a.toml", "--set", stages, "--set", "network.width=1.0"];
    ok(dir.path(), &[&train[..], &["--out", "run"]].concat());
    let summary = ok(dir.path(), &["summary", "--weights", "run/weights.safetensors", "--json"]);
    let summary = json(&summary);
    let names: Vec<_> = summary["layers"].as_array().unwrap().iter().map(|layer| &layer["name"]).collect();
    let convolutions = ["conv1_1", "pool1", "conv2_1", "conv2_2", "pool2"];
    assert_eq!(
        (&names[..5], summary["config"].as_str()),
        (&convolutions.map(Value::from).each_ref()[..], Some("custom"))
    );
    let evaluate = ["evaluate", "--weights", "run/weights.safetensors", "--dataset", "set", "--protocol"];
    for protocol in ["centre", "dense", "multi-crop"] {
        let text = ok(dir.path(), &[&evaluate[..], &[protocol, "--test-scales", "36"]].concat());
        assert!(
            text.contains(&format!("config custom, {protocol}, Q = 36")) && text.contains(": 4 images"),
            "{text}"
        );
    }
    // Settings from run.json identify the same run; another run can start from its weights.
    let again = run(dir.path(), &["train", "run/run.json", "--out", "run"]);
    assert!(stderr(&again).contains("already trained"), "{}", stderr(&again));
    let from = "network.init={ scheme = \"he\", from = \"run/weights.safetensors\", layers = [\"conv1_1\", \"conv2_2\"] }";
    ok(
        dir.path(),
        &[&train[..], &["--set", from, "--set", "network.train_layers=[\"fc8\"]", "--out", "tuned"]].concat(),
    );
    ok(dir.path(), &["convert", "run/weights.safetensors", "net.onnx", "--to", "onnx"]);
    // Conversion to other libraries' formats keeps the network.
    let image = std::fs::read_dir(dir.path().join("set/val")).unwrap().next().unwrap().unwrap().path();
    let image = std::fs::read_dir(image).unwrap().next().unwrap().unwrap().path();
    let predict = |weights: &str| {
        let answer =
            json(&ok(dir.path(), &["predict", "--weights", weights, image.to_str().unwrap(), "--json"]));
        answer[0]["predictions"][0]["posterior"].as_f64().unwrap()
    };
    let expected = predict("run/weights.safetensors");
    for (to, file) in
        [("torchvision", "tv.safetensors"), ("timm", "timm.safetensors"), ("caffe", "c.caffemodel")]
    {
        ok(dir.path(), &["convert", "run/weights.safetensors", file, "--to", to]);
        let summary = ok(dir.path(), &["summary", "--weights", file, "--json"]);
        let found = json(&summary);
        assert_eq!(
            found["parameters"],
            json(&ok(dir.path(), &["summary", "--weights", "run/weights.safetensors", "--json"]))["parameters"],
            "{to}"
        );
        if to != "caffe" {
            assert_eq!(predict(file), expected, "{to}");
        }
    }
}

/// A safetensors file without its metadata.
fn without_metadata(file: &[u8]) -> Vec<u8> {
    let (length, rest) = file.split_first_chunk::<8>().unwrap();
    let (header, tensors) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    header.as_object_mut().unwrap().remove("__metadata__");
    let header = header.to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header, tensors].concat()
}

/// Weights of torchvision have its geometry and ImageNet's 1,000 classes unless told otherwise.
#[test]
fn weights_of_torchvision_have_its_geometry_and_classes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let set = small_set(dir);
    let init =
        ["init", "--config", "A", "--classes", "1000", "--width", "0.05", "--head", "16,16", "--crop", "32"];
    ok(dir, &[&init[..], &["--out", "w"]].concat());
    ok(dir, &["convert", "w", "with.safetensors", "--to", "torchvision"]);
    let bytes = without_metadata(&std::fs::read(dir.join("with.safetensors")).unwrap());
    std::fs::write(dir.join("t.safetensors"), bytes).unwrap();
    for class in std::fs::read_dir(set.join("val")).unwrap() {
        // Images with sides of 48 and 36 pixels have a centre crop at another place.
        let image = vgg_data::Image::from_shape_fn((37, 50, 3), |(y, x, c)| (y * 5 + x * 3 + c) as u8);
        vgg_data::write_png(&class.unwrap().path().join("00000.png"), &image).unwrap();
    }
    let image = "set/val/barred-cross/00000.png";
    let predict = |weights: &str, geometry: &[&str]| {
        let common = ["--weights", weights, "--json", "--test-scales", "35", "--protocol", "centre"];
        let output = run(dir, &[&["predict", image][..], &common, geometry].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        (json(std::str::from_utf8(&output.stdout).unwrap())[0]["predictions"].clone(), stderr(&output))
    };
    let (own, text) = predict("t.safetensors", &[]);
    assert!(text.contains("assumed to be those of ILSVRC-2012"), "{text}");
    assert!(own[0]["id"].as_str().unwrap().starts_with('n'), "{own}");
    let of = |geometry: &str| predict("t.safetensors", &["--geometry", geometry]).0;
    assert_eq!(own, of("torchvision"));
    assert!(own != of("paper") && own != of("caffe") && of("paper") != of("caffe"));
    assert_eq!(predict("w", &[]).0, predict("w", &["--geometry", "paper"]).0);
}
