//! Timing of a network's layers, for benchmarks.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use vgg_tensor::Device;

/// A pass through a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Forward pass.
    Forward,
    /// Grad-input: gradient of the input from the gradient of the output.
    GradInput,
    /// Grad-weight: gradient of the weights from the gradient of the output.
    GradWeight,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTime {
    /// Name of the layer. The time of pooling that is fused into a convolution counts for the convolution.
    pub layer: String,
    /// The pass.
    pub pass: Pass,
    /// Wall-clock time in seconds.
    pub seconds: f64,
}

/// Collects the times of a network's layers; see [`crate::Network::set_stopwatch`].
#[derive(Debug)]
pub struct Stopwatch {
    device: Device,
    times: Mutex<Vec<LayerTime>>,
}

impl Stopwatch {
    /// Creates a stopwatch for a network on `device`. It synchronises the device before and after every
    /// layer.
    pub fn new(device: &Device) -> Stopwatch {
        Stopwatch { device: device.clone(), times: Mutex::default() }
    }

    /// Returns the measurements since the last call, in chronological order.
    pub fn take(&self) -> Vec<LayerTime> {
        std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `f` and records its time.
    pub(crate) fn time<T>(watch: Option<&Stopwatch>, layer: &str, pass: Pass, f: impl FnOnce() -> T) -> T {
        let Some(watch) = watch else { return f() };
        // An error of the device also appears in the result of this layer or of the next one.
        let _ = watch.device.synchronize();
        let start = Instant::now();
        let result = f();
        let _ = watch.device.synchronize();
        let time = LayerTime { layer: layer.to_owned(), pass, seconds: start.elapsed().as_secs_f64() };
        watch.times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
        result
    }
}
