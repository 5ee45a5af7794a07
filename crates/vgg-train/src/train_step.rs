//! A training step: forward and backward passes over the micro-batches of a batch, and the weight update.

use std::collections::VecDeque;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use vgg_data::Batch;
use vgg_layers::{DropoutSeed, Network};
use vgg_optim::{Sgd, SgdOptions};
use vgg_tensor::{
    AsyncReadback, Device, GradMode, Parameter, StagedBatch, StepGraph, StepState, Tensor, ops,
};

use crate::gradient_reducer::GradientReducer;
use crate::{Error, Result};

/// Runs the training steps of one network.
///
/// [`TrainStep::start`] submits a step to the device, and [`TrainStep::finish`] waits for its result. On a
/// GPU further steps may start before that: see [`vgg_tensor::Device::pipeline_depth`].
pub struct TrainStep {
    config: StepConfig,
    state: StepState,
    /// Number of the next step, and its learning rate.
    number: u64,
    lr: f64,
    staged: Option<StagedBatch>,
    graph: StepGraph,
    repeated: Repeated,
    eager: bool,
    reducer: Option<GradientReducer>,
    /// Losses and logits of each micro-batch. Replays of the step graph write to the same tensors.
    results: Vec<(Tensor, Tensor)>,
    /// Steps that were started and not finished, and buffers of finished steps for reuse.
    pending: VecDeque<Pending>,
    spare: Vec<Pending>,
}

/// Settings of training steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepConfig {
    /// Factor per channel for pixels after their offset is added.
    pub scale: [f32; 3],
    /// Maximum images per micro-batch.
    pub micro_batch: usize,
    /// Seed of dropout.
    pub seed: u64,
}

/// Inputs of a captured step other than its batch; if they change, the step is captured again.
#[derive(Default)]
struct Repeated {
    /// Number of images on each rank.
    split: Vec<usize>,
    options: Option<SgdOptions>,
    /// Addresses of weights, gradients and velocities, and whether each parameter is trainable. No other
    /// tensor gets one of these addresses while the graph of the captured step exists.
    tensors: Vec<usize>,
}

impl Repeated {
    /// Whether the captured step is of this network and optimiser.
    fn is_of(&self, network: &Network, optimizer: &Sgd) -> bool {
        self.options.as_ref() == Some(optimizer.options())
            && Repeated::tensors(network, optimizer).eq(self.tensors.iter().copied())
    }

    /// Records network and optimiser, after a step has created gradients and velocities.
    fn set(&mut self, network: &Network, optimizer: &Sgd) {
        self.options = Some(*optimizer.options());
        self.tensors.clear();
        self.tensors.extend(Repeated::tensors(network, optimizer));
    }

    fn tensors(network: &Network, optimizer: &Sgd) -> impl Iterator<Item = usize> {
        let of_parameter = |p: &Parameter| {
            [p.weight.value().data_ptr(), p.grad().map_or(0, Tensor::data_ptr), usize::from(p.trainable)]
        };
        let velocities = optimizer.velocities().values().map(Tensor::data_ptr);
        network.parameters().flat_map(of_parameter).chain(velocities)
    }
}

/// A step that was started.
struct Pending {
    readback: AsyncReadback,
    targets: Vec<u32>,
}

/// Result of a step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Sums over its samples.
    pub sums: StepSums,
    /// Whether every loss and gradient was finite; if not, the step changed no weight.
    pub finite: bool,
}

/// Sums over the samples of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct StepSums {
    /// Sum of the losses, without the penalty of weight decay.
    pub loss: f64,
    /// Number of samples with a wrong top-1 prediction, with dropout.
    pub wrong: usize,
    /// Number of samples.
    pub n: usize,
}

impl TrainStep {
    /// Prepares steps on `device`, from step 0 and with a learning rate of 0.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a GPU fails.
    pub fn new(device: &Device, config: StepConfig) -> Result<TrainStep> {
        Ok(TrainStep {
            config,
            state: StepState::new(device)?,
            number: 0,
            lr: 0.0,
            staged: None,
            graph: StepGraph::new(),
            repeated: Repeated::default(),
            eager: false,
            reducer: None,
            results: Vec::new(),
            pending: VecDeque::new(),
            spare: Vec::new(),
        })
    }

    /// Sets the reducer of a process group: each rank then has a part of the group's batch.
    pub(crate) fn reducing(self, reducer: Option<GradientReducer>) -> TrainStep {
        TrainStep { reducer, ..self }
    }

