//! `vgg plan`: what a training on many GPUs would take, by a model with few numbers, all of which may be given.

use std::io::Write as _;

use anyhow::Result;
use clap::Args;
use vgg_layers::{Config, NetworkSpec};

use crate::console::{out, print_table};
use crate::exit::UsageError;

/// Seconds of a step of config D on an H100 beside its images, and for each of them: 4,840 images/s in steps of 64 and 5,482
/// in steps of 256, measured.
const STEP_S: f64 = 0.002_06;
const IMAGE_S: f64 = 1.743_7e-4;
/// Share of a step that is the backward pass, beside which gradients are summed.
const BACKWARD: f64 = 0.6;
/// A bucket of gradients, and seconds that its sum takes however small it is, for each doubling of ranks.
const BUCKET_BYTES: f64 = 4_194_304.0;
const LATENCY_S: f64 = 10e-6;
/// GPUs that have a machine, and its network, in common.
const OF_MACHINE: usize = 8;

#[derive(Args)]
pub(crate) struct Plan {
    /// Numbers of GPUs, such as 8 or 1,8,64.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128,256,512,1024")]
    gpus: Vec<usize>,
    /// Training images.
    #[arg(long, default_value_t = 1_281_167)]
    images: u64,
    /// The network.
    #[arg(long, default_value = "D")]
    config: Config,
    /// Images of a mini-batch, over all GPUs. Default: the paper's 256, or 32 for each GPU if that is more.
    #[arg(long)]
    batch: Option<usize>,
    /// Epochs.
    #[arg(long, default_value_t = 74)]
    epochs: usize,
    /// Bytes of an image as it is stored: 30,000 at a smallest side of 256 and quality 90, 107,000 at 512 and 95, measured on
    /// 200 photographs.
    #[arg(long, default_value_t = 30_000.0)]
    image_bytes: f64,
    /// Images that a core makes ready in a second: 1,030 at 256 and 385 at 512, measured; a quarter more with turbojpeg.
    #[arg(long, default_value_t = 1030.0)]
    images_per_core: f64,
    /// GB/s from one GPU to another of its machine, as sums of gradients see them.
    #[arg(long, default_value_t = 300.0)]
    link: f64,
    /// GB/s for each GPU between machines.
    #[arg(long, default_value_t = 40.0)]
    network: f64,
    /// GB/s from the object store to each machine of eight GPUs.
    #[arg(long, default_value_t = 10.0)]
    store: f64,
    /// Cores for each GPU.
    #[arg(long, default_value_t = 12)]
    cores: usize,
    /// Price of a GPU for an hour.
    #[arg(long, default_value_t = 3.0)]
    price: f64,
}

/// What one number of GPUs comes to.
struct Row {
    gpus: usize,
    batch: usize,
    compute: f64,
    sum: f64,
    /// What of the sums is left when the backward pass is over.
    exposed: f64,
    step: f64,
    images_per_s: f64,
    /// What the GPUs would take, if reading and decoding kept up.
    wanted_per_s: f64,
    bottleneck: &'static str,
}

impl Plan {
    pub(crate) fn run(self) -> Result<()> {
        self.check()?;
        let summary = NetworkSpec::paper(self.config).summary()?;
        let of_d = NetworkSpec::paper(Config::D).summary()?;
        let work = summary.macs as f64 / of_d.macs as f64;
        let bytes = summary.parameters as f64 * 4.0;
        let rows: Vec<Row> = self.gpus.iter().map(|&gpus| self.row(gpus, work, bytes)).collect();
        let head = [
            "GPUs",
            "batch",
            "step, ms",
            "compute",
            "sums",
            "left of them",
            "images/s",
            "epoch",
            "all epochs",
            "to read, GB/s",
            "cores needed",
            "price",
            "first limit",
        ];
        let head = head.map(str::to_owned);
        print_table(&head, &rows.iter().map(|row| self.cells(row)).collect::<Vec<_>>())?;
        writeln!(
            out(),
            "config {}, {} images, {} epochs; {:.0} MB of gradients a step in f32. Compute is fitted to an H100's two measured \
             points (docs/results/gpu.md); the rest is a model (docs/scale.md) of the numbers that --help lists.",
            self.config,
            self.images,
            self.epochs,
            bytes / 1e6
        )?;
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let numbers = [
            ("--image-bytes", self.image_bytes),
            ("--images-per-core", self.images_per_core),
            ("--link", self.link),
            ("--network", self.network),
            ("--store", self.store),
            ("--images", self.images as f64),
            ("--epochs", self.epochs as f64),
            ("--cores", self.cores as f64),
            ("--gpus", self.gpus.iter().copied().min().unwrap_or(0) as f64),
        ];
        if let Some((option, value)) =
            numbers.into_iter().find(|(_, value)| !(*value > 0.0 && value.is_finite()))
        {
            return Err(UsageError(format!("{option} {value} is no number of more than 0")).into());
        }
        if !(self.price >= 0.0 && self.price.is_finite()) {
            return Err(UsageError(format!("--price {} is no price", self.price)).into());
        }
        let most = self.gpus.iter().copied().max().unwrap_or(0);
        match self.batch {
            Some(batch) if batch < most => {
                Err(UsageError(format!("--batch {batch} is less than an image for each of {most} GPUs"))
                    .into())
            }
            _ => Ok(()),
        }
    }

