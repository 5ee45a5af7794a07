//! Hashes, manifests, atomic writes, locks, free space and error messages.

use std::fs;
use std::io::Write;
use std::path::Path;

use vgg_files::{
    DirectoryWriter, Error, FileWriter, Hash, Hasher, Lock, free_bytes, hash_bytes, hash_file, probe,
    read_bytes, read_json, remove_partial_files, verify, write_bytes, write_json, write_with,
};

/// Lengths and hashes of BLAKE3's published test vectors. The input repeats 0, 1, ... 250.
const VECTORS: [(usize, &str); 6] = [
    (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
    (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
    (1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"),
    (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
    (1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"),
    (102_400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"),
];

#[test]
fn hashes_match_blake3_test_vectors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input");
    for (length, hash) in VECTORS {
        let input: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        assert_eq!(hash_bytes(&input).as_str(), hash, "{length} bytes");
        fs::write(&path, &input).unwrap();
        assert_eq!(hash_file(&path).unwrap().as_str(), hash, "a file of {length} bytes");
        let mut hasher = Hasher::default();
        for piece in input.chunks(100) {
            hasher.update(piece);
        }
        assert_eq!(hasher.hash().as_str(), hash, "{length} bytes in pieces");
        // Bytes can be added after `hash`.
        hasher.update(b"more");
        assert_eq!(hasher.hash(), hash_bytes(&[&input, b"more".as_slice()].concat()));
    }
    let error = hash_file(&dir.path().join("none")).unwrap_err();
    assert!(error.is_missing() && error.to_string().contains("none"), "{error}");
}

#[test]
fn hash_is_64_lowercase_hexadecimal_digits() {
    let digits = VECTORS[1].1;
    let hash = Hash::try_from(digits.to_owned()).unwrap();
    assert_eq!(hash.to_string(), digits);
    assert_eq!(format!("{hash:?}"), digits);
    assert_eq!(hash.short(), "2d3adedff11b");
    assert_eq!(String::from(hash.clone()), digits);
    assert_eq!(serde_json::to_string(&hash).unwrap(), format!("\"{digits}\""));
    assert_eq!(serde_json::from_str::<Hash>(&format!("\"{digits}\"")).unwrap(), hash);
    for (what, text) in [
        ("too short", digits[1..].to_owned()),
        ("too long", format!("{digits}0")),
        ("uppercase digits", digits.to_uppercase()),
        ("another letter", digits.replace('2', "g")),
        ("another sign", digits.replace('2', "/")),
        ("empty", String::new()),
    ] {
        let error = Hash::try_from(text.clone()).expect_err(what);
        assert!(error.contains(&text), "{what}: {error}");
        assert!(serde_json::from_str::<Hash>(&format!("\"{text}\"")).is_err(), "{what}");
    }
}

/// A directory with two files.
fn write_directory(path: &Path) {
    let mut writer = DirectoryWriter::new(path).unwrap();
    writer.add("one", |out| out.write_all(&[0])).unwrap();
    writer.add("none", |_| Ok(())).unwrap();
    writer.commit().unwrap();
}

#[test]
fn manifest_has_length_and_hash_of_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory");
    write_directory(&path);
    let found: serde_json::Value = read_json(&path.join("manifest.json")).unwrap();
    let expected = serde_json::json!({ "files": {
        "none": { "bytes": 0, "blake3": VECTORS[0].1 },
        "one": { "bytes": 1, "blake3": VECTORS[1].1 },
    }});
    assert_eq!(found, expected);
    let manifest = verify(&path).unwrap();
    assert_eq!(serde_json::to_value(&manifest).unwrap(), expected);
    assert_eq!(fs::read(path.join("one")).unwrap(), [0]);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 3);
}

#[test]
fn verify_names_changed_missing_and_unreadable_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory");
    let refused = |what: &str, damage: &dyn Fn()| {
        let _ = fs::remove_dir_all(&path);
        write_directory(&path);
        verify(&path).unwrap();
        damage();
        verify(&path).expect_err(what)
    };
    let write = |name: &str, bytes: &[u8]| fs::write(path.join(name), bytes).unwrap();
    let corrupt = |what: &str, damage: &dyn Fn(), file: &str, words: &str| {
        let error = refused(what, damage);
        let named = matches!(&error, Error::Corrupt { path, reason } if path.ends_with(file) && reason.contains(words));
        assert!(named, "{what}: {error}");
    };
    corrupt("changed", &|| write("one", &[1]), "one", "its hash differs from the manifest");
    corrupt("truncated", &|| write("one", &[]), "one", "0 bytes, but the manifest states 1");
    corrupt("longer", &|| write("none", &[0; 3]), "none", "3 bytes, but the manifest states 0");
    corrupt("no JSON", &|| write("manifest.json", b"{"), "manifest.json", "EOF");
    corrupt("no manifest", &|| write("manifest.json", b"{}"), "manifest.json", "missing field `files`");
    let error = refused("missing", &|| fs::remove_file(path.join("none")).unwrap());
    assert!(matches!(&error, Error::Missing { path } if path.ends_with("none")), "{error}");
    let error = refused("without manifest", &|| fs::remove_file(path.join("manifest.json")).unwrap());
    assert!(matches!(&error, Error::Missing { path } if path.ends_with("manifest.json")), "{error}");
    let error = refused("removed", &|| fs::remove_dir_all(&path).unwrap());
    assert!(error.is_missing(), "{error}");
}

/// `verify` ignores other files in the directory.
#[test]
fn files_that_the_manifest_does_not_list_are_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory");
    write_directory(&path);
    let manifest = verify(&path).unwrap();
    fs::write(path.join("extra"), "x").unwrap();
    assert_eq!(verify(&path).unwrap(), manifest);
}

#[test]
fn directory_needs_a_parent_and_replaces_an_existing_one() {
    let dir = tempfile::tempdir().unwrap();
    let error = DirectoryWriter::new(&dir.path().join("none/directory")).err().unwrap();
    assert!(matches!(error, Error::Io { action: "create", .. }), "{error}");
    assert!(!dir.path().join("none").exists());
    let path = dir.path().join("directory");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("old"), "x").unwrap();
    write_directory(&path);
    verify(&path).unwrap();
    assert!(!path.join("old").exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // If a file cannot be written, the error has its path, and the partial directory is removed.
    let mut writer = DirectoryWriter::new(&dir.path().join("other")).unwrap();
    let error = writer.add("a/b", |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("other/a/b"), "{error}");
    let error = writer.add("c", |_| Err(std::io::Error::other("no more"))).unwrap_err().to_string();
    assert!(error.contains("other/c") && error.contains("no more"), "{error}");
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn file_appears_when_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/file");
    let error = FileWriter::create_in_folder(&path).err().unwrap();
    assert!(matches!(error, Error::Io { action: "write", .. }), "{error}");
    assert!(!dir.path().join("new").exists());
    let mut file = FileWriter::create(&path).unwrap();
    assert_eq!(file.write(b"some ").unwrap(), 5);
    file.write_all(b"bytes").unwrap();
    file.flush().unwrap();
    assert!(!path.exists());
    let begun: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(begun.len(), 1);
    assert_eq!(fs::read(&begun[0]).unwrap(), b"some bytes");
    // A second writer of the same file does not interfere.
    let mut second = FileWriter::create(&path).unwrap();
    second.write_all(b"second").unwrap();
    file.commit().unwrap();
    assert_eq!(read_bytes(&path).unwrap(), b"some bytes");
    second.commit().unwrap();
    assert_eq!(read_bytes(&path).unwrap(), b"second");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    let begun = FileWriter::create(&path).unwrap();
    drop(begun);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn remove_partial_files_removes_only_partial_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let unfinished = [".a.1-2-3.partial", ".b.c.json.1-2-3.partial", ".whole.1-2-3.old"];
    let others =
        ["whole", ".lock", ".hidden", ".partial", ".old", ".x.partial", "a.1-2-3.partial", ".a.1-2-3.other"];
    for name in unfinished.iter().chain(&others) {
        fs::write(at(name), name).unwrap();
    }
    for name in [".d.1-2-3.partial", ".e.1-2-3.old", ".f.1-2-3.old", "f"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("inside"), name).unwrap();
    }
    remove_partial_files(dir.path()).unwrap();
    let mut left: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    // `e` was moved away to be replaced, and gets its name back.
    let mut expected = [&others[..], &["e", "f"]].concat();
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(fs::read_to_string(at("e/inside")).unwrap(), ".e.1-2-3.old");
    assert_eq!(fs::read_to_string(at("f/inside")).unwrap(), "f");
    assert_eq!(fs::read_to_string(at("whole")).unwrap(), "whole");
    // A missing directory is no error; a file instead of a directory is one.
    remove_partial_files(&at("none")).unwrap();
    let error = remove_partial_files(&at("whole")).unwrap_err();
    assert!(matches!(&error, Error::Io { action: "read", path, .. } if path.ends_with("whole")), "{error}");
}