    /// Sets the learning rate of the next steps.
    pub fn set_lr(&mut self, lr: f64) {
        self.lr = lr;
    }

    /// Sets the number of the next step, which keys its dropout.
    pub fn set_number(&mut self, number: u64) {
        self.number = number;
    }

    /// Sets whether a GPU receives every operation of a step separately, to debug or profile layers, instead
    /// of replaying a captured step graph.
    pub fn set_eager(&mut self, eager: bool) {
        self.eager = eager;
        self.graph = StepGraph::new();
    }

    /// Frees the memory that steps reuse. No step may be in progress.
    pub(crate) fn release(&mut self) {
        self.staged = None;
        self.graph = StepGraph::new();
        self.results.clear();
        self.spare.clear();
    }

    /// Runs a step and waits for its result.
    ///
    /// # Errors
    /// As [`TrainStep::start`].
    pub fn step(&mut self, network: &mut Network, optimizer: &mut Sgd, batch: &Batch) -> Result<StepReport> {
        self.start(network, optimizer, batch)?;
        let report = self.finish()?;
        report.ok_or_else(|| Error::Internal("the step has no result".into()))
    }

    /// Starts a step. The gradient is the mean over the batch for every split into micro-batches; if a loss
    /// or gradient is not finite, no weight changes.
    ///
    /// # Errors
    /// The errors of the operations, if the batch does not match the network.
    pub fn start(&mut self, network: &mut Network, optimizer: &mut Sgd, batch: &Batch) -> Result<()> {
        self.start_part(network, optimizer, batch, &[batch.len()], 0)
    }

    /// [`TrainStep::start`] for a distributed batch: rank `i` has `split[i]` images, this one has `batch`.
    pub(crate) fn start_part(
        &mut self,
        network: &mut Network,
        optimizer: &mut Sgd,
        batch: &Batch,
        split: &[usize],
        rank: usize,
    ) -> Result<()> {
        if self.repeated.split != split {
            // Ranks capture together: if the batch size or its split changes, all ranks capture again.
            self.graph = StepGraph::new();
            self.repeated.split.clear();
            self.repeated.split.extend_from_slice(split);
        }
        if batch.is_empty() {
            return self.start_without_images(network, optimizer);
        }
        check_targets(&batch.targets, network.spec().classes)?;
        let staged = self.filled(batch, network.device())?;
        if !self.repeated.is_of(network, optimizer) {
            self.graph = StepGraph::new();
        }
        let number = self.begin()?;
        let work = Work {
            network: &mut *network,
            optimizer: &mut *optimizer,
            state: &self.state,
            staged: &staged,
            config: self.config,
            run: DropoutSeed {
                seed: self.config.seed,
                step: number,
                first_sample: split[..rank].iter().sum(),
            },
            of: split.iter().sum(),
            reducer: self.reducer.as_mut(),
            results: &mut self.results,
        };
        if self.eager {
            work.run()?;
        } else {
            let device = work.network.device().clone();
            self.graph.run(&device, || work.run())?;
        }
        self.staged = Some(staged);
        self.repeated.set(network, optimizer);
        self.read_back(&batch.targets, network.device())
    }

    /// Begins a step on the device, and returns its number.
    fn begin(&mut self) -> Result<u64> {
        let number = self.number;
        self.state.begin(number, self.lr as f32)?;
        self.number += 1;
        Ok(number)
    }

    /// Copies a batch to the staged batch that steps read; another size needs other memory and a new graph.
    fn filled(&mut self, batch: &Batch, device: &Device) -> Result<StagedBatch> {
        let shape = <[usize; 4]>::from(batch.pixels.dim());
        let mut staged = match self.staged.take() {
            Some(staged) if staged.shape().dims() == shape => staged,
            other => {
                drop(other);
                self.graph = StepGraph::new();
                self.results.clear();
                StagedBatch::new(shape, device)?
            }
        };
        staged.fill(batch.pixels.view(), batch.offset.view(), &batch.targets)?;
        Ok(staged)
    }

    /// Starts the asynchronous readback of the step's losses and logits.
    fn read_back(&mut self, targets: &[u32], device: &Device) -> Result<()> {
        let mut pending = self.pending_of(targets, device);
        let losses = self.results.iter().map(|(losses, _)| losses);
        let logits = self.results.iter().map(|(_, logits)| logits);
        pending.readback.start(losses.chain(logits), &self.state)?;
        self.pending.push_back(pending);
        Ok(())
    }

