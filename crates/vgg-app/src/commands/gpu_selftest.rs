//! `vgg gpu-selftest`: every operation, and training steps of narrow networks, on a GPU against the CPU.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use vgg_bench::{TRAINING_CHECKS, training_tolerance};
use vgg_error::printable;
use vgg_tensor::selftest::{Finding, OPERATIONS, Tolerance, compare, has_nccl};
use vgg_tensor::{Device, DeviceConfig, DeviceKind, Precision};

use crate::console::{note, out, warning};
use crate::exit::UsageError;

#[derive(Args)]
pub(crate) struct GpuSelftest {
    /// GPU index.
    #[arg(long, default_value_t = 0)]
    gpu: usize,
    /// Write cuDNN's properties of the GPU to this JSON file.
    #[arg(long, hide = true, value_name = "FILE")]
    cudnn_properties: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl GpuSelftest {
    pub(crate) fn run(self) -> Result<()> {
        let cpu = Device::cpu(0)?;
        if !has_nccl() {
            note("NCCL is unavailable: all-reduce is not checked");
        }
        let mut findings = Vec::new();
        for (name, precision) in Precision::ALL {
            let config = DeviceConfig {
                kind: DeviceKind::Cuda(self.gpu),
                precision: Some(precision),
                ..DeviceConfig::default()
            };
            let gpu = Device::open(&config).map_err(without_hint)?;
            note(&format!("device: {}", gpu));
            if let (Some(file), Precision::Bf16) = (&self.cudnn_properties, precision) {
                // Used by tests on other machines; the self-test does not need it.
                match gpu.cudnn_properties() {
                    Ok(json) => std::fs::write(file, json.unwrap_or_default())
                        .with_context(|| format!("cannot write {}", printable(file)))?,
                    Err(e) => warning(&format!("cannot query cuDNN's properties of the GPU: {e}")),
                }
            }
            let mut found = Vec::new();
            for (what, run) in OPERATIONS {
                let of = compare(what, run, Tolerance::of_operations(precision), &gpu, &cpu);
                found.extend(of.with_context(|| format!("{name}: {what}"))?);
            }
            for (what, run) in TRAINING_CHECKS {
                let of = compare(what, run, training_tolerance(precision), &gpu, &cpu);
                found.extend(of.with_context(|| format!("{name}: {what}"))?);
            }
            findings.extend(found.into_iter().map(|finding| (name, finding)));
        }
        let failed = findings.iter().filter(|(_, finding)| !finding.passed).count();
        if self.json {
            let list: Vec<Value> = findings.iter().map(document).collect();
            writeln!(out(), "{}", serde_json::to_string_pretty(&list)?)?;
        } else {
            for (precision, Finding { what, error, cosine, passed }) in &findings {
                let verdict = if *passed { "ok    " } else { "FAILED" };
                writeln!(out(), "{verdict} {precision:4}  {what:44} error {error:.1e}, cosine {cosine:.6}")?;
            }
            writeln!(out(), "{} results, {failed} failed", findings.len())?;
        }
        ensure!(failed == 0, "{failed} of {} results differ from the CPU beyond tolerance", findings.len());
        Ok(())
    }
}

/// A missing GPU as a [`UsageError`], which has no hint: this command cannot run on the CPU instead.
fn without_hint(error: vgg_tensor::Error) -> anyhow::Error {
    match error {
        vgg_tensor::Error::NoCuda { .. } => UsageError(error.to_string()).into(),
        other => other.into(),
    }
}

fn document(of: &(&str, Finding)) -> Value {
    let (precision, Finding { what, error, cosine, passed }) = of;
    json!({ "precision": precision, "what": what, "error": error, "cosine": cosine, "passed": passed })
}
