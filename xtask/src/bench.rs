//! `cargo xtask bench`: runs `vgg bench`; with `--peers`, compares our networks with PyTorch, ONNX Runtime,
//! OpenVINO and candle on the same machine, alternating between the programs. PyTorch and OpenVINO also run in bf16.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{cargo, exec_or_run, metadata, root};

/// Pause between programs: OpenMP threads spin for up to 200 ms after their work and would occupy a core.
const REST: Duration = Duration::from_millis(400);

/// A workload to compare.
struct Case {
    mode: &'static str,
    config: &'static str,
    batch: usize,
    threads: usize,
    width: f64,
    crop: usize,
    peers: &'static [&'static str],
    rounds: usize,
    /// Samples of each program per round. If there are several, the first is discarded: with another
    /// program's data in the caches, a sample of a few milliseconds is unreliable.
    in_a_row: usize,
}

const fn case(
    mode: &'static str,
    config: &'static str,
    batch: usize,
    threads: usize,
    peers: &'static [&'static str],
    rounds: usize,
) -> Case {
    Case { mode, config, batch, threads, width: 1.0, crop: 224, peers, rounds, in_a_row: 1 }
}

/// A case with short samples.
const fn short(case: Case) -> Case {
    Case { in_a_row: 6, ..case }
}

const fn narrow(config: &'static str, batch: usize) -> Case {
    short(Case { width: 0.25, crop: 64, ..case("train", config, batch, 2, TRAINING, 5) })
}

const INFERENCE: &[&str] = &["torch", "onnxruntime", "openvino", "openvino-default", "torch-bf16", "candle"];
const TRAINING: &[&str] = &["torch", "torch-bf16"];

/// The cases of `docs/results/cpu.md`.
const CASES: [Case; 16] = [
    case("infer", "D", 16, 2, INFERENCE, 7),
    short(case("infer", "D", 1, 2, INFERENCE, 5)),
    case("infer", "D", 16, 1, &["torch", "onnxruntime", "openvino"], 5),
    case("infer", "A", 16, 2, &["torch", "onnxruntime", "openvino"], 7),
    short(case("infer", "A", 1, 2, &["torch", "onnxruntime", "openvino"], 5)),
    case("infer", "E", 16, 2, &["torch", "onnxruntime", "openvino"], 5),
    short(case("infer", "E", 1, 2, &["torch", "onnxruntime", "openvino"], 5)),
    case("train", "D", 16, 2, TRAINING, 5),
    case("train", "D", 16, 1, &["torch"], 3),
    case("train", "A", 16, 2, TRAINING, 5),
    case("train", "E", 16, 2, TRAINING, 5),
    case("dense", "D", 2, 2, &["torch", "openvino", "openvino-default"], 7),
    narrow("A", 32),
    narrow("A", 64),
    narrow("D", 32),
    narrow("D", 64),
];

pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    let arguments: Vec<OsString> = arguments.collect();
    cargo(&["build", "--release", "--package", "vgg-app"])?;
    let target = metadata()?["target_directory"].as_str().map(PathBuf::from);
    let target = target.context("cargo metadata names no target directory")?;
    let vgg = target.join("release").join("vgg");
    if arguments.first().is_none_or(|a| a != "--peers") {
        let mut command = Command::new(vgg);
        command.arg("bench").args(arguments);
        return exec_or_run(command);
    }
    let filter = arguments.get(1).map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
    let peers = Peers::set_up(&target.join("peers"))?;
    let doctor = doctor(&vgg)?;
    print_line!("{}\n", machine(&doctor)?);
    let bf16 = doctor["bf16"]["problem"].is_null();
    if !bf16 {
        print_line!(
            "vgg in bf16 is not measured: {}\n",
            doctor["bf16"]["problem"].as_str().unwrap_or_default()
        );
    }
    print_line!(
        "| case | vgg, ms | vgg in bf16, ms | peer, ms | peer / vgg | peer / vgg in bf16 | peak MiB, vgg / peer |"
    );
    print_line!("|---|---|---|---|---|---|---|");
    ensure!(CASES.iter().any(|case| case.name().contains(&filter)), "no workload's name contains {filter:?}");
    for case in CASES.iter().filter(|case| case.name().contains(&filter)) {
        compare(case, &vgg, bf16, &peers)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The processor, its vector extensions, and what vgg uses of them.
fn machine(doctor: &serde_json::Value) -> Result<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.split_once(": "));
    let model = field("model name").map_or("unknown processor", |(_, model)| model);
    let flags = field("flags").map_or("", |(_, flags)| flags);
    let known = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"];
    let has: Vec<&str> = flags.split(' ').filter(|flag| known.contains(flag)).collect();
    let [device, precision] = ["device", "precision"].map(|key| doctor[key].as_str().unwrap_or_default());
    Ok(format!("{model} ({}); vgg: {device}, {precision}", has.join(", ")))
}

