//! Times of the layers, compared with the device's peak throughput.

use serde::Serialize;
use vgg_layers::{LayerTime, Pass};
use vgg_tensor::PeakThroughput;

use crate::Workload;

/// One pass of one layer.
#[derive(Serialize)]
pub struct LayerFigures {
    /// Name of the layer.
    pub layer: String,
    /// `forward`, `grad-input` or `grad-weight`.
    pub pass: &'static str,
    /// Milliseconds: the median over the samples.
    pub ms: f64,
    /// GFLOP/s, with the operations of a direct convolution.
    pub effective_gflops: f64,
    /// The longer of the arithmetic of a direct convolution at peak throughput and one read of the weights (4
    /// bytes each), over the measured time. It can exceed 1 for fully connected layers in bf16, because their
    /// weights take 2 bytes.
    pub direct_limit_ratio: f64,
}

fn pass_name(pass: Pass) -> &'static str {
    match pass {
        Pass::Forward => "forward",
        Pass::GradInput => "grad-input",
        Pass::GradWeight => "grad-weight",
    }
}

/// The layers in the order in which they ran, each with the median of its times over the samples. The times
/// of a layer that runs several times in a sample, on some of the images each, are added up.
pub fn layer_figures(
    samples: &[Vec<LayerTime>],
    workload: &Workload,
    limits: &PeakThroughput,
) -> Vec<LayerFigures> {
    let layers = workload.layers();
    let mut keys: Vec<(String, Pass)> = Vec::new();
    for time in samples.iter().flatten() {
        if !keys.iter().any(|(layer, pass)| *layer == time.layer && *pass == time.pass) {
            keys.push((time.layer.clone(), time.pass));
        }
    }
    let figures = |(layer, pass): (String, Pass)| {
        let of_sample = |sample: &Vec<LayerTime>| {
            let times = sample.iter().filter(|t| t.layer == layer && t.pass == pass);
            times.map(|t| t.seconds * 1e3).sum::<f64>()
        };
        let mut ms: Vec<f64> = samples.iter().map(of_sample).collect();
        ms.sort_by(f64::total_cmp);
        let ms = ms[ms.len() / 2];
        let known = layers.iter().find(|l| l.0 == layer);
        let (macs, parameters) = known.map_or((0.0, 0), |(_, macs, parameters)| (*macs, *parameters));
        let flops = 2.0 * macs;
        // The weights are read at least once.
        let read_bytes = 4.0 * parameters as f64;
        let limit_ms = (flops / limits.gflops).max(read_bytes / limits.read_gb_per_s) / 1e6;
        LayerFigures {
            pass: pass_name(pass),
            ms,
            effective_gflops: flops / ms / 1e6,
            direct_limit_ratio: limit_ms / ms,
            layer,
        }
    };
    keys.into_iter().map(figures).collect()
}
