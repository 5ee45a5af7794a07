//! `cargo xtask fuzz`: runs the fuzz targets of the readers with cargo-fuzz.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

/// A fuzz target: its crate, its name, the value of `VGG_FUZZ_FORMAT`, and the folder of its seeds, if there is one.
struct Target {
    package: &'static str,
    name: &'static str,
    format: &'static str,
    seeds: Option<&'static str>,
}

const WEIGHTS: Option<&str> = Some("tests/fixtures/weights");

const TARGETS: [Target; 11] = [
    Target { package: "vgg-weights", name: "weights", format: "safetensors", seeds: WEIGHTS },
    Target { package: "vgg-weights", name: "weights", format: "zip", seeds: WEIGHTS },
    Target { package: "vgg-weights", name: "weights", format: "pickle", seeds: None },
    Target { package: "vgg-weights", name: "weights", format: "npy", seeds: None },
    Target { package: "vgg-weights", name: "weights", format: "legacy", seeds: WEIGHTS },
    Target { package: "vgg-weights", name: "weights", format: "caffe", seeds: WEIGHTS },
    Target { package: "vgg-weights", name: "weights", format: "onnx", seeds: WEIGHTS },
    Target { package: "vgg-weights", name: "posteriors", format: "", seeds: None },
    Target { package: "vgg-data", name: "images", format: "", seeds: Some("tests/fixtures/image_formats") },
    Target { package: "vgg-data", name: "index", format: "", seeds: None },
    Target { package: "vgg-data", name: "archives", format: "", seeds: None },
];

/// Largest memory of a target in MiB, and longest time for one input in seconds. More is a finding.
const MEMORY_MIB: u32 = 1024;
const SECONDS_PER_INPUT: u32 = 10;

/// Runs every target whose name or format contains the given text for so many minutes, without a sanitizer, so that
/// the stable toolchain suffices.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let (minutes, text) = match arguments {
        [flag, minutes] if flag == "--minutes" => (minutes, ""),
        [flag, minutes, text] if flag == "--minutes" => (minutes, text.as_str()),
        _ => bail!("fuzz takes --minutes N, and optionally a part of the name of a target, such as onnx"),
    };
    let minutes: f64 = minutes.parse().context("--minutes takes a number")?;
    let there = Command::new("cargo").args(["fuzz", "--version"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        bail!("cargo-fuzz is missing: run cargo install cargo-fuzz (it needs a C++ compiler)");
    }
    let root = crate::root();
    let mut findings = Vec::new();
    for target in TARGETS.iter().filter(|target| target.name.contains(text) || target.format.contains(text)) {
        let title = [target.name, target.format].join(" ");
        say!("== {title}");
        if !one(&root, target, (minutes * 60.0) as u64)? {
            findings.push(title);
        }
    }
    if findings.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say!("findings in: {}; the inputs are in crates/*/fuzz/artifacts", findings.join(", "));
    Ok(ExitCode::from(1))
}

/// Runs one target; whether it found nothing.
fn one(root: &Path, target: &Target, seconds: u64) -> Result<bool> {
    let package = root.join("crates").join(target.package);
    let corpus = Path::new("corpus").join([target.name, target.format].join("-").trim_end_matches('-'));
    std::fs::create_dir_all(package.join("fuzz").join(&corpus))?;
    let mut command = Command::new("cargo");
    command.current_dir(&package).env("VGG_FUZZ_FORMAT", target.format);
    command.args(["fuzz", "run", "--sanitizer", "none", target.name]).arg(Path::new("fuzz").join(&corpus));
    command.args(target.seeds.map(|seeds| root.join(seeds)));
    command.arg("--").arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB}")).arg(format!("-timeout={SECONDS_PER_INPUT}"));
    command.args(["-max_len=65536", "-print_final_stats=1", "-verbosity=0"]);
    Ok(command.status().context("cannot run cargo fuzz")?.success())
}