#[test]
fn json_is_indented_and_ends_with_a_newline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.json");
    write_json(&path, &serde_json::json!({ "a": [1, 2.5], "b": null })).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "{\n  \"a\": [\n    1,\n    2.5\n  ],\n  \"b\": null\n}\n");
    // A map whose keys are not strings cannot be serialised to JSON.
    let value = std::collections::BTreeMap::from([(vec![1], 2)]);
    let error = write_json(&path, &value).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, .. } if path.ends_with("a.json")), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn lock_is_exclusive_until_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/run");
    let first = Lock::acquire(&path).unwrap();
    for _ in 0..2 {
        match Lock::acquire(&path) {
            Err(Error::Locked { path: locked }) => assert_eq!(locked, path),
            other => panic!("{other:?}"),
        }
    }
    // Another directory has another lock.
    drop(Lock::acquire(dir.path()).unwrap());
    drop(first);
    let names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [".lock"]);
    // The contents of the lock file do not matter, and are kept.
    fs::write(path.join(".lock"), "something").unwrap();
    drop(Lock::acquire(&path).unwrap());
    assert_eq!(fs::read_to_string(path.join(".lock")).unwrap(), "something");
    fs::write(dir.path().join("file"), "").unwrap();
    let error = Lock::acquire(&dir.path().join("file")).unwrap_err();
    assert!(matches!(error, Error::Io { action: "create", .. }), "{error}");
}

