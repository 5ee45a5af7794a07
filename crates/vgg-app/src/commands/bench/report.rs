//! What a benchmark found, as JSON or for people.

use std::io::Write as _;

use anyhow::Result;
use serde::Serialize;
use vgg_layers::{LayerTime, Pass};
use vgg_tensor::Limits;

use super::workload::Workload;
use crate::console::out;

/// What a benchmark found.
#[derive(Serialize)]
pub(super) struct Figures {
    pub(super) version: &'static str,
    pub(super) device: String,
    pub(super) config: &'static str,
    pub(super) mode: String,
    pub(super) batch: usize,
    pub(super) images_per_s: f64,
    /// As if every sum were computed directly, which Winograd's convolution does not.
    pub(super) direct_gflops: f64,
    pub(super) median_ms: f64,
    pub(super) samples_ms: Vec<f64>,
    pub(super) limit_gflops: f64,
    pub(super) limit_read_gb_per_s: f64,
    /// What a training step was planned to take.
    pub(super) planned_tensor_bytes: Option<usize>,
    pub(super) peak_tensor_bytes: usize,
    pub(super) peak_process_bytes: Option<usize>,
    /// Of the largest logit.
    pub(super) difference_from_direct: f64,
    pub(super) layers: Vec<LayerFigures>,
    /// What a GPU's convolutions were given.
    pub(super) engines: Vec<EngineFigures>,
}

/// The engine of a convolution on a GPU.
#[derive(Serialize)]
pub(super) struct EngineFigures {
    pub(super) convolution: String,
    /// In cuDNN's list, from 0.
    pub(super) place: usize,
    /// When it was timed against the others.
    pub(super) microseconds: f64,
}

/// One pass of a layer.
#[derive(Serialize)]
pub(super) struct LayerFigures {
    layer: String,
    pass: &'static str,
    ms: f64,
    direct_gflops: f64,
    /// The time that direct sums would take at the machine's limits, over the time it took.
    of_direct_limit: f64,
}

impl Figures {
    pub(super) fn print(&self) -> Result<()> {
        let gib = |bytes: usize| format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64);
        let Figures { images_per_s, median_ms, direct_gflops, .. } = self;
        writeln!(
            out(),
            "{images_per_s:.2} images/s, {median_ms:.1} ms a sample, {direct_gflops:.0} GFLOP/s as direct sums"
        )?;
        let Figures { limit_gflops, limit_read_gb_per_s, .. } = self;
        writeln!(
            out(),
            "limits: {limit_gflops:.0} GFLOP/s multiply-add, {limit_read_gb_per_s:.1} GB/s reading memory"
        )?;
        let planned = self.planned_tensor_bytes.map_or(String::new(), |b| format!(", {} planned", gib(b)));
        let process =
            self.peak_process_bytes.map_or(String::new(), |b| format!("; {} of the process", gib(b)));
        writeln!(out(), "peak memory: {} of tensors{planned}{process}", gib(self.peak_tensor_bytes))?;
        let difference = self.difference_from_direct;
        writeln!(out(), "largest difference from direct sums: {difference:.1e} of the largest logit")?;
        if self.layers.is_empty() {
            return Ok(());
        }
        writeln!(
            out(),
            "\n{:10} {:10} {:>9} {:>9} {:>15}",
            "layer",
            "pass",
            "ms",
            "GFLOP/s",
            "of direct limit"
        )?;
        for row in &self.layers {
            let (gflops, of_limit) = match row.direct_gflops {
                0.0 => (String::new(), String::new()),
                gflops => (format!("{gflops:.0}"), format!("{:.2}", row.of_direct_limit)),
            };
            writeln!(out(), "{:10} {:10} {:>9.2} {gflops:>9} {of_limit:>15}", row.layer, row.pass, row.ms)?;
        }
        Ok(())
    }
}

/// A layer's pass: its time, its work, and what bounds it.
pub(super) struct LayerRow {
    layer: String,
    pass: Pass,
    ms: f64,
    /// Floating-point operations, as direct sums would need them.
    flops: f64,
    /// Bytes that have to be read at least: the weights.
    bytes: f64,
}

impl LayerRow {
    pub(super) fn figures(&self, limits: &Limits) -> LayerFigures {
        let bound = (self.flops / limits.gflops).max(self.bytes / limits.read_gb_per_s) / 1e6;
        LayerFigures {
            layer: self.layer.clone(),
            pass: pass_name(self.pass),
            ms: self.ms,
            direct_gflops: self.flops / self.ms / 1e6,
            of_direct_limit: bound / self.ms,
        }
    }
}

fn pass_name(pass: Pass) -> &'static str {
    match pass {
        Pass::Forward => "forward",
        Pass::BackwardData => "by data",
        Pass::BackwardWeights => "by weights",
    }
}

/// Medians over the samples, in the order in which the layers ran. A layer that ran several times in a sample, for some
/// images each, counts with the sum.
pub(super) fn rows(samples: &[Vec<LayerTime>], workload: &Workload) -> Vec<LayerRow> {
    let layers = workload.layers();
    let mut keys: Vec<(String, Pass)> = Vec::new();
    for time in samples.iter().flatten() {
        if !keys.iter().any(|(layer, pass)| *layer == time.layer && *pass == time.pass) {
            keys.push((time.layer.clone(), time.pass));
        }
    }
    let row = |(layer, pass): (String, Pass)| {
        let of_sample = |sample: &Vec<LayerTime>| {
            let times = sample.iter().filter(|t| t.layer == layer && t.pass == pass);
            times.map(|t| t.seconds * 1e3).sum::<f64>()
        };
        let mut ms: Vec<f64> = samples.iter().map(of_sample).collect();
        ms.sort_by(f64::total_cmp);
        let (macs, parameters) = layers
            .iter()
            .find(|l| l.0 == layer)
            .map_or((0.0, 0), |(_, macs, parameters)| (*macs, *parameters));
        LayerRow { layer, pass, ms: ms[ms.len() / 2], flops: 2.0 * macs, bytes: 4.0 * parameters as f64 }
    };
    keys.into_iter().map(row).collect()
}
