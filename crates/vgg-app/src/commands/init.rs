//! `vgg init`: random weights.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vgg_layers::{Config, Network, NetworkSpec};
use vgg_tensor::Device;
use vgg_weights::WeightsMetadata;

use super::options::pair;
use crate::exit::UsageError;

#[derive(Args)]
pub(crate) struct Init {
    /// A, A-LRN, B, B-5x5, C, D or E.
    #[arg(long)]
    config: Config,
    /// Number of classes.
    #[arg(long, default_value_t = 1000)]
    classes: usize,
    /// Factor on the numbers of filters.
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Outputs of fc6 and fc7.
    #[arg(long, default_value = "4096,4096", value_parser = pair)]
    head: [usize; 2],
    /// Side of the crop in pixels, a multiple of 32.
    #[arg(long, default_value_t = 224)]
    crop: usize,
    /// paper-variance, gaussian-0.01, glorot-uniform, glorot-normal, he or he-fan-out.
    #[arg(long, default_value = "he")]
    init: vgg_layers::Init,
    /// Seed; the same seed draws the same weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
}

impl Init {
    pub(crate) fn run(self) -> Result<()> {
        let Init { config, classes, width, head, crop, init, seed, out } = self;
        if out.exists() {
            return Err(UsageError(format!("{} exists already", out.display())).into());
        }
        let spec = NetworkSpec { classes, width, head, crop, ..NetworkSpec::paper(config) };
        let network = Network::random(spec.clone(), init, seed, &Device::cpu(1)?)?;
        let metadata = WeightsMetadata::untrained(spec);
        vgg_weights::save(&out, &network, &metadata)?;
        eprintln!(
            "{}: config {config}, {} parameters, {}, seed {seed}",
            out.display(),
            metadata.spec.parameter_count()?,
            init.name()
        );
        Ok(())
    }
}
