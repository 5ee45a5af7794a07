//! How long the layers of a network take, for benchmarks.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use vgg_tensor::Device;

/// A pass through a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// From input to output.
    Forward,
    /// From the output's gradient to the input's.
    GradInput,
    /// From the output's gradient to the weights'.
    GradWeight,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTime {
    /// The layer; a pooling that is done within a convolution counts there.
    pub layer: String,
    /// Which pass.
    pub pass: Pass,
    /// Wall time.
    pub seconds: f64,
}

/// Collects the times of a network's layers; see [`crate::Network::set_stopwatch`].
#[derive(Debug)]
pub struct Stopwatch {
    device: Device,
    times: Mutex<Vec<LayerTime>>,
}

impl Stopwatch {
    /// For a network on this device, which it makes wait for every layer.
    pub fn new(device: &Device) -> Stopwatch {
        Stopwatch { device: device.clone(), times: Mutex::default() }
    }

    /// What was measured since the last call, in the order of time.
    pub fn take(&self) -> Vec<LayerTime> {
        std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `f` and notes its time.
    pub(crate) fn time<T>(watch: Option<&Stopwatch>, layer: &str, pass: Pass, f: impl FnOnce() -> T) -> T {
        let Some(watch) = watch else { return f() };
        // A failure to wait shows in the layer's own result, or in the next one's.
        let _ = watch.device.synchronize();
        let start = Instant::now();
        let result = f();
        let _ = watch.device.synchronize();
        let time = LayerTime { layer: layer.to_owned(), pass, seconds: start.elapsed().as_secs_f64() };
        watch.times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
        result
    }
}
