//! `vgg bench`: how fast a network runs here, and how near to what the processor can do.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use vgg::system::peak_memory_bytes;
use vgg_bench::{
    BenchReport, LayerFigures, Mode, ProtocolCost, Workload, engine_figures, layer_figures, protocol_costs,
};
use vgg_layers::{Config, NetworkSpec, Stopwatch};
use vgg_tensor::PeakThroughput;

use super::options::{DeviceOptions, choice, pair};
use crate::console::{out, print_table};
use crate::exit::UsageError;

/// Images that a convolution takes at once.
const MOST_IMAGES: usize = 256;

#[derive(Args)]
pub(crate) struct Bench {
    /// A, A-LRN, B, B-5x5, C, D or E.
    #[arg(long, default_value = "D")]
    config: Config,
    /// What is timed: the logits of a batch of crops, a whole training step (forward, backward, update with momentum, dropout on), or
    /// the score map of one image and its mirror image (section 3.2).
    #[arg(long, value_parser = choice(&Mode::ALL), default_value = "infer")]
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
    test_scales: Vec<usize>,
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
    #[arg(long, hide = true, conflicts_with_all = ["layers", "json"])]
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
            ..NetworkSpec::paper(self.config.clone())
        };
        if self.protocols {
            let samples = self.samples.max(1);
            let costs = protocol_costs(&spec, self.image, &self.test_scales, samples, &device)?;
            if self.json {
                writeln!(out(), "{}", serde_json::to_string_pretty(&costs)?)?;
                return Ok(());
            }
            return print_costs(&costs);
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
        let limits = device.measure_peak_throughput()?;
        let layers = if self.layers { self.layer_figures(&mut workload, &limits)? } else { Vec::new() };
        // Dense evaluation shows one image, twice.
        let per_sample = if self.mode == Mode::Dense { 1 } else { images };
        let report = BenchReport {
            version: env!("CARGO_PKG_VERSION"),
            device: device.to_string(),
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
            layers,
            engines: engine_figures(&device),
        };
        if self.json {
            writeln!(out(), "{}", serde_json::to_string_pretty(&report)?)?;
            return Ok(());
        }
        print(&report)
    }

    /// Times of the layers, medians over the samples.
    fn layer_figures(&self, workload: &mut Workload, limits: &PeakThroughput) -> Result<Vec<LayerFigures>> {
        let watch = Arc::new(Stopwatch::new(workload.device()));
        workload.watch(Some(watch.clone()));
        let mut samples = Vec::new();
        for _ in 0..self.samples.max(1) {
            workload.sample()?;
            samples.push(watch.take());
        }
        workload.watch(None);
        Ok(layer_figures(&samples, workload, limits))
    }
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
    workload.difference_from_direct()?;
    Ok(())
}

/// Costs of protocols as a table.
fn print_costs(costs: &[ProtocolCost]) -> Result<()> {
    let head = ["protocol", "Q", "views", "images/s", "times the central crop", "its arithmetic, times"];
    let rows = costs.iter().map(|c| {
        vec![
            c.protocol.to_owned(),
            vgg_experiment::test_scales_text(&c.test_scales),
            c.views.to_string(),
            format!("{:.2}", c.images_per_s),
            format!("{:.1}", c.times_centre),
            format!("{:.1}", c.arithmetic_times_centre),
        ]
    });
    Ok(print_table(&head.map(str::to_owned), &rows.collect::<Vec<_>>())?)
}

fn print(figures: &BenchReport) -> Result<()> {
    let gib = |bytes: usize| format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64);
    let BenchReport { images_per_s, median_ms, direct_gflops, .. } = figures;
    writeln!(
        out(),
        "{images_per_s:.2} images/s, {median_ms:.1} ms a sample, {direct_gflops:.0} GFLOP/s as direct sums"
    )?;
    let BenchReport { limit_gflops, limit_read_gb_per_s, .. } = figures;
    writeln!(
        out(),
        "limits: {limit_gflops:.0} GFLOP/s multiply-add, {limit_read_gb_per_s:.1} GB/s reading memory"
    )?;
    let planned = figures.planned_tensor_bytes.map_or(String::new(), |b| format!(", {} planned", gib(b)));
    let process =
        figures.peak_process_bytes.map_or(String::new(), |b| format!("; {} of the process", gib(b)));
    writeln!(out(), "peak memory: {} of tensors{planned}{process}", gib(figures.peak_tensor_bytes))?;
    let difference = figures.difference_from_direct;
    writeln!(out(), "largest difference from direct sums: {difference:.1e} of the largest logit")?;
    if figures.layers.is_empty() {
        return Ok(());
    }
    writeln!(out(), "\n{:10} {:10} {:>9} {:>9} {:>15}", "layer", "pass", "ms", "GFLOP/s", "of direct limit")?;
    for row in &figures.layers {
        let (gflops, of_limit) = match row.direct_gflops {
            0.0 => (String::new(), String::new()),
            gflops => (format!("{gflops:.0}"), format!("{:.2}", row.of_direct_limit)),
        };
        writeln!(out(), "{:10} {:10} {:>9.2} {gflops:>9} {of_limit:>15}", row.layer, row.pass, row.ms)?;
    }
    Ok(())
}