    fn row(&self, gpus: usize, work: f64, bytes: f64) -> Row {
        let batch = self.batch.unwrap_or(256.max(32 * gpus));
        let each = batch as f64 / gpus as f64;
        let compute = (STEP_S + IMAGE_S * each) * work;
        // Within a machine each GPU sends and receives all but its own part, twice; between machines it does so with the part
        // that it has summed there.
        let (within, machines) = (gpus.min(OF_MACHINE) as f64, gpus.div_ceil(OF_MACHINE) as f64);
        let share = |n: f64| 2.0 * (n - 1.0) / n;
        let latency = LATENCY_S * (gpus as f64).log2().ceil() * (bytes / BUCKET_BYTES).ceil();
        let (inside, between) = (bytes / (self.link * 1e9), bytes / within / (self.network * 1e9));
        let sum = share(within) * inside + share(machines) * between + latency;
        // The convolutions' gradients come last: the last bucket is always left.
        let last = if gpus > 1 { (sum * BUCKET_BYTES / bytes).min(sum) } else { 0.0 };
        let exposed = (sum - BACKWARD * compute).max(last);
        let read = batch as f64 * self.image_bytes / (self.store * 1e9 * machines);
        let decode = batch as f64 / (self.images_per_core * (self.cores * gpus) as f64);
        let step = (compute + exposed).max(read).max(decode);
        let limits =
            [("compute", compute), ("sums of gradients", exposed), ("reading", read), ("decoding", decode)];
        let slowest = if read.max(decode) > compute + exposed { &limits[2..] } else { &limits[..2] };
        let first = slowest.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or("", |limit| limit.0);
        let (images_per_s, wanted_per_s) = (batch as f64 / step, batch as f64 / (compute + exposed));
        Row { gpus, batch, compute, sum, exposed, step, images_per_s, wanted_per_s, bottleneck: first }
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let epoch = self.images as f64 / row.images_per_s;
        let hours = epoch * self.epochs as f64 / 3600.0;
        let ms = |s: f64| format!("{:.1}", 1000.0 * s);
        let time = |hours: f64| match hours {
            h if h < 1.0 / 30.0 => format!("{:.1} s", 3600.0 * h),
            h if h < 1.0 => format!("{:.0} min", 60.0 * h),
            h if h < 72.0 => format!("{h:.1} h"),
            h => format!("{:.1} days", h / 24.0),
        };
        vec![
            row.gpus.to_string(),
            row.batch.to_string(),
            ms(row.step),
            ms(row.compute),
            ms(row.sum),
            ms(row.exposed),
            format!("{:.0}", row.images_per_s),
            time(epoch / 3600.0),
            time(hours),
            format!("{:.2}", row.wanted_per_s * self.image_bytes / 1e9),
            format!("{:.0}", (row.wanted_per_s / self.images_per_core).ceil()),
            format!("{:.0}", hours * row.gpus as f64 * self.price),
            row.bottleneck.to_owned(),
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
    fn one_gpu_is_what_was_measured() {
        for (batch, measured) in [(64, 4840.0), (256, 5482.0)] {
            let row = plan(&["--batch", &batch.to_string()]).row(1, 1.0, 553e6);
            let apart = (row.images_per_s / measured - 1.0_f64).abs();
            assert!(apart < 0.002 && row.exposed == 0.0, "{batch}: {} of {measured}", row.images_per_s);
        }
    }

    #[test]
    fn what_is_needed_is_not_what_there_is() {
        let few = plan(&["--cores", "1"]);
        let row = few.row(8, 1.0, 553e6);
        assert!(row.images_per_s < row.wanted_per_s);
        let needed: usize = few.cells(&row)[10].parse().unwrap();
        assert!(needed > 8, "{needed}");
        for wrong in
            [["--cores", "0"], ["--batch", "3"], ["--price", "nan"], ["--epochs", "0"], ["--link", "inf"]]
        {
            assert!(plan(&wrong).check().unwrap_err().to_string().contains(wrong[0]), "{wrong:?}");
        }
    }

    #[test]
    fn each_limit_can_be_the_first() {
        let of = |arguments: &[&str], gpus| plan(arguments).row(gpus, 1.0, 553e6).bottleneck;
        assert_eq!(of(&[], 1), "compute");
        assert_eq!(of(&["--batch", "256"], 64), "sums of gradients");
        assert_eq!(of(&["--cores", "1"], 8), "decoding");
        assert_eq!(of(&["--store", "0.1"], 8), "reading");
    }
}