/// What `vgg doctor` reports.
fn doctor(vgg: &Path) -> Result<serde_json::Value> {
    let doctor = Command::new(vgg).args(["doctor", "--json"]).output().context("cannot run vgg doctor")?;
    Ok(serde_json::from_slice(&doctor.stdout)?)
}

impl Case {
    fn name(&self) -> String {
        let Case { mode, config, batch, threads, .. } = self;
        let narrow = if self.width == 1.0 {
            String::new()
        } else {
            format!(", width {}, crop {}", self.width, self.crop)
        };
        format!("{mode} {config}, batch {batch}, {threads} threads{narrow}")
    }
}

/// Starts all programs, takes samples in turns, and prints a row per peer. `bf16` runs vgg in bf16 too.
fn compare(case: &Case, vgg: &Path, bf16: bool, peers: &Peers) -> Result<()> {
    let mut runners = vec![("vgg", Runner::start(our_command(case, vgg, "f32"))?)];
    if bf16 {
        runners.push(("vgg in bf16", Runner::start(our_command(case, vgg, "bf16"))?));
    }
    let first_peer = runners.len();
    for peer in case.peers {
        let runner = Runner::start(peers.command(peer, case)).with_context(|| format!("starting {peer}"))?;
        runners.push((*peer, runner));
    }
    // The first round is a warm-up.
    let mut samples = vec![Vec::new(); runners.len()];
    for round in 0..=case.rounds {
        for ((name, runner), samples) in runners.iter_mut().zip(&mut samples) {
            std::thread::sleep(REST);
            for i in 0..case.in_a_row {
                let ms = runner.sample().with_context(|| format!("{name} of {}", case.name()))?;
                if round > 0 && (i > 0 || case.in_a_row == 1) {
                    samples.push(ms);
                }
            }
        }
    }
    let medians: Vec<f64> = samples.iter_mut().map(|s| median(s)).collect();
    let peaks: Vec<u64> = runners.iter().map(|(_, runner)| runner.peak_mib()).collect();
    let names: Vec<&str> = runners.iter().map(|(name, _)| *name).collect();
    for (_, ours) in runners.drain(..first_peer) {
        ours.finish().context("vgg's results differ from direct convolution")?;
    }
    let in_bf16 = bf16.then(|| medians[1]);
    for peer in first_peer..names.len() {
        let ms = medians[peer];
        print_line!(
            "| {}: {} | {:.1} | {} | {ms:.1} | {:.2} | {} | {} / {} |",
            case.name(),
            names[peer],
            medians[0],
            in_bf16.map_or("-".into(), |ours| format!("{ours:.1}")),
            ms / medians[0],
            in_bf16.map_or("-".into(), |ours| format!("{:.2}", ms / ours)),
            peaks[0],
            peaks[peer],
        );
    }
    std::io::stdout().flush()?;
    Ok(())
}

