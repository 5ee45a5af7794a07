//! What a benchmark found, as one record.

use serde::Serialize;
use vgg_tensor::Device;

use crate::LayerFigures;

/// What a benchmark found.
#[derive(Serialize)]
pub struct BenchReport {
    /// Of this crate.
    pub version: &'static str,
    /// Where it ran.
    pub device: String,
    /// Configuration of the network.
    pub config: &'static str,
    /// What was timed.
    pub mode: String,
    /// Images of a sample.
    pub batch: usize,
    /// By the median sample.
    pub images_per_s: f64,
    /// As if every sum were computed directly, which Winograd's convolution does not.
    pub direct_gflops: f64,
    /// Milliseconds of a sample.
    pub median_ms: f64,
    /// Milliseconds of every sample, ascending.
    pub samples_ms: Vec<f64>,
    /// GFLOP/s of multiply-adds that the device can do.
    pub limit_gflops: f64,
    /// GB/s at which the device reads memory.
    pub limit_read_gb_per_s: f64,
    /// What a training step was planned to take.
    pub planned_tensor_bytes: Option<usize>,
    /// The most that tensors and workspaces took.
    pub peak_tensor_bytes: usize,
    /// The most that the process took, if the system says.
    pub peak_process_bytes: Option<usize>,
    /// Of the largest logit.
    pub difference_from_direct: f64,
    /// Layer by layer, if they were timed.
    pub layers: Vec<LayerFigures>,
    /// What a GPU's convolutions were given.
    pub engines: Vec<EngineFigures>,
}

/// The engine of a convolution on a GPU.
#[derive(Serialize)]
pub struct EngineFigures {
    /// Shape and pass.
    pub convolution: String,
    /// In cuDNN's list, from 0.
    pub place: usize,
    /// When it was timed against the others.
    pub microseconds: f64,
}

/// The engines that a GPU's convolutions were given; none on a CPU.
pub fn engine_figures(device: &Device) -> Vec<EngineFigures> {
    let all = device.cudnn_autotune_results().into_iter();
    all.map(|(convolution, place, microseconds)| EngineFigures { convolution, place, microseconds }).collect()
}
