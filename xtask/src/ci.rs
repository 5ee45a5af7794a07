//! `cargo xtask ci`: all checks of continuous integration.

use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

/// The first checks, cheapest first.
const STEPS: [(&str, &[&str]); 6] = [
    ("fmt", &["fmt", "--all", "--check"]),
    ("clippy", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
    ("build", &["build", "--workspace", "--examples", "--quiet"]),
    ("test", &["test", "--workspace"]),
    ("doc", &["doc", "--workspace", "--exclude", "vgg-app", "--no-deps", "--quiet"]),
    // Offline, with fetched dependencies; `LIBRARIES` covers the build of each package alone.
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

/// Crates for other users. Each must build alone, without features that the workspace enables through another
/// crate.
const LIBRARIES: [&str; 14] = [
    "vgg-error",
    "vgg-files",
    "vgg-testkit",
    "vgg-tensor",
    "vgg-distributed",
    "vgg-data",
    "vgg-layers",
    "vgg-optim",
    "vgg-weights",
    "vgg-eval",
    "vgg-train",
    "vgg-experiment",
    "vgg-bench",
    "vgg",
];

pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let full = match arguments {
        [] => false,
        [option] if option == "--full" => true,
        _ => bail!("ci takes only the option --full"),
    };
    crate::tidy::run()?;
    for (name, arguments) in STEPS {
        let start = Instant::now();
        say!("== {name}");
        crate::cargo(arguments)?;
        say!("== {name}: {:.0?}", start.elapsed());
    }
    emulated_gpu()?;
    for feature in OPTIONAL {
        optional(&feature)?;
    }
    let start = Instant::now();
    say!("== each library alone");
    for library in LIBRARIES {
        crate::cargo(&["check", "--quiet", "--package", library])?;
    }
    say!("== each library alone: {:.0?}", start.elapsed());
    without_cuda()?;
    consumer()?;
    dependencies()?;
    if full {
        killed_runs()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks the libraries without the default feature `cuda`.
fn without_cuda() -> Result<()> {
    let start = Instant::now();
    say!("== without CUDA");
    let mut clippy = vec!["clippy", "--quiet", "--no-default-features"];
    LIBRARIES.iter().for_each(|library| clippy.extend(["--package", library]));
    crate::cargo(&[&clippy[..], &["--", "--deny", "warnings"]].concat())?;
    let tests = ["--no-default-features", "--package", "vgg-tensor", "--test", "without_cuda"];
    crate::cargo(&[&["test", "--quiet"], &tests[..]].concat())?;
    say!("== without CUDA: {:.0?}", start.elapsed());
    Ok(())
}

/// Checks licences and sources of all dependencies, and advisories if the database can be fetched.
fn dependencies() -> Result<()> {
    if !is_there("cargo-deny", "licences and advisories of dependencies")? {
        return Ok(());
    }
    say!("== dependencies");
    crate::cargo(&["deny", "--log-level", "error", "check", "licenses", "bans", "sources"])?;
    let fetched = Command::new("cargo").args(["deny", "--log-level", "off", "fetch", "db"]).status();
    if fetched.is_ok_and(|status| status.success()) {
        return crate::cargo(&["deny", "--log-level", "error", "check", "advisories"]);
    }
    say!("== advisories: SKIPPED, as the advisory database cannot be fetched");
    Ok(())
}

/// Builds a project that depends only on `vgg`, and runs it on generated weights and images.
fn consumer() -> Result<()> {
    let start = Instant::now();
    say!("== consumer");
    let target = crate::root().join("target");
    let place = target.join("consumer");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place)?;
    let (weights, set) = ("w.safetensors", "set");
    let init =
        ["init", "--config", "A", "--classes", "10", "--width", "0.125", "--head", "32,32", "--crop", "32"];
    let synthetic = ["data", "synthetic", "--images-per-class", "8"];
    for arguments in [[&init[..], &["--out", weights]].concat(), [&synthetic[..], &["--out", set]].concat()] {
        let status = Command::new(target.join("debug/vgg")).args(&arguments).current_dir(&place).status();
        ensure!(status.context("cannot run vgg")?.success(), "vgg {}", arguments.join(" "));
    }
    let class = std::fs::read_dir(place.join(set).join("val"))?.next().context("no class")??.path();
    let image = std::fs::read_dir(class)?.next().context("no image")??.path();
    let project = crate::root().join("tests/consumer");
    // Uses the workspace's dependency versions, which are already fetched.
    std::fs::copy(crate::root().join("Cargo.lock"), project.join("Cargo.lock"))?;
    let mut run = Command::new("cargo");
    run.args(["run", "--quiet", "--manifest-path"]).arg(project.join("Cargo.toml"));
    run.args(["--", weights]).arg(image).args([set, "run"]);
    let status = run.env("CARGO_TARGET_DIR", &target).current_dir(&place).status();
    ensure!(status.context("cannot run cargo")?.success(), "the consumer");
    say!("== consumer: {:.0?}", start.elapsed());
    Ok(())
}

/// Kills training runs at random times, 200 times.
fn killed_runs() -> Result<()> {
    let start = Instant::now();
    say!("== killed runs");
    let mut tests = Command::new("cargo");
    tests.args(["test", "--quiet", "--package", "vgg-app", "--test", "durable", "killed_twice"]);
    let status = tests.env("VGG_KILLED_RUNS", "200").status().context("cannot run cargo")?;
    ensure!(status.success(), "killed runs");
    say!("== killed runs: {:.0?}", start.elapsed());
    Ok(())
}

/// A feature that needs a tool other than Rust.
struct Optional {
    feature: &'static str,
    /// A program that the build or its tests need.
    needs: &'static str,
    package: &'static str,
    tests: &'static [&'static str],
}

const OPTIONAL: [Optional; 3] = [
    Optional { feature: "remote", needs: "cc", package: "vgg-tests", tests: &["remote"] },
    Optional { feature: "turbojpeg", needs: "cmake", package: "vgg-tests", tests: &["data", "prepare"] },
    Optional { feature: "mpi", needs: "mpirun", package: "vgg-app", tests: &["ranks"] },
];

/// Checks the build and the tests of an optional feature.
fn optional(optional: &Optional) -> Result<()> {
    let Optional { feature, needs, package, tests } = optional;
    if !is_there(needs, &format!("feature {feature}"))? {
        return Ok(());
    }
    let start = Instant::now();
    say!("== feature {feature}");
    let clippy = ["clippy", "--package", "vgg-app", "--package", package, "--all-targets", "--quiet"];
    crate::cargo(&[&clippy[..], &["--features", feature, "--", "-D", "warnings"]].concat())?;
    let mut arguments = vec!["test", "--quiet", "--package", package, "--features", feature];
    tests.iter().for_each(|test| arguments.extend(["--test", test]));
    crate::cargo(&arguments)?;
    say!("== feature {feature}: {:.0?}", start.elapsed());
    Ok(())
}

/// Whether a program is installed. If not, reports a skip, which is a failure if `VGG_REQUIRE` lists it.
fn is_there(program: &str, what: &str) -> Result<bool> {
    if Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok() {
        return Ok(true);
    }
    let required = std::env::var("VGG_REQUIRE").unwrap_or_default();
    ensure!(!required.split(',').any(|name| name == program), "{program} is required but not installed");
    say!("== {what}: SKIPPED, as {program} is not installed");
    Ok(false)
}

/// Tests of vgg-tensor that run on every device.
const OPERATIONS: [&str; 11] = [
    "ops",
    "conv2d",
    "not_finite",
    "all_reduce",
    "tails",
    "convolution_tails",
    "large_logits",
    "fused",
    "sgd",
    "dropout",
    "soundness",
];

/// Requirements that must not be skipped on the emulated GPU.
const EMULATED: &str = "gpu,emulated-gpu,nccl,a GPU that two ranks can share";

/// Runs all tests of computations on an emulated GPU, which g++ builds from the kernels' sources.
fn emulated_gpu() -> Result<()> {
    if !is_there("g++", "emulated GPU")? {
        return Ok(());
    }
    let start = Instant::now();
    say!("== emulated GPU");
    let libraries = crate::emulator::build()?;
    let mut whole = vec!["--test", "gpu"];
    OPERATIONS.iter().for_each(|test| whole.extend(["--test", test]));
    let library = vec!["--lib", "--", "cuda::", "selftest::"];
    // Of these, only the tests with GPU-related names.
    let parts = ["--test", "ranks", "--test", "features", "--test", "learns", "--test", "training_runs"];
    let parts = [&parts[..], &["--", "gpu", "device", "descriptors"]].concat();
    for what in &[whole, library, parts] {
        let mut tests = Command::new("cargo");
        // With the whole workspace's features, everything is already built.
        tests.args(["test", "--quiet", "--workspace"]).args(what);
        let status = tests.env("VGG_CUDA_PATH", &libraries).env("VGG_REQUIRE", EMULATED).status();
        ensure!(
            status.context("cannot run cargo")?.success(),
            "tests on the emulated GPU: {}",
            what.join(" ")
        );
    }
    say!("== emulated GPU: {:.0?}", start.elapsed());
    Ok(())
}
