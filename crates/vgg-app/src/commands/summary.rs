//! `vgg summary`: layers, shapes and parameters of a network.

use anyhow::Result;
use clap::Args;
use std::io::Write as _;
use std::path::PathBuf;

use super::options::NetworkArgs;

use crate::console::{note, out};
use crate::exit::UsageError;

const MIB: f64 = 1_048_576.0;

#[derive(Args)]
pub(crate) struct Summary {
    #[command(flatten)]
    network: NetworkArgs,
    /// Show the network of this weights file, of any supported library.
    #[arg(long, conflicts_with_all = ["config", "stages", "width", "classes", "head", "crop"])]
    weights: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Summary {
    pub(crate) fn run(self) -> Result<()> {
        let Summary { network, weights, json } = self;
        let spec = match weights {
            Some(path) => {
                let (metadata, notes) = vgg_weights::describe(&path)?;
                notes.iter().for_each(|text| note(text));
                metadata.spec
            }
            None if !network.is_given() => {
                return Err(UsageError("give a network: --config, --stages or --weights".into()).into());
            }
            None => network.spec()?,
        };
        let summary = spec.summary()?;
        if json {
            writeln!(out(), "{}", serde_json::to_string_pretty(&summary)?)?;
            return Ok(());
        }
        writeln!(
            out(),
            "{:10} {:30} {:>16} {:>12} {:>9} {:>9} {:>7}",
            "layer",
            "kind",
            "output",
            "parameters",
            "MMAC",
            "KiB out",
            "RF, px"
        )?;
        for row in &summary.layers {
            let [h, w, c] = row.output;
            let (size, mega) = (format!("{h} x {w} x {c}"), row.macs as f64 / 1e6);
            let (kib, field) = ((h * w * c) as f64 / 256.0, row.receptive_field);
            writeln!(
                out(),
                "{:10} {:30} {size:>16} {:>12} {mega:>9.1} {kib:>9.1} {field:>7}",
                row.name,
                row.kind,
                row.parameters
            )?;
        }
        writeln!(
            out(),
            "config {}: {} weight layers, {} parameters ({:.0} MiB in f32); one crop takes {:.3} GMAC ({:.2} GFLOP) \
             and {:.1} MiB of convolution outputs; receptive field {} px at pool{}, {} px at fc6",
            summary.config,
            summary.weight_layers,
            summary.parameters,
            summary.parameters as f64 * 4.0 / MIB,
            summary.macs as f64 / 1e9,
            summary.macs as f64 * 2e-9,
            summary.conv_activations as f64 * 4.0 / MIB,
            summary.receptive_field_last_pool,
            spec.config.stages().count(),
            summary.receptive_field_fc6
        )?;
        Ok(())
    }
}
