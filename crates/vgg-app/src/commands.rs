//! The commands.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use vgg_data::synthetic::{SyntheticConfig, generate, is_made};
use vgg_layers::{Config, NetworkSpec};

/// The very deep ConvNets of Simonyan & Zisserman.
#[derive(Parser)]
#[command(name = "vgg", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Layers, shapes, parameters and arithmetic of a network.
    Summary(Summary),
    /// Data sets.
    #[command(subcommand)]
    Data(Data),
}

#[derive(Args)]
struct Summary {
    /// A, A-LRN, B, B-5x5, C, D or E.
    #[arg(long)]
    config: Config,
    /// Factor on the numbers of filters.
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Number of classes.
    #[arg(long, default_value_t = 1000)]
    classes: usize,
    /// Side of the crop in pixels, a multiple of 32.
    #[arg(long, default_value_t = 224)]
    crop: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Data {
    /// Make the synthetic data set.
    Synthetic(Synthetic),
}

#[derive(Args)]
struct Synthetic {
    /// Folder to write to.
    #[arg(long)]
    out: PathBuf,
    /// Training images of each of the ten classes; a quarter as many validation images, but at least 50.
    #[arg(long, default_value_t = 200)]
    images_per_class: usize,
    /// Seed of everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Cli {
    /// Does what was asked for.
    pub(crate) fn run(self) -> Result<()> {
        match self.command {
            Command::Summary(s) => s.run(),
            Command::Data(Data::Synthetic(s)) => s.run(),
        }
    }
}

impl Summary {
    fn run(self) -> Result<()> {
        let paper = NetworkSpec::paper(self.config);
        let spec = NetworkSpec { width: self.width, classes: self.classes, crop: self.crop, ..paper };
        let summary = spec.summary()?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&summary)?);
            return Ok(());
        }
        println!("{:10} {:30} {:>16} {:>12} {:>9}", "layer", "kind", "output", "parameters", "MMAC");
        for row in &summary.layers {
            let [h, w, c] = row.output;
            let (size, mega) = (format!("{h} x {w} x {c}"), row.macs as f64 / 1e6);
            println!("{:10} {:30} {size:>16} {:>12} {mega:>9.1}", row.name, row.kind, row.parameters);
        }
        println!(
            "config {}: {} weight layers, {} parameters, {:.3} GMAC, receptive field {} px at pool5, {} px at fc6",
            summary.config,
            summary.weight_layers,
            summary.parameters,
            summary.macs as f64 / 1e9,
            summary.receptive_field_pool5,
            summary.receptive_field_fc6
        );
        Ok(())
    }
}

impl Synthetic {
    fn run(self) -> Result<()> {
        let config = SyntheticConfig {
            seed: self.seed,
            train_per_class: self.images_per_class,
            val_per_class: (self.images_per_class / 4).max(50),
        };
        if is_made(&self.out, &config) {
            eprintln!("{} already holds this set", self.out.display());
            return Ok(());
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        generate(&self.out, &config, threads, &|done, all| {
            if done % 500 == 0 || done == all {
                eprintln!("{done} of {all} images");
            }
        })?;
        Ok(())
    }
}
