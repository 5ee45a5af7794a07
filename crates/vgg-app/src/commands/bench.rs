//! `vgg bench`: throughput of a network, also relative to the measured peak of the device.

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

use super::options::{DeviceOptions, bf16_cpu, check_weights_fit, choice, pair};
use crate::console::{out, print_table};
use crate::exit::UsageError;

/// Largest batch of one convolution.
const MOST_IMAGES: usize = 256;

#[derive(Args)]
pub(crate) struct Bench {
    /// ConvNet configuration: A, A-LRN, B, B-5x5, C, D or E.
    #[arg(long, default_value = "D")]
    config: Config,
    /// Workload: logits of a batch of crops (infer), a training step with momentum and dropout (train), or
    /// the score map of one image and its flip (dense, section 3.2).
    #[arg(long, value_parser = choice(&Mode::ALL), default_value = "infer")]
    mode: Mode,
    /// Batch size; dense always takes one image and its flip.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Crop side in pixels, a multiple of 32.
    #[arg(long, default_value_t = 224)]
    crop: usize,
    /// Time every test protocol in turn, one image at a time.
    #[arg(long, conflicts_with_all = ["mode", "layers", "samples_on_stdin"])]
    protocols: bool,
    /// Test scales for --protocols: times the first alone, then all together.
    #[arg(long, value_delimiter = ',', default_value = "256,384,512")]
    test_scales: Vec<usize>,
    /// Width and height of the image for --mode dense and --protocols.
    #[arg(long, default_value = "512,384", value_parser = pair)]
    image: [usize; 2],
    /// Multiplies the numbers of filters. Unless it is 1, the results are rounded to multiples of 8, at least
    /// 8.
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Outputs of fc6 and fc7.
    #[arg(long, default_value = "4096,4096", value_parser = pair)]
    head: [usize; 2],
    /// Number of timed samples; the median is reported. Warm-up samples are not counted.
    #[arg(long, default_value_t = 5)]
    samples: usize,
    /// Also print the time of each layer and pass, and its speed relative to the device's limit for direct
    /// convolutions.
    #[arg(long)]
    layers: bool,
    /// Take one sample per line of standard input and print its milliseconds.
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
        if device.free_memory_bytes()?.is_none() {
            check_weights_fit(&spec)?;
        }
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
        // A GPU needs several warm-up samples, for autotuning and for its clocks to rise.
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
        // Dense evaluation shows one image twice, the second time flipped.
        let per_sample = if self.mode == Mode::Dense { 1 } else { images };
        let report = BenchReport {
            version: env!("CARGO_PKG_VERSION"),
            device: device.to_string(),
            instruction_set: device.instruction_set(),
            precision: device.precision().name(),
            config: self.config.name(),
            mode: format!("{:?}", self.mode).to_lowercase(),
            batch: images,
            images_per_s: per_sample as f64 / median_ms * 1e3,
            effective_gflops: workload.flops() / median_ms / 1e6,
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
    // Untimed: the exit code tells whether the timed work gave the right result.
    workload.difference_from_direct()?;
    Ok(())
}

fn print_costs(costs: &[ProtocolCost]) -> Result<()> {
    let head = ["protocol", "Q", "views", "images/s", "time / centre crop", "MACs / centre crop"];
    let rows = costs.iter().map(|c| {
        vec![
            c.protocol.to_owned(),
            vgg_experiment::test_scales_text(&c.test_scales),
            c.views.to_string(),
            format!("{:.2}", c.images_per_s),
            format!("{:.1}", c.time_over_centre),
            format!("{:.1}", c.macs_over_centre),
        ]
    });
    Ok(print_table(&head.map(str::to_owned), &rows.collect::<Vec<_>>())?)
}

fn print(figures: &BenchReport) -> Result<()> {
    let gib = |bytes: usize| format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64);
    let BenchReport { images_per_s, median_ms, effective_gflops, .. } = figures;
    writeln!(
        out(),
        "{images_per_s:.2} images/s, {median_ms:.1} ms each, {effective_gflops:.0} GFLOP/s effective"
    )?;
    let BenchReport { limit_gflops, limit_read_gb_per_s, .. } = figures;
    if figures.precision == "f32" && figures.instruction_set != "cuda" && bf16_cpu().is_ok() {
        writeln!(out(), "this CPU also computes in bf16: compare with --precision bf16")?;
    }
    writeln!(out(), "device peak: {limit_gflops:.0} GFLOP/s, {limit_read_gb_per_s:.1} GB/s memory read")?;
    let planned = figures
        .planned_tensor_bytes
        .map_or(String::new(), |b| format!(", {} estimated by a dry run", gib(b)));
    let process = figures.peak_process_bytes.map_or(String::new(), |b| format!(", {} process", gib(b)));
    writeln!(out(), "peak memory: {} tensors{planned}{process}", gib(figures.peak_tensor_bytes))?;
    let difference = figures.difference_from_direct;
    writeln!(out(), "largest difference from direct convolution: {difference:.1e} of the largest logit")?;
    if figures.layers.is_empty() {
        return Ok(());
    }
    writeln!(out(), "\n{:10} {:10} {:>9} {:>9} {:>15}", "layer", "pass", "ms", "GFLOP/s", "x direct limit")?;
    for row in &figures.layers {
        let (gflops, of_limit) = match row.effective_gflops {
            0.0 => (String::new(), String::new()),
            gflops => (format!("{gflops:.0}"), format!("{:.2}", row.direct_limit_ratio)),
        };
        writeln!(out(), "{:10} {:10} {:>9.2} {gflops:>9} {of_limit:>15}", row.layer, row.pass, row.ms)?;
    }
    Ok(())
}
