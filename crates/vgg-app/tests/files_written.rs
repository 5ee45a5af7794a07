//! Output files: nothing that exists is replaced without `--force`, except an earlier result of the same command.

mod common;

use std::path::Path;

use common::{fails, init, ok, small_set};

const EVALUATE: &str = "evaluate --weights w --dataset set --test-scales 36";

/// Commands and the file that each one writes.
const COMMANDS: [(&str, &str); 9] = [
    ("init --config A --classes 2 --width 0.05 --crop 32 --head 8,8 --out x", "x"),
    ("convert w x.caffemodel", "x.prototxt"),
    ("evaluate --weights w --dataset set --test-scales 36 --posteriors x", "x"),
    ("evaluate --weights w --dataset set --test-scales 36 --dump-views views", "views/views.json"),
    ("fuse p --out x", "x"),
    ("analyse p --out analysis", "analysis/confusion.png"),
    ("features --weights w --dataset set --layer fc7 --test-scales 36 --out x", "x"),
    ("predict --weights w set/val/barred-cross/00000.jpg --test-scales 36 --score-map x.png", "x.png"),
    ("data show-batch --dataset set --train-scale 36 --crop 32 --out x.png", "x.png"),
];

fn words(command: &str) -> Vec<&str> {
    command.split(' ').collect()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    small_set(folder.path());
    init(folder.path(), "0.05", "w");
    ok(folder.path(), &words(&format!("{EVALUATE} --posteriors p")));
    folder
}

fn write(dir: &Path, file: &str) {
    let path = dir.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "mine").unwrap();
}

#[test]
fn files_are_replaced_only_with_force() {
    let folder = folder();
    let dir = folder.path();
    for (command, file) in COMMANDS {
        write(dir, file);
        let message = fails(dir, &words(command), 2, &[file, "already exists"]);
        assert!(message.contains("--force"), "{message}");
        assert_eq!(std::fs::read_to_string(dir.join(file)).unwrap(), "mine", "{command}");
        ok(dir, &words(&format!("{command} --force")));
        assert_ne!(std::fs::read(dir.join(file)).unwrap(), b"mine", "{command}");
        std::fs::remove_file(dir.join(file)).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn links_and_devices_are_kept() {
    let folder = folder();
    let dir = folder.path();
    std::os::unix::fs::symlink("nowhere", dir.join("x")).unwrap();
    for (command, file) in COMMANDS.iter().filter(|(_, file)| *file == "x") {
        fails(dir, &words(command), 2, &[file, "already exists"]);
        assert!(dir.join("x").is_symlink(), "{command}");
        let device = command.replace(" x", " /dev/null");
        fails(dir, &words(&format!("{device} --force")), 74, &["/dev/null", "not a regular file"]);
    }
}

#[test]
fn the_same_result_may_be_written_again() {
    let folder = folder();
    let dir = folder.path();
    for command in [COMMANDS[2].0, COMMANDS[4].0, COMMANDS[6].0] {
        ok(dir, &words(command));
        let first = std::fs::read(dir.join("x")).unwrap();
        ok(dir, &words(command));
        assert!(std::fs::read(dir.join("x")).unwrap() == first, "{command}");
        std::fs::remove_file(dir.join("x")).unwrap();
    }
    ok(dir, &words(COMMANDS[2].0));
    let other = COMMANDS[2].0.replace("36", "40");
    fails(dir, &words(&other), 2, &["x already exists"]);
}
