//! `vgg bench`: how fast a network runs here, and how near to what the processor can do.

mod protocols;
mod report;
mod workload;

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::{Args, ValueEnum};
use vgg_layers::{Config, NetworkSpec, Stopwatch};
use vgg_tensor::Device;

use self::report::{EngineFigures, Figures, LayerRow};
use self::workload::Workload;
use super::options::{DeviceOptions, pair, peak_memory_bytes};
use crate::console::out;
use crate::exit::UsageError;

/// Images that a convolution takes at once.
const MOST_IMAGES: usize = 256;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Logits of a batch of crops.
    Infer,
    /// A whole training step: forward, backward, update with momentum, dropout on.
    Train,
    /// The score map of one image and its mirror image (section 3.2).
    Dense,
}

#[derive(Args)]
pub(crate) struct Bench {
    /// A, A-LRN, B, B-5x5, C, D or E.
    #[arg(long, default_value = "D")]
    config: Config,
    /// infer, train or dense.
    #[arg(long, value_enum, default_value_t = Mode::Infer)]
    mode: Mode,
    /// Images at a time; dense takes one and its mirror image.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Side of the crops in pixels, a multiple of 32.
    #[arg(long, default_value_t = 224)]
    crop: usize,
    /// Time every test protocol in turn, an image at a time.
    #[arg(long, conflicts_with_all = ["mode", "layers", "samples_on_stdin"])]
    protocols: bool,
    /// Smallest sides of --protocols, which takes the first alone, and all.
    #[arg(long, value_delimiter = ',', default_value = "256,384,512")]
    test_sides: Vec<usize>,
    /// Width and height of the image of --mode dense and --protocols.
    #[arg(long, default_value = "512,384", value_parser = pair)]
    image: [usize; 2],
    /// Factor on the numbers of filters.
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Outputs of fc6 and fc7.
    #[arg(long, default_value = "4096,4096", value_parser = pair)]
    head: [usize; 2],
    /// Samples; the first, which prepares filters and memory, does not count.
    #[arg(long, default_value_t = 5)]
    samples: usize,
    /// Show every layer and pass beside its own limit.
    #[arg(long)]
    layers: bool,
    /// Take one sample for every line on standard input, and print its milliseconds; for programs that alternate.
    #[arg(long, conflicts_with_all = ["layers", "json"])]
    samples_on_stdin: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        if !(1..=MOST_IMAGES).contains(&self.batch) {
            return Err(UsageError(format!("--batch must be between 1 and {MOST_IMAGES}")).into());
        }
        let device = self.device.open()?;
        let spec = NetworkSpec {
            width: self.width,
            head: self.head,
            crop: self.crop,
            ..NetworkSpec::paper(self.config)
        };
        if self.protocols {
            let costs =
                protocols::costs(&spec, self.image, (&self.test_sides, self.samples.max(1)), &device)?;
            if self.json {
                writeln!(out(), "{}", serde_json::to_string_pretty(&costs)?)?;
                return Ok(());
            }
            return protocols::print(&costs);
        }
        let images = if self.mode == Mode::Dense { 2 } else { self.batch };
        let mut workload = Workload::new(self.mode, spec, images, self.image, &device)?;
        // A GPU has engines to choose and clocks to raise.
        for _ in 0..if device.free_memory_bytes()?.is_some() { 12 } else { 1 } {
            workload.sample()?;
        }
        if self.samples_on_stdin {
            return samples_on_stdin(&mut workload);
        }
        let mut samples_ms =
            (0..self.samples.max(1)).map(|_| timed_ms(&mut workload)).collect::<Result<Vec<_>>>()?;
        samples_ms.sort_by(f64::total_cmp);
        let median_ms = samples_ms[samples_ms.len() / 2];
        let (peak_tensor_bytes, peak_process_bytes) = (device.memory().peak_bytes, peak_memory_bytes());
        let limits = device.measure_limits()?;
        let layers = if self.layers { self.layer_rows(&mut workload)? } else { Vec::new() };
        // Dense evaluation shows one image, twice.
        let per_sample = if self.mode == Mode::Dense { 1 } else { images };
        let figures = Figures {
            version: env!("CARGO_PKG_VERSION"),
            device: device.describe(),
            config: self.config.name(),
            mode: format!("{:?}", self.mode).to_lowercase(),
            batch: images,
            images_per_s: per_sample as f64 / median_ms * 1e3,
            direct_gflops: workload.flops() / median_ms / 1e6,
            median_ms,
            samples_ms,
            limit_gflops: limits.gflops,
            limit_read_gb_per_s: limits.read_gb_per_s,
            planned_tensor_bytes: workload.planned_bytes()?,
            peak_tensor_bytes,
            peak_process_bytes,
            difference_from_direct: workload.difference_from_direct()?,
            layers: layers.iter().map(|row| row.figures(&limits)).collect(),
            engines: engines(&device),
        };
        if self.json {
            writeln!(out(), "{}", serde_json::to_string_pretty(&figures)?)?;
            return Ok(());
        }
        figures.print()
    }

    /// Times of the layers, medians over the samples.
    fn layer_rows(&self, workload: &mut Workload) -> Result<Vec<LayerRow>> {
        let watch = Arc::new(Stopwatch::new(workload.device()));
        workload.watch(Some(watch.clone()));
        let mut samples = Vec::new();
        for _ in 0..self.samples.max(1) {
            workload.sample()?;
            samples.push(watch.take());
        }
        workload.watch(None);
        Ok(report::rows(&samples, workload))
    }
}

fn engines(device: &Device) -> Vec<EngineFigures> {
    let all = device.chosen_engines().into_iter();
    all.map(|(convolution, place, microseconds)| EngineFigures { convolution, place, microseconds }).collect()
}

fn timed_ms(workload: &mut Workload) -> Result<f64> {
    let start = Instant::now();
    workload.sample()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn samples_on_stdin(workload: &mut Workload) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        line?;
        let ms = timed_ms(workload)?;
        writeln!(out(), "{ms:.3}")?;
        out().flush()?;
    }
    // The clock is off; whether it was the right work that was timed is told by the exit code.
    workload.difference_from_direct().map(drop)
}
