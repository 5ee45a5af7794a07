//! `vgg gpu-selftest`: every operation, and whole training steps of narrow networks, on a GPU against the CPU.

mod operations;
mod steps;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use vgg_tensor::{CudaLibrary, Device, DeviceConfig, DeviceKind, Precision, cuda_libraries};

use crate::console::out;

#[derive(Args)]
pub(crate) struct GpuSelftest {
    /// Number of the GPU.
    #[arg(long, default_value_t = 0)]
    gpu: usize,
    /// Where to write what cuDNN says of the GPU, as JSON.
    #[arg(long, value_name = "FILE")]
    cudnn_properties: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A result under a name.
type Named = (String, Vec<f32>);

/// How far one result is from the CPU's.
#[derive(Debug, Serialize)]
struct Finding {
    precision: &'static str,
    what: String,
    /// Largest difference over the largest value.
    error: f64,
    /// Cosine of the angle between both.
    cosine: f64,
    passed: bool,
}

/// What a precision may lose.
#[derive(Clone, Copy)]
struct Allowed {
    error: f64,
    cosine: f64,
}

impl GpuSelftest {
    pub(crate) fn run(self) -> Result<()> {
        let cpu = Device::cpu(0)?;
        if !has_nccl() {
            eprintln!("there is no NCCL: sums over several GPUs are not checked");
        }
        let mut findings = Vec::new();
        for (name, precision) in Precision::ALL {
            let config =
                DeviceConfig { kind: DeviceKind::Cuda(self.gpu), precision, ..DeviceConfig::default() };
            let gpu = Device::open(&config)?;
            eprintln!("device: {}", gpu.describe());
            if let (Some(file), Precision::Bf16) = (&self.cudnn_properties, precision) {
                // It is for tests elsewhere; without it the self-test is worth as much.
                match gpu.cudnn_properties() {
                    Ok(json) => std::fs::write(file, json.unwrap_or_default())
                        .with_context(|| format!("cannot write {}", file.display()))?,
                    Err(e) => eprintln!("cuDNN's properties of the GPU cannot be had: {e}"),
                }
            }
            for (what, run) in operations::ALL {
                compare(&mut findings, name, what, operation_allowed(precision), run, [&gpu, &cpu])
                    .with_context(|| format!("{name}: {what}"))?;
            }
            for (what, run) in steps::ALL {
                compare(&mut findings, name, what, steps_allowed(precision), run, [&gpu, &cpu])
                    .with_context(|| format!("{name}: {what}"))?;
            }
        }
        let failed = findings.iter().filter(|finding| !finding.passed).count();
        if self.json {
            writeln!(out(), "{}", serde_json::to_string_pretty(&findings)?)?;
        } else {
            for Finding { precision, what, error, cosine, passed } in &findings {
                let verdict = if *passed { "ok    " } else { "FAILED" };
                writeln!(out(), "{verdict} {precision:4}  {what:44} error {error:.1e}, cosine {cosine:.6}")?;
            }
            writeln!(out(), "{} results, {failed} failed", findings.len())?;
        }
        ensure!(
            failed == 0,
            "{failed} of {} results differ from the CPU's by more than they may",
            findings.len()
        );
        Ok(())
    }
}

fn has_nccl() -> bool {
    cuda_libraries().iter().any(|status| status.library == CudaLibrary::Nccl && status.found.is_ok())
}

/// One rounding of an input or a result, and sums in another order.
fn operation_allowed(precision: Precision) -> Allowed {
    match precision {
        Precision::F32 => Allowed { error: 1e-4, cosine: 0.999_999 },
        Precision::Tf32 => Allowed { error: 3e-3, cosine: 0.9999 },
        Precision::Bf16 => Allowed { error: 1.5e-2, cosine: 0.9999 },
    }
}

/// A dozen layers forward and back; gradients of the first ones lose most. A rounding that turns a ReLU or the choice of
/// a maximum moves a whole term of a gradient, and these networks are narrow: tensor cores cut a float to tf32, which
/// turns hardly fewer of them than rounding to bf16 does.
fn steps_allowed(precision: Precision) -> Allowed {
    match precision {
        Precision::F32 => Allowed { error: 5e-3, cosine: 0.999_99 },
        Precision::Tf32 => Allowed { error: 0.3, cosine: 0.99 },
        Precision::Bf16 => Allowed { error: 0.5, cosine: 0.98 },
    }
}

fn compare(
    findings: &mut Vec<Finding>,
    precision: &'static str,
    what: &str,
    allowed: Allowed,
    run: fn(&Device) -> Result<Vec<Named>>,
    [gpu, cpu]: [&Device; 2],
) -> Result<()> {
    // Twice, so that the second time memory is there to be poisoned, and kept plans are used.
    run(gpu)?;
    gpu.poison_free_memory()?;
    let (ours, theirs) = (run(gpu)?, run(cpu)?);
    ensure!(ours.len() == theirs.len(), "not as many results as on the CPU");
    for ((name, a), (_, b)) in ours.iter().zip(&theirs) {
        let (error, cosine) = distance(a, b);
        let passed = error <= allowed.error && cosine >= allowed.cosine;
        findings.push(Finding { precision, what: format!("{what}: {name}"), error, cosine, passed });
    }
    Ok(())
}

/// Relative error and cosine; a value that is no number makes both fail.
fn distance(a: &[f32], b: &[f32]) -> (f64, f64) {
    if a.len() != b.len() || a.iter().any(|v| !v.is_finite()) {
        return (f64::INFINITY, -1.0);
    }
    let pairs = || a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let largest = pairs().fold(0.0f64, |m, (_, b)| m.max(b.abs()));
    let difference = pairs().fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in pairs() {
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    let same = aa == 0.0 && bb == 0.0;
    (
        if largest > 0.0 { difference / largest } else { difference },
        if same { 1.0 } else { ab / (aa * bb).sqrt() },
    )
}