/// Environment variable that is set in a child process of a test.
const CHILD: &str = "VGG_TEST_CHILD";

/// Runs a test of this file in a child process with working directory `dir`. Returns its exit code; `None` if
/// it was aborted.
fn child(test: &str, dir: &Path) -> Option<i32> {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env(CHILD, "1").current_dir(dir);
    command.output().unwrap().status.code()
}

#[test]
fn lock_holds_against_another_process_and_ends_with_it() {
    if std::env::var_os(CHILD).is_some() {
        match Lock::acquire(Path::new("locked")) {
            // Ends the process without releasing the lock.
            Ok(_lock) => std::process::abort(),
            Err(Error::Locked { .. }) => std::process::exit(17),
            Err(error) => panic!("{error}"),
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let child = || child("lock_holds_against_another_process_and_ends_with_it", dir.path());
    let lock = Lock::acquire(&dir.path().join("locked")).unwrap();
    assert_eq!(child(), Some(17), "the lock is held");
    drop(lock);
    assert_eq!(child(), None, "the child held the lock and was aborted");
    Lock::acquire(&dir.path().join("locked")).unwrap();
}

#[test]
fn names_without_a_directory_are_in_the_working_directory() {
    if std::env::var_os(CHILD).is_some() {
        write_bytes(Path::new("file"), b"x").unwrap();
        write_bytes(Path::new("new/file"), b"y").unwrap();
        write_directory(Path::new("directory"));
        drop(Lock::acquire(Path::new("run")).unwrap());
        probe(Path::new(""), 0).unwrap();
        probe(Path::new("probed"), 0).unwrap();
        std::process::exit(17);
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert_eq!(child("names_without_a_directory_are_in_the_working_directory", dir.path()), Some(17));
    assert_eq!(fs::read(at("file")).unwrap(), b"x");
    assert_eq!(fs::read(at("new/file")).unwrap(), b"y");
    verify(&at("directory")).unwrap();
    assert!(at("run/.lock").exists() && at("probed").exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
}

#[test]
fn several_threads_may_create_the_same_directories() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let ready = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = dir.path().join(format!("{round}/a/b/{thread}"));
                let ready = &ready;
                scope.spawn(move || {
                    ready.wait();
                    write_bytes(&path, b"x").unwrap();
                });
            }
        });
        assert_eq!(fs::read_dir(dir.path().join(format!("{round}/a/b"))).unwrap().count(), 4);
    }
}

