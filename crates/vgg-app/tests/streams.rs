//! Failing stdout and stderr: a command does its work and exits as usual, and reports a stdout that cannot be
//! written at the end.

#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use common::{experiment_file, init, ok, small_set, vgg};

/// Commands, each run in a folder with `w` (weights), `set`, `a.toml`, and posteriors `p` and `q`, and the
/// files that it writes.
const COMMANDS: [(&str, i32); 21] = [
    ("init --config A --classes 2 --width 0.05 --crop 32 --head 8,8 --out new.safetensors", 0),
    ("train a.toml --out run", 0),
    ("evaluate --weights w --dataset set --test-scales 32,36 --posteriors out.p", 0),
    ("evaluate --weights w --dataset set --test-scales 36 --json", 0),
    ("fuse p q", 0),
    ("compare p q", 0),
    ("analyse p --out analysis --dataset set", 0),
    ("features --weights w --dataset set --layer fc7 --test-scales 36 --out out.f", 0),
    ("predict --weights w set/val/barred-cross/00000.jpg --score-map map.png --test-scales 36", 0),
    ("predict --weights w absent.png", 66),
    ("convert w out.pth.safetensors --to torchvision", 0),
    ("convert w out.caffemodel --to caffe", 0),
    ("summary --config D", 0),
    ("summary --weights w --json", 0),
    ("data synthetic --out synthetic --images-per-class 2", 0),
    ("data prepare-folder --dataset set --out shards --smallest-side 40", 0),
    ("data inspect set", 0),
    ("data show-batch --dataset set --train-scale 36 --crop 32 --out sheet.png", 0),
    ("plan --gpus 1,8", 0),
    ("experiment table2", 0),
    ("--help", 0),
];

/// Files with times, or hashes of such files, which differ between runs.
const TIMED: [&str; 4] = ["timing.jsonl", "timing.json", "run.json", "manifest.json"];

enum Streams {
    Normal,
    FullStderr,
    ClosedPipes,
    FullStdout,
}

/// A folder with what the commands read.
fn inputs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    small_set(dir);
    experiment_file(dir);
    init(dir, "0.05", "w");
    for (out, scale) in [("p", "36"), ("q", "40")] {
        ok(
            dir,
            &["evaluate", "--weights", "w", "--dataset", "set", "--test-scales", scale, "--posteriors", out],
        );
    }
    folder
}

/// Runs a command in a copy of `inputs`. Returns the exit code and all files with their contents.
fn run(inputs: &Path, command: &str, streams: &Streams) -> (Option<i32>, BTreeMap<String, Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    copy(inputs, dir);
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let mut child = vgg(dir);
    child.args(command.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
    match streams {
        Streams::Normal => {}
        Streams::FullStderr => drop(child.stderr(full())),
        Streams::FullStdout => drop(child.stdout(full())),
        Streams::ClosedPipes => {
            child.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
    }
    let mut child = child.spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    let code = child.wait().unwrap().code();
    let mut files = BTreeMap::new();
    list(dir, dir, &mut files);
    (code, files)
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

fn list(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            list(root, &path, files);
        } else if TIMED.iter().any(|timed| name.ends_with(timed)) {
            files.insert(name, Vec::new());
        } else {
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

#[test]
fn failing_streams_change_neither_files_nor_exit_code() {
    let inputs = inputs();
    for (command, code) in COMMANDS {
        let expected = run(inputs.path(), command, &Streams::Normal);
        assert_eq!(expected.0, Some(code), "{command}");
        for streams in [Streams::FullStderr, Streams::ClosedPipes] {
            let (code, files) = run(inputs.path(), command, &streams);
            assert_eq!(code, expected.0, "{command}");
            assert_same_files(&files, &expected.1, command);
        }
        let (code, files) = run(inputs.path(), command, &Streams::FullStdout);
        assert!(code == expected.0 || code == Some(74), "{command}: {code:?}");
        assert_same_files(&files, &expected.1, command);
    }
}

fn assert_same_files(files: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>, command: &str) {
    assert!(files.keys().eq(expected.keys()), "{command}: {:?} {:?}", files.keys(), expected.keys());
    for (name, bytes) in files {
        assert!(*bytes == expected[name], "{command}: {name} differs");
    }
}

#[test]
fn full_stdout_is_reported_after_the_results_are_saved() {
    let inputs = inputs();
    for command in
        ["summary --config D", "fuse p q", "evaluate --weights w --dataset set --test-scales 36", "--help"]
    {
        assert_eq!(run(inputs.path(), command, &Streams::FullStdout).0, Some(74), "{command}");
    }
}
