//! A copy of the working tree in which cargo-mutants may change files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A locked copy of the working tree.
pub(super) struct Tree {
    pub(super) path: PathBuf,
    _lock: File,
}

/// Updates the copy below the target folder. Unchanged files keep their timestamps, so that cargo does not
/// rebuild them.
pub(super) fn copy() -> Result<Tree> {
    let target = crate::metadata()?["target_directory"].as_str().map(PathBuf::from);
    let folder = target.context("cargo metadata names no target directory")?.join("mutants");
    let tree = folder.join("tree");
    std::fs::create_dir_all(&tree)?;
    let lock = File::create(folder.join("lock"))?;
    ensure!(lock.try_lock().is_ok(), "another `cargo xtask mutants` is running");
    let mut files = listed(&["--cached", "--others", "--exclude-standard"])?;
    files.retain(|file| crate::root().join(file).is_file());
    for file in &files {
        let (from, to) = (crate::root().join(file), tree.join(file));
        let bytes = std::fs::read(&from).with_context(|| from.display().to_string())?;
        if std::fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&to, bytes).with_context(|| to.display().to_string())?;
    }
    remove_others(&tree, &tree, &files)?;
    Ok(Tree { path: tree, _lock: lock })
}

/// Files that git lists, relative to the root.
fn listed(options: &[&str]) -> Result<Vec<PathBuf>> {
    let output =
        Command::new("git").args(["ls-files", "-z"]).args(options).current_dir(crate::root()).output()?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout)?;
    Ok(names.split_terminator('\0').map(PathBuf::from).collect())
}

/// Removes files of the copy that are not in the list.
fn remove_others(folder: &Path, tree: &Path, files: &[PathBuf]) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, tree, files)?;
        } else if !files.iter().any(|file| path.strip_prefix(tree) == Ok(file.as_path())) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}
