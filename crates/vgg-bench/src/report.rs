//! The result of a benchmark as one record.

use serde::Serialize;
use vgg_tensor::Device;

use crate::LayerFigures;

/// The result of a benchmark.
#[derive(Serialize)]
pub struct BenchReport {
    /// Version of this crate.
    pub version: &'static str,
    /// Name of the device.
    pub device: String,
    /// Instruction set of a CPU, or `cuda`.
    pub instruction_set: &'static str,
    /// Precision of activations and matrix products.
    pub precision: &'static str,
    /// ConvNet configuration.
    pub config: &'static str,
    /// Name of the [`crate::Mode`].
    pub mode: String,
    /// Images per sample.
    pub batch: usize,
    /// Throughput of the median sample.
    pub images_per_s: f64,
    /// GFLOP/s, with the operations of direct convolutions; Winograd convolutions perform fewer.
    pub effective_gflops: f64,
    /// Milliseconds of the median sample.
    pub median_ms: f64,
    /// Milliseconds of every sample, ascending.
    pub samples_ms: Vec<f64>,
    /// Measured peak of multiply-adds on the device, in GFLOP/s.
    pub limit_gflops: f64,
    /// Measured peak of memory reads on the device, in GB/s.
    pub limit_read_gb_per_s: f64,
    /// Planned memory of a training step.
    pub planned_tensor_bytes: Option<usize>,
    /// Peak memory of tensors and workspaces.
    pub peak_tensor_bytes: usize,
    /// Peak memory of the process, if the system reports it.
    pub peak_process_bytes: Option<usize>,
    /// Largest difference of logits from direct convolution, relative to the largest logit.
    pub difference_from_direct: f64,
    /// Times per layer, if they were measured.
    pub layers: Vec<LayerFigures>,
    /// Autotuned cuDNN engines of a GPU's convolutions.
    pub engines: Vec<EngineFigures>,
}

/// The autotuned cuDNN engine of one convolution.
#[derive(Serialize)]
pub struct EngineFigures {
    /// Shape and pass of the convolution.
    pub convolution: String,
    /// Index of the engine in cuDNN's list, from 0.
    pub place: usize,
    /// Time of the engine during autotuning.
    pub microseconds: f64,
}

/// The autotuned cuDNN engines of a GPU's convolutions; empty on a CPU.
pub fn engine_figures(device: &Device) -> Vec<EngineFigures> {
    let all = device.cudnn_autotune_results().into_iter();
    all.map(|(convolution, place, microseconds)| EngineFigures { convolution, place, microseconds }).collect()
}
