//! Errors: one clear message, the right exit code, and nothing overwritten.

mod common;

use common::{experiment_file, fails, init, ok, run, small_set, stderr};

#[test]
fn invalid_settings_exit_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    experiment_file(dir);
    let train = |set: &str| {
        ["train", "a.toml", "--out", "run", "--set"]
            .map(str::to_owned)
            .into_iter()
            .chain([set.to_owned()])
            .collect::<Vec<_>>()
    };
    for (set, words) in [
        ("optimizer.momentun=0.9", &["unknown field `momentun`", "momentum"][..]),
        ("nonsense=1", &["unknown field `nonsense`"]),
        ("network.config=F", &["unknown variant `F`", "A-LRN"]),
        ("data.crop=33", &["crop 33 is not a multiple of 32"]),
        ("data.train_scale=16", &["train_scale 16 is smaller than the crop, 32"]),
        ("network.classes=3", &["network.classes is 3", "2 classes"]),
        ("network.train_layers=[\"conv9_9\"]", &["no layer conv9_9"]),
        ("optimizer.momentum=1.0", &["momentum 1"]),
        ("schedule.lr=-1", &["lr -1"]),
        ("network.init.layers=paper", &["both from and layers"]),
        ("run", &["\"run\" is not key=value"]),
        ("data.pixel_scale=unit", &["pixel_scale must be a number, "]),
        ("data.train_scale=[1,2,3]", &["train_scale must be one side"]),
        ("optimizer.micro_batch=300", &["micro_batch 300"]),
        ("network.head=[10000000000,1]", &["head [10000000000, 1]", "between 1 and"]),
        ("network.head=[1048576,1048576]", &["a training step needs about", "are free"]),
        ("optimizer.batch=1000000000", &["batch 1000000000 is larger than the maximum"]),
        (&format!("{}=1", vec!["a"; 60_000].join(".")), &["a key has more than 16 parts"]),
    ] {
        let arguments = train(set);
        fails(dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), 2, words);
    }
    let text = std::fs::read_to_string(dir.join("a.toml")).unwrap();
    std::fs::write(dir.join("bad.toml"), text.replace("batch = 4", "batch = 4, bach = 5")).unwrap();
    fails(dir, &["train", "bad.toml"], 2, &["bad.toml", "unknown field `bach`", "optimizer"]);
    assert!(!dir.join("run").exists(), "a rejected run must not leave files");
    fails(dir, &["train", "none.toml"], 66, &["none.toml does not exist"]);
    std::fs::write(dir.join("file"), b"").unwrap();
    fails(dir, &["train", "a.toml", "--out", "file/run"], 74, &["file/run"]);
    fails(dir, &["experiment", "table9"], 2, &["no experiment table9", "table3"]);
    fails(dir, &["experiment", "table3", "--profile", "paper"], 2, &["--dataset DIR"]);
    fails(dir, &["experiment", "table3", "--set", "foo=1"], 2, &["profile mini: unknown field `foo`"]);
    fails(dir, &["experiment", "table1", "--set", "foo=1"], 2, &["table1: unknown field `foo`"]);
    fails(dir, &["train", "a.toml", "--device", "cuda"], 2, &["CUDA", "--device cpu"]);
    let message = fails(dir, &["gpu-selftest"], 2, &["CUDA is unavailable"]);
    assert!(!message.contains("--device"), "{message}");
}

