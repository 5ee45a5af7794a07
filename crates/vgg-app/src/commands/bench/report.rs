//! The table of layers.

use std::io::Write as _;

use anyhow::Result;
use serde_json::{Value, json};
use vgg_layers::{LayerTime, Pass};
use vgg_tensor::Limits;

use super::workload::Workload;
use crate::console::out;

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
    fn gflops(&self) -> f64 {
        self.flops / self.ms / 1e6
    }

    /// The time that a direct sum at the limits would take, over the time it took: above 1 where an algorithm needs
    /// fewer operations.
    fn of_limit(&self, limits: &Limits) -> f64 {
        let bound = (self.flops / limits.gflops).max(self.bytes / limits.read_gb_per_s) / 1e6;
        bound / self.ms
    }

    pub(super) fn json(&self, limits: &Limits) -> Value {
        json!({
            "layer": self.layer,
            "pass": pass_name(self.pass),
            "ms": self.ms,
            "direct_gflops": self.gflops(),
            "of_direct_limit": self.of_limit(limits),
        })
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

pub(super) fn print(rows: &[LayerRow], limits: &Limits) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out(), "\n{:10} {:10} {:>9} {:>9} {:>15}", "layer", "pass", "ms", "GFLOP/s", "of direct limit")?;
    for row in rows {
        let (gflops, of_limit) = match row.flops {
            0.0 => (String::new(), String::new()),
            _ => (format!("{:.0}", row.gflops()), format!("{:.2}", row.of_limit(limits))),
        };
        let pass = pass_name(row.pass);
        writeln!(out(), "{:10} {pass:10} {:>9.2} {gflops:>9} {of_limit:>15}", row.layer, row.ms)?;
    }
    Ok(())
}
