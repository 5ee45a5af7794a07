//! What continuous integration runs.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

/// The steps in order, cheapest first.
const STEPS: [(&str, &[&str]); 5] = [
    ("fmt", &["fmt", "--all", "--check"]),
    ("clippy", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
    ("build", &["build", "--workspace", "--examples", "--quiet"]),
    ("test", &["test", "--workspace"]),
    ("doc", &["doc", "--workspace", "--no-deps", "--quiet"]),
];

pub(crate) fn run() -> Result<ExitCode> {
    crate::tidy::run()?;
    for (name, arguments) in STEPS {
        let start = Instant::now();
        eprintln!("== {name}");
        crate::cargo(arguments)?;
        eprintln!("== {name}: {:.0?}", start.elapsed());
    }
    Ok(ExitCode::SUCCESS)
}