#[test]
fn free_space_matches_df() {
    let dir = tempfile::tempdir().unwrap();
    let free = free_bytes(dir.path()).unwrap();
    let deeper = free_bytes(&dir.path().join("not/there/yet")).unwrap();
    // Other processes may write in the meantime, but hardly a gigabyte.
    assert!(free > 0 && free.abs_diff(deeper) < 1 << 30, "{free} and {deeper}");
    free_bytes(Path::new("not-there-yet")).unwrap();
    free_bytes(Path::new("")).unwrap();
    if cfg!(target_os = "linux") {
        // /proc is a file system without free space.
        assert_eq!(free_bytes(Path::new("/proc")).unwrap(), 0);
        assert_eq!(free_bytes(Path::new("/proc/not/there")).unwrap(), 0);
        let mut df = std::process::Command::new("df");
        let output = df.args(["-B1", "--output=avail"]).arg(dir.path()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let available: u64 = text.lines().nth(1).unwrap().trim().parse().unwrap();
        assert!(free.abs_diff(available) < 1 << 30, "{free}, and {available} according to df");
    }
}

#[test]
fn probe_fails_if_space_is_too_small_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/run");
    probe(&path, 0).unwrap();
    let free = free_bytes(&path).unwrap();
    probe(&path, free / 2).unwrap();
    let asked = 2 * free;
    match probe(&path, asked) {
        Err(Error::NoSpace { path: probed, needed, free: found }) => {
            assert_eq!((probed, needed), (path.clone(), asked));
            assert!(found.abs_diff(free) < 1 << 30, "{found} and {free}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    fs::write(dir.path().join("file"), "").unwrap();
    let error = probe(&dir.path().join("file"), 0).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("file"), "{error}");
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    let shown = path.display();
    let missing = read_bytes(&path).unwrap_err();
    assert!(missing.is_missing());
    assert_eq!(missing.to_string(), format!("{shown} does not exist"));
    let error = read_bytes(dir.path()).unwrap_err();
    assert!(!error.is_missing());
    assert!(error.to_string().starts_with(&format!("cannot read {}: ", dir.path().display())), "{error}");
    // `NotFound` during a write is not reported as a missing file.
    let error = write_with(&path, |_| Err(std::io::ErrorKind::NotFound.into())).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot write {shown}: ")), "{error}");
    assert!(!error.is_missing());
    write_bytes(&path, b"[").unwrap();
    let error = read_json::<Vec<u8>>(&path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{shown} is damaged or not of the expected format: EOF")), "{error}");
    let error = Error::NoSpace { path: path.clone(), needed: 5 << 19, free: 1 << 20 };
    assert_eq!(error.to_string(), format!("{shown} has 1.0 MiB free, but 2.5 MiB are needed"));
    let error = Error::Locked { path: path.clone() };
    assert_eq!(error.to_string(), format!("{shown} is in use by another process"));
}