#[test]
fn invalid_data_exits_with_65_and_missing_data_with_66() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let set = small_set(dir);
    experiment_file(dir);
    fails(dir, &["train", "a.toml", "--dataset", "nowhere"], 66, &["nowhere", "folder does not exist"]);

    let image = std::fs::read_dir(set.join("train/barred-cross")).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&image).unwrap();
    let name = image.file_name().unwrap().to_str().unwrap().to_owned();
    std::fs::write(&image, b"").unwrap();
    fails(dir, &["train", "a.toml", "--out", "r1"], 65, &[&name, "empty (0 bytes)"]);
    let skip = ["train", "a.toml", "--out", "r2", "--set", "data.on_bad_image=skip"];
    let output = run(dir, &skip);
    assert!(output.status.success() && stderr(&output).contains(&name), "{}", stderr(&output));
    let metrics = std::fs::read_to_string(dir.join("r2/metrics.jsonl")).unwrap();
    let skipped = metrics
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["skipped"].as_u64());
    assert_eq!(skipped.collect::<Vec<_>>(), [Some(1); 2], "once in each epoch: {metrics}");
    std::fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    fails(dir, &["train", "a.toml", "--out", "r3"], 65, &[&name, "truncated"]);
    std::fs::write(&image, &bytes).unwrap();
    // A set without any readable image has no error rate, not one of 0.
    let mut spoilt = Vec::new();
    for class in ["barred-cross", "bricked-square"] {
        for entry in std::fs::read_dir(set.join("val").join(class)).unwrap() {
            let path = entry.unwrap().path();
            spoilt.push((path.clone(), std::fs::read(&path).unwrap()));
            std::fs::write(&path, b"").unwrap();
        }
    }
    init(dir, "0.125", "w");
    let evaluate = ["evaluate", "--weights", "w", "--dataset", "set", "--on-bad-image", "skip"];
    fails(dir, &evaluate, 65, &["no image of set"]);
    spoilt.into_iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    // Another synthetic set, or any other folder, is not overwritten.
    fails(dir, &["data", "synthetic", "--out", "set", "--seed", "9"], 65, &["holds another synthetic set"]);
    std::fs::create_dir_all(dir.join("mine/train/cat")).unwrap();
    fails(dir, &["data", "synthetic", "--out", "mine"], 65, &["its subfolder train is not empty"]);
    // A panorama is too large for a whole view; the error names it.
    let wide = vgg_data::Image::from_elem((4, 800, 3), 90);
    vgg_data::write_png(&set.join("val/barred-cross/wide.png"), &wide).unwrap();
    let evaluate = ["evaluate", "--weights", "w", "--dataset", "set", "--test-scales", "512"];
    fails(dir, &evaluate, 65, &["barred-cross/wide.png", "512 x 102400 pixels"]);
    let predict = ["predict", "--weights", "w", "set/val/barred-cross/wide.png", "--test-scales", "512"];
    fails(dir, &predict, 65, &["barred-cross/wide.png: rescaled to smallest side 512"]);
    std::fs::remove_file(set.join("val/barred-cross/wide.png")).unwrap();

    std::fs::rename(set.join("val/bricked-square"), dir.join("aside")).unwrap();
    fails(
        dir,
        &["train", "a.toml", "--out", "r4"],
        65,
        &["val does not have these class folders of train: bricked-square"],
    );
    std::fs::create_dir(set.join("val/bricked-square")).unwrap();
    fails(dir, &["train", "a.toml", "--out", "r5"], 66, &["the class folder bricked-square has no images"]);
}

#[test]
fn png_named_jpg_is_decoded_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let set = small_set(dir);
    experiment_file(dir);
    let image = vgg_data::Image::from_elem((40, 50, 3), 90);
    vgg_data::write_png(&set.join("val/barred-cross/odd.jpg"), &image).unwrap();
    init(dir, "0.125", "w");
    let arguments = ["evaluate", "--weights", "w", "--dataset", "set", "--test-scales", "40", "--json"];
    let output = run(dir, &arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("val/barred-cross/odd.jpg is a PNG file"), "{}", stderr(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["n"], 5);
}

