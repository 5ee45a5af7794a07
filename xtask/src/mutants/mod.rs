//! `cargo xtask mutants`: runs cargo-mutants and reports the share of mutants that the tests catch.
//!
//! Each mutant is first tested by the crate's own tests. The survivors are tested by the workspace tests that
//! cover the crate.

mod crates;
mod tree;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crates::{CRATES, Crate};

/// Minimum share of viable mutants that must be caught.
const LEAST: f64 = 0.9;

const USAGE: &str =
    "mutants takes --crate NAME, --sample N (of each crate; default: all mutants), --seed S (default 1)";

/// The parsed command line.
struct Options {
    crates: Vec<&'static Crate>,
    sample: Option<usize>,
    seed: u64,
}

/// Outcomes of a crate's mutants.
#[derive(Default)]
struct Score {
    all: usize,
    sampled: usize,
    unviable: usize,
    caught: usize,
    /// Number of `caught` whose tests timed out.
    timed_out: usize,
    /// Number of `caught` that only the workspace tests caught.
    caught_by_workspace: usize,
    missed: Vec<String>,
}

/// Outcomes of one test run. A test that times out also catches its mutant.
struct Outcomes {
    caught: usize,
    timed_out: usize,
    unviable: usize,
    missed: Vec<String>,
}

/// A mutant that no test catches, and the reason why this is accepted.
#[derive(Deserialize)]
struct Accepted {
    file: String,
    /// The source line without surrounding whitespace, as a file may have several such mutants.
    line: String,
    mutant: String,
    reason: String,
}

#[derive(Deserialize)]
struct AcceptedFile {
    accepted: Vec<Accepted>,
}

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let options = Options::parse(arguments)?;
    let version = Command::new("cargo").args(["mutants", "--version"]).output();
    let found = version.is_ok_and(|output| output.status.success());
    ensure!(found, "cargo-mutants is not installed; run `cargo install cargo-mutants --locked`");
    let text = std::fs::read_to_string(crate::root().join("xtask/mutants/accepted.toml"))?;
    let accepted: AcceptedFile = toml::from_str(&text).context("xtask/mutants/accepted.toml")?;
    if let Some(bare) = accepted.accepted.iter().find(|accepted| accepted.reason.trim().is_empty()) {
        bail!("xtask/mutants/accepted.toml gives no reason for {:?}", bare.mutant);
    }
    let tree = tree::copy()?;
    let mut failed = false;
    print_line!("| crate | mutants | tested | viable | caught | by time-out | by workspace tests | score |");
    print_line!("|---|---|---|---|---|---|---|---|");
    let mut details = String::new();
    for tested in &options.crates {
        let score = test_crate(tested, &options, &tree.path)?;
        print_line!("{}", score.line(tested.name));
        failed |= score.share() < LEAST;
        for name in &score.missed {
            let known = accepted.accepted.iter().any(|accepted| accepted.is(name, &tree.path));
            failed |= !known;
            let _ = writeln!(details, "{} {name}", if known { "accepted:" } else { "missed:" });
        }
    }
    say!("{}", details.trim_end());
    Ok(ExitCode::from(u8::from(failed)))
}

impl Outcomes {
    fn tested(&self) -> usize {
        self.caught + self.unviable + self.missed.len()
    }
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Options> {
        let mut options = Options { crates: CRATES.iter().collect(), sample: None, seed: 1 };
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let value = rest.next().with_context(|| format!("{name} needs a value; {USAGE}"))?;
            match name.as_str() {
                "--crate" => {
                    options.crates.retain(|known| known.name == value);
                    let known = || CRATES.map(|known| known.name).join(", ");
                    ensure!(!options.crates.is_empty(), "unknown crate {value}; choose one of {}", known());
                }
                "--sample" => options.sample = Some(value.parse().context("--sample")?),
                "--seed" => options.seed = value.parse().context("--seed")?,
                _ => bail!("unknown option {name}; {USAGE}"),
            }
        }
        Ok(options)
    }
}

impl Accepted {
    /// Whether `name`, in the form `FILE:LINE:COLUMN: MUTANT`, is this mutant in the sources in `tree`.
    fn is(&self, name: &str, tree: &Path) -> bool {
        let parts: Vec<&str> = name.splitn(4, ':').collect();
        let [file, line, _, mutant] = parts.as_slice() else { return false };
        let line = line.parse::<usize>().ok().and_then(|line| line.checked_sub(1));
        let text = std::fs::read_to_string(tree.join(file)).unwrap_or_default();
        let source = line.and_then(|line| text.lines().nth(line)).unwrap_or_default();
        *file == self.file && mutant.trim() == self.mutant && source.trim() == self.line
    }
}

impl Score {
    fn viable(&self) -> usize {
        self.sampled - self.unviable
    }

    fn share(&self) -> f64 {
        if self.viable() == 0 { 1.0 } else { self.caught as f64 / self.viable() as f64 }
    }

    fn line(&self, name: &str) -> String {
        let Score { all, sampled, caught, timed_out, caught_by_workspace, .. } = self;
        let (viable, percent) = (self.viable(), 100.0 * self.share());
        format!(
            "| {name} | {all} | {sampled} | {viable} | {caught} | {timed_out} | {caught_by_workspace} | {percent:.1} % |"
        )
    }
}

