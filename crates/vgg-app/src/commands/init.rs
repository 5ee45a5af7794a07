//! `vgg init`: random weights.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vgg_error::printable;
use vgg_layers::Network;
use vgg_tensor::Device;
use vgg_weights::WeightsMetadata;

use super::options::{NetworkArgs, check_weights_fit};
use super::overwrite::Overwrite;
use crate::console::note;

#[derive(Args)]
pub(crate) struct Init {
    #[command(flatten)]
    network: NetworkArgs,
    /// Initialisation: paper-variance, gaussian-0.01, glorot-uniform, glorot-normal, he or he-fan-out.
    #[arg(long, default_value = "he")]
    init: vgg_layers::Init,
    /// Seed; equal seeds give identical weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Output file.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    overwrite: Overwrite,
}

impl Init {
    pub(crate) fn run(self) -> Result<()> {
        let Init { network, init, seed, out, overwrite } = self;
        overwrite.check(&out, &[])?;
        let spec = network.spec()?;
        check_weights_fit(&spec)?;
        let network = Network::random(spec.clone(), init, seed, &Device::cpu(1)?)?;
        let metadata = WeightsMetadata::untrained(spec);
        vgg_weights::save(&out, &network, &metadata)?;
        note(&format!(
            "{}: config {}, {} parameters, initialisation {}, seed {seed}",
            printable(&out),
            metadata.spec.config,
            metadata.spec.parameter_count()?,
            init.name()
        ));
        Ok(())
    }
}
