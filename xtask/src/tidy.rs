//! `cargo xtask tidy`: checks dependencies between crates and modules, code map, file lengths, and language.

mod imports;
mod language;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

/// The exact dependencies between crates of the workspace, without dev-dependencies.
const ARROWS: [(&str, &[&str]); 17] = [
    ("vgg-error", &[]),
    ("vgg-tensor", &["vgg-error"]),
    ("vgg-files", &["vgg-error"]),
    ("vgg-testkit", &[]),
    ("vgg-data", &["vgg-error", "vgg-files"]),
    ("vgg-distributed", &["vgg-error", "vgg-tensor"]),
    ("vgg-layers", &["vgg-error", "vgg-tensor"]),
    ("vgg-optim", &["vgg-error", "vgg-tensor"]),
    ("vgg-weights", &["vgg-error", "vgg-files", "vgg-layers", "vgg-tensor"]),
    (
        "vgg-train",
        &["vgg-data", "vgg-error", "vgg-files", "vgg-layers", "vgg-optim", "vgg-tensor", "vgg-weights"],
    ),
    ("vgg-eval", &["vgg-data", "vgg-error", "vgg-files", "vgg-layers", "vgg-tensor"]),
    (
        "vgg-experiment",
        &[
            "vgg-data",
            "vgg-error",
            "vgg-eval",
            "vgg-files",
            "vgg-layers",
            "vgg-tensor",
            "vgg-train",
            "vgg-weights",
        ],
    ),
    (
        "vgg",
        &[
            "vgg-data",
            "vgg-error",
            "vgg-eval",
            "vgg-experiment",
            "vgg-files",
            "vgg-layers",
            "vgg-optim",
            "vgg-tensor",
            "vgg-train",
            "vgg-weights",
        ],
    ),
    (
        "vgg-bench",
        &["vgg-data", "vgg-error", "vgg-eval", "vgg-layers", "vgg-optim", "vgg-tensor", "vgg-train"],
    ),
    (
        "vgg-app",
        &[
            "vgg",
            "vgg-bench",
            "vgg-data",
            "vgg-distributed",
            "vgg-error",
            "vgg-eval",
            "vgg-experiment",
            "vgg-files",
            "vgg-layers",
            "vgg-optim",
            "vgg-tensor",
            "vgg-train",
            "vgg-weights",
        ],
    ),
    ("vgg-tests", &["vgg-layers", "vgg-tensor", "vgg-testkit"]),
    ("xtask", &[]),
];

/// Packages that only tests depend on.
const TESTS: [&str; 2] = ["vgg-testkit", "vgg-tests"];

/// Maximum number of lines of vgg-app, which only parses arguments, calls libraries and prints.
const MAX_APP_LINES: usize = 4500;

/// Maximum number of lines of a source file.
const MAX_LINES: usize = 400;

pub(crate) fn run() -> Result<ExitCode> {
    let mut faults = arrows()?;
    faults.extend(code_map()?);
    faults.extend(missing_lints()?);
    faults.extend(imports::mutual()?);
    faults.extend(imports::upward()?);
    faults.extend(language::faults()?);
    long_files(&crate::root().join("crates"), &mut faults)?;
    let lines = lines_below(&crate::root().join("crates/vgg-app/src"))?;
    if lines > MAX_APP_LINES {
        faults.push(format!("crates/vgg-app/src has {lines} lines, more than {MAX_APP_LINES}"));
    }
    long_files(&crate::root().join("xtask"), &mut faults)?;
    long_files(&crate::root().join("tests"), &mut faults)?;
    if faults.is_empty() {
        say!("== tidy: passed");
        return Ok(ExitCode::SUCCESS);
    }
    bail!("tidy failed:\n  {}", faults.join("\n  "))
}

fn arrows() -> Result<Vec<String>> {
    let metadata = crate::metadata()?;
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(crate_, _)| *crate_ == name) else {
            faults.push(format!("{name} is missing from the dependencies in xtask/src/tidy.rs"));
            continue;
        };
        let used: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|d| d["kind"].is_null())
            .filter_map(|d| d["name"].as_str())
            .filter(|d| *d == "vgg" || d.starts_with("vgg-"))
            .collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        for arrow in used.difference(&allowed) {
            faults.push(format!("{name} must not depend on {arrow}"));
        }
        for arrow in allowed.difference(&used) {
            faults.push(format!("{name} no longer depends on {arrow}; remove it from xtask/src/tidy.rs"));
        }
    }
    Ok(faults)
}

/// Checks that the code map in docs/architecture.md lists exactly the crates in `crates/`.
fn code_map() -> Result<Vec<String>> {
    let page = crate::root().join("docs/architecture.md");
    let text = std::fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let listed: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `vgg"))
        .filter_map(|rest| rest.split('`').next())
        .map(|name| format!("vgg{name}"))
        .collect();
    let mut there = BTreeSet::new();
    for entry in std::fs::read_dir(crate::root().join("crates"))? {
        there.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(listed
        .symmetric_difference(&there)
        .map(|c| format!("{c} is only in one of docs/architecture.md and crates/"))
        .collect())
}

/// Lints of each library and the binary. Invalid input must not reach an `unwrap`, and a failed write to stderr or
/// stdout must not end a command. A lint table in Cargo.toml would also apply to tests.
const LINTS: [&str; 2] =
    ["#![warn(clippy::unwrap_used)]", "#![deny(clippy::print_stderr, clippy::print_stdout)]"];

fn missing_lints() -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (name, _) in ARROWS.iter().filter(|(name, _)| name.starts_with("vgg") && !TESTS.contains(name)) {
        let folder = crate::root().join("crates").join(name).join("src");
        let roots = [folder.join("lib.rs"), folder.join("main.rs")];
        for root in roots.iter().filter(|root| root.exists()) {
            let text = std::fs::read_to_string(root)?;
            for lint in LINTS.iter().filter(|lint| !text.contains(**lint)) {
                faults.push(format!("{} lacks {lint}", root.display()));
            }
        }
    }
    Ok(faults)
}

fn long_files(folder: &Path, faults: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            long_files(&path, faults)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let lines = std::fs::read_to_string(&path)?.lines().count();
            if lines > MAX_LINES {
                faults.push(format!("{} has {lines} lines, more than {MAX_LINES}", path.display()));
            }
        }
    }
    Ok(())
}

/// Number of lines of all Rust files in a folder and its subfolders.
fn lines_below(folder: &Path) -> Result<usize> {
    let mut lines = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            lines += lines_below(&path)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            lines += std::fs::read_to_string(&path)?.lines().count();
        }
    }
    Ok(lines)
}