fn our_command(case: &Case, vgg: &Path, precision: &str) -> Command {
    let mut command = Command::new(vgg);
    let head = (4096.0 * case.width) as usize;
    command.args(["bench", "--samples-on-stdin", "--mode", case.mode, "--config", case.config]);
    command.args(["--device", "cpu", "--precision", precision]);
    command.args(["--batch", &case.batch.to_string(), "--threads", &case.threads.to_string()]);
    command.args(["--width", &case.width.to_string(), "--crop", &case.crop.to_string()]);
    command.args(["--head", &format!("{head},{head}")]);
    command
}

/// Executables of the installed peers.
struct Peers {
    python: PathBuf,
    candle: PathBuf,
}

impl Peers {
    /// Installs missing peers, which takes minutes, and gigabytes for PyTorch.
    fn set_up(dir: &Path) -> Result<Peers> {
        let environment = dir.join("python");
        let python = environment.join("bin").join("python");
        if !environment.join("ready").exists() {
            say!("setting up PyTorch, ONNX Runtime and OpenVINO in {}", environment.display());
            run_to_end(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
            let packages = ["torch", "numpy", "onnx", "onnxruntime", "openvino"];
            run_to_end(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
            std::fs::write(environment.join("ready"), "")?;
        }
        let manifest = root().join("xtask").join("peers").join("candle").join("Cargo.toml");
        let target = dir.join("candle");
        let mut build = Command::new("cargo");
        build.args(["build", "--release", "--quiet", "--manifest-path"]).arg(manifest);
        // Only our own binary must run on any processor.
        build.arg("--target-dir").arg(&target).env("RUSTFLAGS", "-C target-cpu=native");
        run_to_end(&mut build)?;
        let versions = "import torch, onnxruntime, openvino; print(f'torch {torch.__version__}, \
                        onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}')";
        run_to_end(Command::new(&python).args(["-c", versions]))?;
        Ok(Peers { python, candle: target.join("release").join("candle-peer") })
    }

    fn command(&self, peer: &str, case: &Case) -> Command {
        let (batch, threads, crop) =
            (case.batch.to_string(), case.threads.to_string(), case.crop.to_string());
        if peer == "candle" {
            let mut command = Command::new(&self.candle);
            command.args([case.config, &batch, &crop]).env("RAYON_NUM_THREADS", threads);
            return command;
        }
        let mut command = Command::new(&self.python);
        command.arg(root().join("xtask").join("peers").join("peer.py"));
        command.args([peer, case.mode, case.config, &batch, &threads, &case.width.to_string(), &crop]);
        command
    }
}

fn run_to_end(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// A program that takes one sample per line of input.
struct Runner {
    child: Child,
    answers: BufReader<ChildStdout>,
    log: File,
}

impl Runner {
    fn start(mut command: Command) -> Result<Runner> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Standard error is kept in case the program fails.
        let log = tempfile()?;
        command.stderr(log.try_clone()?);
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let answers = child.stdout.take().context("no standard output")?;
        Ok(Runner { child, answers: BufReader::new(answers), log })
    }

    fn sample(&mut self) -> Result<f64> {
        let stdin = self.child.stdin.as_mut().context("no standard input")?;
        stdin.write_all(b"\n")?;
        stdin.flush()?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return self.failed();
        }
        line.trim().parse().with_context(|| format!("{line:?} is not a number"))
    }

    /// Ends the program and checks that it found no error.
    fn finish(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        if self.child.wait()?.success() { Ok(()) } else { self.failed() }
    }

    fn failed<T>(&mut self) -> Result<T> {
        let (status, mut said) = (self.child.wait()?, String::new());
        self.log.rewind()?;
        self.log.read_to_string(&mut said)?;
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        bail!("the program ended: {status}\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // The program may already have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An unnamed file.
fn tempfile() -> Result<File> {
    let path = std::env::temp_dir().join(format!("vgg-bench-{}", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
