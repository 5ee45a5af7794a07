//! `vgg plan`: a cost model of training on many GPUs. All of its parameters are options.

use std::io::Write as _;

use anyhow::Result;
use clap::Args;
use vgg_distributed::{Bottleneck, Cluster, ScaleWorkload, StepEstimate};
use vgg_layers::{Config, NetworkSpec};

use crate::console::{out, print_table};
use crate::exit::UsageError;

#[derive(Args)]
pub(crate) struct Plan {
    /// Numbers of GPUs, such as 8 or 1,8,64.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128,256,512,1024")]
    gpus: Vec<usize>,
    /// Number of training images.
    #[arg(long, default_value_t = 1_281_167)]
    images: u64,
    /// ConvNet configuration.
    #[arg(long, default_value = "D")]
    config: Config,
    /// Batch size over all GPUs. Default: the paper's 256, or 32 per GPU if that is more.
    #[arg(long)]
    batch: Option<usize>,
    /// Number of epochs.
    #[arg(long, default_value_t = 74)]
    epochs: usize,
    /// Bytes per stored image. Measured on 200 photographs: 30,000 for images reduced to a smallest side of 256
    /// pixels at JPEG quality 90; 107,000 for 512 pixels at quality 95.
    #[arg(long, default_value_t = 30_000.0)]
    image_bytes: f64,
    /// Images that one core decodes per second. Measured: 1,030 at a smallest side of 256 pixels, 385 at 512; a
    /// build with the turbojpeg feature is a quarter faster.
    #[arg(long, default_value_t = 1030.0)]
    images_per_core: f64,
    /// Bandwidth between two GPUs of a machine during all-reduce, in GB/s.
    #[arg(long, default_value_t = 300.0)]
    intra_node_gb_per_s: f64,
    /// Bandwidth per GPU between machines, in GB/s.
    #[arg(long, default_value_t = 40.0)]
    inter_node_gb_per_s: f64,
    /// Bandwidth from the object store to each machine of eight GPUs, in GB/s.
    #[arg(long, default_value_t = 10.0)]
    store_gb_per_s: f64,
    /// CPU cores per GPU.
    #[arg(long, default_value_t = 12)]
    cores: usize,
    /// Price of one GPU for one hour, in any currency.
    #[arg(long, default_value_t = 3.0)]
    price: f64,
}

impl Plan {
    pub(crate) fn run(self) -> Result<()> {
        self.check()?;
        let summary = NetworkSpec::paper(self.config.clone()).summary()?;
        let workload = ScaleWorkload {
            parameters: summary.parameters,
            macs_per_image: summary.macs as f64,
            image_bytes: self.image_bytes,
            batch: self.batch,
        };
        let cluster = Cluster {
            intra_node_gb_per_s: self.intra_node_gb_per_s,
            inter_node_gb_per_s: self.inter_node_gb_per_s,
            store_gb_per_s: self.store_gb_per_s,
            cores_per_gpu: self.cores,
            images_per_core_s: self.images_per_core,
        };
        let steps = self.gpus.iter().map(|gpus| StepEstimate::new(*gpus, &workload, &cluster));
        let head = [
            "GPUs",
            "batch",
            "step, ms",
            "compute",
            "all-reduce",
            "exposed",
            "images/s",
            "epoch",
            "all epochs",
            "to read, GB/s",
            "cores needed",
            "price",
            "first limit",
        ];
        let head = head.map(str::to_owned);
        print_table(&head, &steps.map(|step| self.cells(&step)).collect::<Vec<_>>())?;
        writeln!(
            out(),
            "config {}, {} images, {} epochs; {:.0} MB of f32 gradients per step. Compute is fitted to two measurements \
             on an H100 (docs/results/gpu.md); the rest is a model (docs/scale.md) of the parameters that --help lists.",
            self.config,
            self.images,
            self.epochs,
            4e-6 * summary.parameters as f64
        )?;
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let numbers = [
            ("--image-bytes", self.image_bytes),
            ("--images-per-core", self.images_per_core),
            ("--intra-node-gb-per-s", self.intra_node_gb_per_s),
            ("--inter-node-gb-per-s", self.inter_node_gb_per_s),
            ("--store-gb-per-s", self.store_gb_per_s),
            ("--images", self.images as f64),
            ("--epochs", self.epochs as f64),
            ("--cores", self.cores as f64),
            ("--gpus", self.gpus.iter().copied().min().unwrap_or(0) as f64),
        ];
        if let Some((option, value)) =
            numbers.into_iter().find(|(_, value)| !(*value > 0.0 && value.is_finite()))
        {
            return Err(UsageError(format!("{option} must be positive, not {value}")).into());
        }
        if !(self.price >= 0.0 && self.price.is_finite()) {
            return Err(UsageError(format!("--price must be 0 or more, not {}", self.price)).into());
        }
        let most = self.gpus.iter().copied().max().unwrap_or(0);
        match self.batch {
            Some(batch) if batch < most => {
                Err(UsageError(format!("--batch {batch} is less than one image for each of {most} GPUs"))
                    .into())
            }
            _ => Ok(()),
        }
    }

    fn cells(&self, step: &StepEstimate) -> Vec<String> {
        let epoch = self.images as f64 / step.images_per_s;
        let hours = epoch * self.epochs as f64 / 3600.0;
        let ms = |s: f64| format!("{:.1}", 1000.0 * s);
        let time = |hours: f64| match hours {
            h if h < 1.0 / 30.0 => format!("{:.1} s", 3600.0 * h),
            h if h < 1.0 => format!("{:.0} min", 60.0 * h),
            h if h < 72.0 => format!("{h:.1} h"),
            h => format!("{:.1} days", h / 24.0),
        };
        vec![
            step.gpus.to_string(),
            step.batch.to_string(),
            ms(step.step_s),
            ms(step.compute_s),
            ms(step.all_reduce_s),
            ms(step.exposed_s),
            format!("{:.0}", step.images_per_s),
            time(epoch / 3600.0),
            time(hours),
            format!("{:.2}", step.wanted_images_per_s * self.image_bytes / 1e9),
            format!("{:.0}", (step.wanted_images_per_s / self.images_per_core).ceil()),
            format!("{:.0}", hours * step.gpus as f64 * self.price),
            match step.bottleneck {
                Bottleneck::Compute => "compute",
                Bottleneck::AllReduce => "all-reduce",
                Bottleneck::Reading => "reading",
                Bottleneck::Decoding => "decoding",
            }
            .to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        plan: Plan,
    }

    fn plan(arguments: &[&str]) -> Plan {
        Cli::parse_from([&["plan"], arguments].concat()).plan
    }

    #[test]
    fn invalid_values_are_rejected_with_their_option() {
        for wrong in [
            ["--cores", "0"],
            ["--batch", "3"],
            ["--price", "nan"],
            ["--epochs", "0"],
            ["--intra-node-gb-per-s", "inf"],
        ] {
            assert!(plan(&wrong).check().unwrap_err().to_string().contains(wrong[0]), "{wrong:?}");
        }
    }
}
