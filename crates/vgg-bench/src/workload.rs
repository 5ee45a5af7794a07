//! Benchmark workloads: a network with random weights on random pixels.

use std::sync::Arc;

use vgg_data::Batch;
use vgg_layers::{DenseNetwork, Init, Network, NetworkSpec, Stopwatch};
use vgg_optim::{Schedule, Sgd, SgdOptions};
use vgg_tensor::{ConvAlgorithm, Device, DeviceConfig, DeviceKind, Engines, Precision, Tensor, ops};
use vgg_train::{StepConfig, TrainConfig, TrainStep, step_memory_bytes};

use crate::{Result, expect};

/// The workload to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Logits of a batch of crops.
    Infer,
    /// A training step: forward, backward, SGD update with momentum, dropout on.
    Train,
    /// The score map of one image and its horizontal flip (section 3.2).
    Dense,
}

impl Mode {
    /// All modes by name.
    pub const ALL: [(&str, Mode); 3] =
        [("infer", Mode::Infer), ("train", Mode::Train), ("dense", Mode::Dense)];
}

/// A network and its input. One sample is one call of [`Workload::sample`].
pub struct Workload {
    spec: NetworkSpec,
    images: usize,
    /// Height and width of the input.
    size: [usize; 2],
    x: Tensor,
    body: Body,
}

enum Body {
    Infer(Network),
    Dense(DenseNetwork),
    Train(Box<Training>),
}

/// Training steps on one batch.
struct Training {
    network: Network,
    sgd: Sgd,
    step: TrainStep,
    batch: Batch,
    under_way: usize,
}

impl Workload {
    /// Creates a workload on `device`; `image` is the `[width, height]` of the image in dense evaluation.
    ///
    /// # Errors
    /// [`crate::Error`] if the network or its input cannot be created.
    pub fn new(
        mode: Mode,
        spec: NetworkSpec,
        images: usize,
        image: [usize; 2],
        device: &Device,
    ) -> Result<Workload> {
        let network = Network::random(spec.clone(), Init::He, 1, device)?;
        let size = if mode == Mode::Dense { [image[1], image[0]] } else { [spec.crop, spec.crop] };
        let batch = random_batch(images, size, spec.classes);
        let x = ops::normalize(batch.pixels.view(), batch.offset.view(), SCALE, device)?;
        let body = match mode {
            Mode::Infer => Body::Infer(network),
            Mode::Dense => Body::Dense(network.into_fully_convolutional()?),
            Mode::Train => {
                let sgd = Sgd::new(SgdOptions::PAPER)?;
                let config = StepConfig { scale: SCALE, micro_batch: images, seed: 1 };
                let mut step = TrainStep::new(device, config)?;
                // A learning rate so small that random labels do not make training diverge during the
                // measurement.
                step.set_lr(1e-6);
                Body::Train(Box::new(Training { network, sgd, step, batch, under_way: 0 }))
            }
        };
        Ok(Workload { spec, images, size, x, body })
    }

    /// Runs the workload once.
    ///
    /// # Errors
    /// [`crate::Error`] if an operation fails, or a training step is not finite.
    pub fn sample(&mut self) -> Result<()> {
        match &mut self.body {
            Body::Infer(network) => drop(network.infer(&self.x)?),
            Body::Dense(network) => drop(network.score_map(&self.x)?),
            Body::Train(t) => {
                // As in training, several steps are in flight.
                t.step.start(&mut t.network, &mut t.sgd, &t.batch)?;
                t.under_way += 1;
                if t.under_way > self.x.device().pipeline_depth() {
                    t.under_way -= 1;
                    let report = t.step.finish()?;
                    expect(report.is_none_or(|report| report.finite), || "the step is not finite".into())?;
                }
                return Ok(());
            }
        }
        // A GPU runs asynchronously.
        Ok(self.x.device().synchronize()?)
    }

    /// Planned tensor memory of a training step, in bytes; `None` for other modes.
    ///
    /// # Errors
    /// [`crate::Error::Train`] if the step cannot be planned.
    pub fn planned_bytes(&self) -> Result<Option<usize>> {
        let Body::Train(training) = &self.body else { return Ok(None) };
        let config = TrainConfig {
            micro_batch: self.images,
            sgd: SgdOptions::PAPER,
            schedule: Schedule::Constant { lr: 1e-6 },
            max_epochs: 1,
            validate_every: 1,
            seed: 1,
        };
        Ok(Some(step_memory_bytes(&self.spec, None, &config, self.images, training.network.device())?))
    }