#[test]
fn invalid_weights_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_set(dir);
    experiment_file(dir);
    init(dir, "0.125", "a.safetensors");
    init(dir, "0.25", "wide.safetensors");
    let bytes = std::fs::read(dir.join("a.safetensors")).unwrap();
    std::fs::write(dir.join("half.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    let evaluate = |weights: &'static str| ["evaluate", "--dataset", "set", "--weights", weights];
    fails(dir, &evaluate("half.safetensors"), 65, &["half.safetensors", "its header requires"]);
    fails(dir, &evaluate("none.safetensors"), 66, &["none.safetensors does not exist"]);
    fails(dir, &evaluate("a.toml"), 65, &["a.toml"]);
    let wrong = ["evaluate", "--dataset", "set", "--weights", "a.safetensors", "--config", "D"];
    fails(dir, &wrong, 2, &["a.safetensors holds config A, not D"]);
    // A header with twice the width contradicts every layer, including the deepest.
    let mut wide = bytes.clone();
    let at = bytes.windows(15).position(|w| w == b"\"width\":\"0.125\"").unwrap() + 9;
    wide[at..at + 5].copy_from_slice(b"0.250");
    std::fs::write(dir.join("claims.safetensors"), &wide).unwrap();
    let words =
        ["conv1_1.weight has shape [8, 3, 3, 3] instead of [16, 3, 3, 3]", "conv5_2.weight has shape"];
    fails(dir, &evaluate("claims.safetensors"), 65, &words);
    let small = ["evaluate", "--dataset", "set", "--weights", "a.safetensors", "--test-scales", "20"];
    fails(dir, &small, 2, &["test scale 20 is smaller than the network's crop, 32"]);
    // A network of another width cannot initialise the run; the error gives the layer and both shapes.
    let from = [
        "train",
        "a.toml",
        "--out",
        "r",
        "--set",
        "network.init.from=wide.safetensors",
        "--set",
        "network.init.layers=paper",
    ];
    fails(dir, &from, 2, &["layer conv1_1 cannot be copied", "[16, 3, 3, 3]", "[8, 3, 3, 3]"]);
    // An empty layer selection is an error, and a run does not replace foreign weights.
    let nothing = [&from[..from.len() - 1], &["network.init.layers=[]"]].concat();
    fails(dir, &nothing, 2, &["no layer of the source, config A, can be copied to config A"]);
    std::fs::create_dir(dir.join("own")).unwrap();
    std::fs::copy(dir.join("a.safetensors"), dir.join("own/weights.safetensors")).unwrap();
    fails(dir, &["train", "a.toml", "--out", "own"], 2, &["own holds no run, but has weights.safetensors"]);
    let replace =
        ["evaluate", "--dataset", "set", "--weights", "a.safetensors", "--posteriors", "wide.safetensors"];
    fails(dir, &replace, 2, &["wide.safetensors already exists"]);
    let three =
        ["init", "--config", "A", "--classes", "3", "--head", "16,16", "--crop", "32", "--out", "three"];
    ok(dir, &three);
    fails(dir, &evaluate("three"), 2, &["3 classes", "has 2"]);
    // The same number of classes, but other names.
    ok(dir, &["train", "a.toml", "--out", "trained"]);
    for split in ["train", "val"] {
        let folder = dir.join("set").join(split);
        std::fs::rename(folder.join("barred-cross"), folder.join("zebra")).unwrap();
    }
    fails(
        dir,
        &evaluate("trained/weights.safetensors"),
        2,
        &["the classes of the network are not those of set", "1 of its 2 classes: zebra"],
    );
    fails(dir, &three, 2, &["three already exists"]);
}

#[test]
fn weights_that_overflow_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    small_set(dir);
    init(dir, "0.05", "w");
    // Finite weights, whose products overflow.
    let mut bytes = std::fs::read(dir.join("w")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header..].chunks_exact_mut(4).for_each(|value| value.copy_from_slice(&3e38_f32.to_le_bytes()));
    std::fs::write(dir.join("huge"), bytes).unwrap();
    let weights = ["--weights", "huge", "--test-scales", "36"];
    let of = |arguments: &[&'static str]| [arguments, &weights].concat();
    fails(dir, &of(&["predict", "set/val/barred-cross/00000.jpg"]), 1, &["scores are not finite"]);
    fails(dir, &of(&["evaluate", "--dataset", "set", "--posteriors", "p"]), 1, &["scores are not finite"]);
    let features = ["features", "--dataset", "set", "--layer", "fc7", "--out", "f"];
    fails(dir, &of(&features), 1, &["activations of the layer are not finite"]);
    assert!(!dir.join("p").exists() && !dir.join("f").exists());
}
