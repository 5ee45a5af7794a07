//! What continuous integration runs.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

/// The steps in order, cheapest first.
const STEPS: [(&str, &[&str]); 6] = [
    ("fmt", &["fmt", "--all", "--check"]),
    ("clippy", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
    ("build", &["build", "--workspace", "--examples", "--quiet"]),
    ("test", &["test", "--workspace"]),
    ("doc", &["doc", "--workspace", "--exclude", "vgg-app", "--no-deps", "--quiet"]),
    // From what is fetched already. The build of each package on its own is `LIBRARIES`' affair.
    (
        "package",
        &[
            "package",
            "--workspace",
            "--exclude",
            "vgg-app",
            "--exclude",
            "vgg-tests",
            "--exclude",
            "xtask",
            "--no-verify",
            "--allow-dirty",
            "--offline",
            "--quiet",
        ],
    ),
];

/// Crates that others may use: each must build alone, without the features that the workspace turns on for another.
const LIBRARIES: [&str; 10] = [
    "vgg-files",
    "vgg-testkit",
    "vgg-tensor",
    "vgg-data",
    "vgg-layers",
    "vgg-optim",
    "vgg-weights",
    "vgg-eval",
    "vgg-train",
    "vgg-experiment",
];

pub(crate) fn run() -> Result<ExitCode> {
    crate::tidy::run()?;
    for (name, arguments) in STEPS {
        let start = Instant::now();
        eprintln!("== {name}");
        crate::cargo(arguments)?;
        eprintln!("== {name}: {:.0?}", start.elapsed());
    }
    let start = Instant::now();
    eprintln!("== each library alone");
    for library in LIBRARIES {
        crate::cargo(&["check", "--quiet", "--package", library])?;
    }
    eprintln!("== each library alone: {:.0?}", start.elapsed());
    Ok(ExitCode::SUCCESS)
}
