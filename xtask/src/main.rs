//! Project tasks: `cargo xtask experiment` reproduces a table of the paper, `bench` measures speed, `ci` runs
//! all checks, and `tidy` checks the structure of the workspace.

#![deny(clippy::print_stderr, clippy::print_stdout)]

#[macro_use]
mod say;
mod bench;
mod ci;
mod emulator;
mod fuzz;
mod mutants;
mod tidy;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask TASK

  experiment ARGS  build the program and run `vgg experiment ARGS`: table1 to table7, shallow, init or all
  prepare-imagenet ARGS
                   build the program and run `vgg data prepare-imagenet ARGS`
  bench ARGS       build the program and run `vgg bench ARGS`; `bench --peers [TEXT]` compares it with PyTorch, ONNX
                   Runtime, OpenVINO and candle, installed below target/peers (needs Python): only the workloads whose
                   name contains TEXT, such as `train D` or `batch 1,`
  ci [--full]      all checks, cheapest first: tidy, fmt, clippy, build, tests, docs; `--full` also kills and
                   resumes a test training run 200 times
  gpu-check [OUT]  build the program and run xtask/gpu/check.sh: self-test and benchmark of a GPU, compared with PyTorch
  cuda-emulator    build an emulated GPU for tests from the kernels' sources (needs g++) and print its folder: VGG_CUDA_PATH
  fuzz --minutes N [TEXT]
                   fuzz every reader of files for so many minutes with cargo-fuzz, or those whose name contains TEXT
  mutants [--crate C] [--sample N] [--seed S]
                   run cargo-mutants and report the share of mutants that the tests catch; takes hours for all crates
  tidy             check dependencies between crates, the table of files in docs/architecture.md, the length of files,
                   and the language of names, comments and pages";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            say!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().map(|task| task.to_string_lossy().into_owned()).as_deref() {
        Some("experiment") => vgg(&["experiment"], arguments),
        Some("prepare-imagenet") => vgg(&["data", "prepare-imagenet"], arguments),
        Some("bench") => bench::run(arguments),
        Some("ci") => ci::run(&arguments.collect::<Vec<_>>()),
        Some("cuda-emulator") => emulator::run(),
        Some("fuzz") => fuzz::run(&text(arguments)?),
        Some("gpu-check") => gpu_check(arguments),
        Some("mutants") => mutants::run(&text(arguments)?),
        Some("tidy") => tidy::run(),
        Some("help" | "--help" | "-h") => {
            print_line!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => {
            say!("{}{USAGE}", other.map(|o| format!("unknown task {o}\n\n")).unwrap_or_default());
            Ok(ExitCode::from(2))
        }
    }
}

/// Converts arguments to UTF-8.
fn text(arguments: impl Iterator<Item = OsString>) -> Result<Vec<String>> {
    let not_text = |argument: OsString| anyhow::anyhow!("{} is not UTF-8", argument.display());
    arguments.map(|argument| argument.into_string().map_err(not_text)).collect()
}

/// Builds the release binary and replaces this process with it, so that exit codes and signals pass through.
fn vgg(command: &[&str], arguments: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    cargo(&["build", "--release", "--package", "vgg-app"])?;
    let target = metadata()?["target_directory"].as_str().map(PathBuf::from);
    let target = target.context("cargo metadata names no target directory")?;
    let mut vgg = Command::new(target.join("release").join("vgg"));
    vgg.args(command).args(arguments);
    exec_or_run(vgg)
}

/// Builds the release binary and runs the check script with it.
fn gpu_check(arguments: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    cargo(&["build", "--release", "--package", "vgg-app"])?;
    let target = metadata()?["target_directory"].as_str().map(PathBuf::from);
    let target = target.context("cargo metadata names no target directory")?;
    let mut script = Command::new(root().join("xtask").join("gpu").join("check.sh"));
    script.arg(target.join("release").join("vgg")).args(arguments);
    exec_or_run(script)
}

#[cfg(unix)]
fn exec_or_run(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let name = command.get_program().to_string_lossy().into_owned();
    Err(command.exec()).with_context(|| format!("cannot run {name}"))
}

#[cfg(not(unix))]
fn exec_or_run(mut command: Command) -> Result<ExitCode> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Root of the workspace.
fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or(manifest.clone(), PathBuf::from)
}

/// The output of `cargo metadata` for the workspace.
fn metadata() -> Result<serde_json::Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata did not print JSON")
}

/// Runs cargo in the workspace.
fn cargo(arguments: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(arguments)
        .env("RUSTDOCFLAGS", "-D warnings")
        .current_dir(root())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}