    /// Largest difference of the first two images' logits from direct convolution, relative to the largest
    /// logit.
    ///
    /// # Errors
    /// [`crate::Error::WrongResult`] if the difference exceeds rounding.
    pub fn difference_from_direct(&self) -> Result<f64> {
        let x = self.x.images(0..self.images.min(2))?;
        let device = self.x.device();
        let on_gpu = device.free_memory_bytes()?.is_some();
        let config = DeviceConfig {
            auto_gpu: 0,
            kind: DeviceKind::Cpu,
            threads: if on_gpu { 0 } else { device.threads() },
            conv: ConvAlgorithm::Direct,
            precision: Some(Precision::F32),
            engines: Engines::default(),
            cache: None,
            instruction_set: (!on_gpu).then(|| device.instruction_set().to_owned()),
        };
        let direct = Device::open(&config)?;
        let mut reference = Network::random(self.spec.clone(), Init::He, 1, &direct)?;
        if let Body::Train(training) = &self.body {
            training.network.state_dict().iter().try_for_each(|array| reference.load_tensor(array))?;
        }
        let x_direct = Tensor::from_slice(&x.to_vec(), x.shape(), &direct)?;
        let (ours, theirs) = match &self.body {
            Body::Infer(network) => (network.infer(&x)?, reference.infer(&x_direct)?),
            Body::Train(training) => (training.network.infer(&x)?, reference.infer(&x_direct)?),
            Body::Dense(network) => {
                (network.score_map(&x)?, reference.into_fully_convolutional()?.score_map(&x_direct)?)
            }
        };
        let (ours, theirs) = (ours.to_vec(), theirs.to_vec());
        let all_finite = ours.iter().chain(&theirs).all(|v| v.is_finite());
        expect(all_finite && ours.len() == theirs.len(), || "a logit is not finite".into())?;
        let largest = theirs.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let difference = ours.iter().zip(&theirs).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        let difference = f64::from(difference / largest);
        let rounds = device.precision() != Precision::F32;
        expect(difference < if rounds { 0.1 } else { 1e-3 }, || {
            format!("the logits differ from direct convolution by {difference:.1e} of the largest logit")
        })?;
        Ok(difference)
    }

    /// Floating-point operations of a sample, with direct convolutions.
    pub fn flops(&self) -> f64 {
        let layers = self.layers();
        let macs: f64 = layers.iter().map(|(_, macs, _)| macs).sum();
        // Three passes; the first layer needs no grad-input.
        let first = layers.first().map_or(0.0, |(_, macs, _)| *macs);
        2.0 * if matches!(self.body, Body::Train(_)) { 3.0 * macs - first } else { macs }
    }

    /// Name, multiply-accumulates of a pass, and number of parameters of every layer with parameters.
    pub fn layers(&self) -> Vec<(String, f64, usize)> {
        let summary = self.spec.summary().map(|summary| summary.layers).unwrap_or_default();
        let crop = (self.spec.crop * self.spec.crop) as f64;
        let [h, w] = self.size;
        let stride = self.spec.stride();
        let cells = (h / stride).saturating_sub(self.spec.crop / stride - 1)
            * (w / stride).saturating_sub(self.spec.crop / stride - 1);
        let rows = summary.into_iter().filter(|row| row.macs > 0);
        rows.map(|row| {
            // Those of convolutions scale with the image area, those of fully connected layers with the score
            // map.
            let factor = if row.name.starts_with("fc") { cells as f64 } else { (h * w) as f64 / crop };
            (row.name, row.macs as f64 * factor * self.images as f64, row.parameters)
        })
        .collect()
    }

    /// The device of the network.
    pub fn device(&self) -> &Device {
        self.x.device()
    }

    /// Sets a stopwatch that times each layer; on a GPU this disables captured steps.
    pub fn watch(&mut self, watch: Option<Arc<Stopwatch>>) {
        match &mut self.body {
            Body::Infer(network) => network.set_stopwatch(watch),
            Body::Train(training) => {
                training.step.set_eager(watch.is_some());
                training.network.set_stopwatch(watch);
            }
            Body::Dense(network) => network.set_stopwatch(watch),
        }
    }
}

/// Scale that brings mean-subtracted pixels of 0..255 to about unit variance.
const SCALE: [f32; 3] = [1.0 / 73.6; 3];

/// Reproducible noise images.
fn random_batch(images: usize, size: [usize; 2], classes: usize) -> Batch {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut batch = Batch::blank(images, size);
    batch.pixels.map_inplace(|pixel| *pixel = next());
    batch.offset.fill(-127.5);
    batch.targets = (0..images).map(|i| (i % classes) as u32).collect();
    batch
}