    /// Starts a step for which this rank has no images.
    fn start_without_images(&mut self, network: &mut Network, optimizer: &mut Sgd) -> Result<()> {
        self.begin()?;
        if let Some(reducer) = &mut self.reducer {
            reducer.push_zeros(network)?;
            reducer.finish(network, &self.state)?;
        }
        optimizer.step(network.parameters_mut(), &self.state)?;
        let mut pending = self.pending_of(&[], network.device());
        pending.readback.start(std::iter::empty(), &self.state)?;
        self.pending.push_back(pending);
        Ok(())
    }

    /// The entry for a started step with these targets, in the buffers of an earlier one if possible.
    fn pending_of(&mut self, targets: &[u32], device: &Device) -> Pending {
        let new = || Pending { readback: AsyncReadback::new(device), targets: Vec::new() };
        let mut pending = self.spare.pop().unwrap_or_else(new);
        pending.targets.clear();
        pending.targets.extend_from_slice(targets);
        pending
    }

    /// Waits for the oldest step that was started; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a GPU fails.
    pub fn finish(&mut self) -> Result<Option<StepReport>> {
        let Some(mut pending) = self.pending.pop_front() else { return Ok(None) };
        let (values, finite) = pending.readback.wait()?;
        let n = pending.targets.len();
        let (losses, logits) = values.split_at(n.min(values.len()));
        let loss = losses.iter().map(|l| f64::from(*l)).sum();
        let sums = StepSums { loss, wrong: wrong(logits, &pending.targets), n };
        self.spare.push(pending);
        Ok(Some(StepReport { sums, finite }))
    }
}

/// The operations of a step on the device, which a step graph captures.
struct Work<'a> {
    network: &'a mut Network,
    optimizer: &'a mut Sgd,
    state: &'a StepState,
    staged: &'a StagedBatch,
    config: StepConfig,
    run: DropoutSeed,
    /// Number of images on all ranks.
    of: usize,
    reducer: Option<&'a mut GradientReducer>,
    results: &'a mut Vec<(Tensor, Tensor)>,
}

impl Work<'_> {
    fn run(mut self) -> Result<()> {
        let n = self.staged.shape().first();
        let weight = 1.0 / self.of as f32;
        self.results.clear();
        for first in (0..n).step_by(self.config.micro_batch) {
            let images: Range<usize> = first..(first + self.config.micro_batch).min(n);
            let images_end = images.end;
            let x = ops::normalize_staged(self.staged, images.clone(), self.config.scale)?;
            let (staged, state) = (self.staged, self.state);
            let run = DropoutSeed { first_sample: self.run.first_sample + first, ..self.run };
            let (logits, cache) = self.network.forward_in_step(x, run, state)?;
            let loss = ops::softmax_cross_entropy_staged(&logits, staged, images, weight, state)?;
            self.results.push((loss.per_sample, logits));
            let mode = if first == 0 { GradMode::Overwrite } else { GradMode::Accumulate };
            match &mut self.reducer {
                // In the last micro-batch, this rank's gradients become final.
                Some(reducer) if images_end == n => {
                    let finished = &mut |parameter: &mut Parameter| reducer.push(parameter);
                    self.network.backward_with(cache, loss.grad, mode, self.state, finished)?;
                }
                _ => self.network.backward(cache, loss.grad, mode, self.state)?,
            }
        }
        if let Some(reducer) = &mut self.reducer {
            reducer.finish(self.network, self.state)?;
        }
        Ok(self.optimizer.step(self.network.parameters_mut(), self.state)?)
    }
}

/// Checks that all targets are classes; GPU kernels do not.
fn check_targets(targets: &[u32], classes: usize) -> Result<()> {
    match targets.iter().position(|target| *target as usize >= classes) {
        Some(sample) => Err(Error::Tensor(vgg_tensor::Error::Target {
            op: "step",
            target: targets[sample] as usize,
            sample,
            classes,
        })),
        None => Ok(()),
    }
}

/// Counts wrong top-1 predictions by evaluation's rule: a tie with another class is wrong, and so is NaN.
fn wrong(logits: &[f32], targets: &[u32]) -> usize {
    let right = |row: &[f32], target: usize| {
        row.iter().enumerate().all(|(class, v)| class == target || *v < row[target])
    };
    let classes = logits.len() / targets.len().max(1);
    let rows = logits.chunks_exact(classes.max(1));
    rows.zip(targets).filter(|(row, target)| !right(row, **target as usize)).count()
}