fn test_crate(tested: &Crate, options: &Options, tree: &Path) -> Result<Score> {
    let all = list(tested.package, tested.files, tree)?;
    let chosen = match options.sample {
        Some(size) => sample(&all, size, options.seed),
        None => all.clone(),
    };
    let own = test(tested, &chosen, tree, &[tested.package], tested.own_tests)?;
    let mut score = Score {
        all: all.len(),
        sampled: own.tested(),
        unviable: own.unviable,
        caught: own.caught,
        timed_out: own.timed_out,
        missed: own.missed,
        ..Score::default()
    };
    if !score.missed.is_empty() && !tested.workspace_tests.is_empty() {
        let wide = test(tested, &score.missed, tree, &["vgg-tests", "vgg-app"], tested.workspace_tests)?;
        score.caught += wide.caught;
        score.timed_out += wide.timed_out;
        score.caught_by_workspace = wide.caught;
        score.missed = wide.missed;
    }
    Ok(score)
}

/// Names of all mutants of a package, or of the given files.
fn list(package: &str, files: &[&str], tree: &Path) -> Result<Vec<String>> {
    let mut list = Command::new("cargo");
    list.args(["mutants", "--list", "--json", "--package", package]).current_dir(tree);
    for glob in files {
        list.args(["--file", glob]);
    }
    let output = list.output().context("cannot run cargo mutants")?;
    ensure!(output.status.success(), "cargo mutants --list: {}", String::from_utf8_lossy(&output.stderr));
    let mutants: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)?;
    let name = |mutant: &serde_json::Value| mutant["name"].as_str().map(str::to_owned);
    mutants.iter().map(name).collect::<Option<Vec<_>>>().context("a mutant without a name")
}

/// Samples `size` names deterministically by seed, keeping their order.
fn sample(names: &[String], size: usize, seed: u64) -> Vec<String> {
    let mut keyed: Vec<(u64, usize)> = (0..names.len()).map(|i| (scrambled(seed, i as u64), i)).collect();
    keyed.sort_unstable();
    let chosen: BTreeSet<usize> = keyed.into_iter().take(size).map(|(_, i)| i).collect();
    chosen.into_iter().map(|i| names[i].clone()).collect()
}

/// SplitMix64 (Steele et al. 2014).
fn scrambled(seed: u64, i: u64) -> u64 {
    let mut z =
        seed.wrapping_mul(0x632B_E59B_D9B4_E019).wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Runs the tests on unchanged sources, which must pass: otherwise every mutant would count as caught.
/// Returns the timeout of a mutant's tests in seconds: five times this run's duration, at least 20.
fn baseline(tree: &Path, packages: &[&str], tests: &[&str]) -> Result<u64> {
    let cargo = |last: &[&str]| -> Result<()> {
        let mut command = Command::new("cargo");
        command.arg("test").arg("--quiet").args(tests).args(last).current_dir(tree);
        for package in packages {
            command.args(["--package", package]);
        }
        command.env("CARGO_TARGET_DIR", tree.with_file_name("target")).env_remove("VGG_REQUIRE");
        let status = command.stdout(std::io::stderr()).status().context("cannot run cargo test")?;
        ensure!(status.success(), "the tests of {} fail without a mutant", packages.join(" and "));
        Ok(())
    };
    cargo(&["--no-run"])?;
    let start = Instant::now();
    cargo(&[])?;
    Ok((5 * start.elapsed().as_secs()).max(20))
}

/// Tests these mutants with the given tests of the packages.
fn test(
    tested: &Crate,
    names: &[String],
    tree: &Path,
    packages: &[&str],
    tests: &[&str],
) -> Result<Outcomes> {
    let timeout_s = baseline(tree, packages, tests)?;
    let out: PathBuf = tree.with_file_name("outcomes").join(tested.name);
    let _ = std::fs::remove_dir_all(&out);
    std::fs::create_dir_all(&out)?;
    let mut mutants = Command::new("cargo");
    mutants.args([
        "mutants",
        "--in-place",
        "--baseline",
        "skip",
        "--timeout",
        &timeout_s.to_string(),
        "--package",
        tested.package,
    ]);
    mutants.arg("--output").arg(&out).args(["--test-package", &packages.join(",")]);
    for name in names {
        mutants.args(["--re", &exactly(name)]);
    }
    // For the build as well, so that no other test is built.
    for argument in tests {
        mutants.arg(format!("--cargo-arg={argument}"));
    }
    mutants.current_dir(tree);
    mutants.env("CARGO_TARGET_DIR", tree.with_file_name("target")).env_remove("VGG_REQUIRE");
    // Exit codes 2 and 3 mean that mutants were missed or timed out.
    let status = mutants.stdout(std::io::stderr()).status().context("cannot run cargo mutants")?;
    ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo mutants ended with {status}");
    let lines = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(out.join("mutants.out").join(file)).unwrap_or_default();
        // cargo-mutants tests deletions of struct fields even if they do not match.
        text.lines().map(str::to_owned).filter(|name| names.contains(name)).collect()
    };
    let outcomes = Outcomes {
        caught: lines("caught.txt").len() + lines("timeout.txt").len(),
        timed_out: lines("timeout.txt").len(),
        unviable: lines("unviable.txt").len(),
        missed: lines("missed.txt"),
    };
    // Two mutants sometimes have the same name.
    let (count, name) = (outcomes.tested(), tested.name);
    ensure!(count >= names.len(), "{count} of {} mutants of {name} have an outcome", names.len());
    Ok(outcomes)
}

/// A regular expression that matches only this name.
fn exactly(name: &str) -> String {
    let mut pattern = String::from("^");
    for c in name.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('$');
    pattern
}
