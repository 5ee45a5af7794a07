//! One step: forward and backward over the micro-batches of a mini-batch, then the update.

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

/// Takes training steps, one after another, of one network.
///
/// [`TrainStep::start`] hands a step to the device, [`TrainStep::finish`] asks for its result. On a GPU the next step may be started
/// before: see [`vgg_tensor::Device::pipeline_depth`].
pub struct TrainStep {
    config: StepConfig,
    state: StepState,
    /// Number of the step that comes, and its learning rate.
    number: u64,
    lr: f64,
    staged: Option<StagedBatch>,
    graph: StepGraph,
    repeated: Repeated,
    eager: bool,
    reducer: Option<GradientReducer>,
    /// Losses and logits of each micro-batch, where every step leaves them.
    results: Vec<(Tensor, Tensor)>,
    /// Steps that were started and not finished, and what others have left to be used again.
    pending: VecDeque<Pending>,
    spare: Vec<Pending>,
}

/// How steps are taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepConfig {
    /// What pixels are multiplied by after their offset was added.
    pub scale: [f32; 3],
    /// Images in memory at once, at most.
    pub micro_batch: usize,
    /// Seed of dropout.
    pub seed: u64,
}

/// What a captured step depends on besides its batch: with anything else it is captured anew.
#[derive(Default)]
struct Repeated {
    /// Images of every rank.
    split: Vec<usize>,
    options: Option<SgdOptions>,
    /// Addresses of weights, gradients and velocities, and whether each weight is trained. No other tensor gets one of these
    /// addresses while the graph of the captured step exists.
    tensors: Vec<usize>,
}

impl Repeated {
    /// Whether it is a step of this network and optimiser.
    fn is_of(&self, network: &Network, optimizer: &Sgd) -> bool {
        self.options.as_ref() == Some(optimizer.options())
            && Repeated::tensors(network, optimizer).eq(self.tensors.iter().copied())
    }

    /// Remembers network and optimiser, once a step has made gradients and velocities.
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

/// What came of a step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Sums over its samples.
    pub sums: StepSums,
    /// Whether every loss and gradient was finite; if not, no weight has changed.
    pub finite: bool,
}

/// Sums over the samples of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct StepSums {
    /// Sum of the losses, without the penalty of weight decay.
    pub loss: f64,
    /// Samples whose first answer was wrong, with dropout on.
    pub wrong: usize,
    /// Samples.
    pub n: usize,
}

impl TrainStep {
    /// Steps of networks on `device`, from step 0 on, at a learning rate of 0.
    ///
    /// # Errors
    /// If a GPU fails.
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

    /// Takes part in a group: steps are then taken of the group's batch, of which each rank has a part.
    pub(crate) fn reducing(self, reducer: Option<GradientReducer>) -> TrainStep {
        TrainStep { reducer, ..self }
    }

    /// Sets the learning rate of the steps that come.
    pub fn set_lr(&mut self, lr: f64) {
        self.lr = lr;
    }

    /// Sets the number of the step that comes, which keys its dropout.
    pub fn set_number(&mut self, number: u64) {
        self.number = number;
    }

    /// Whether a GPU is given every operation of every step one by one, to debug and to measure layers, instead of a
    /// captured step as one.
    pub fn set_eager(&mut self, eager: bool) {
        self.eager = eager;
        self.graph = StepGraph::new();
    }

    /// Gives back the memory that steps use again, before something else needs it. No step may be under way.
    pub(crate) fn release(&mut self) {
        self.staged = None;
        self.graph = StepGraph::new();
        self.results.clear();
        self.spare.clear();
    }

    /// Takes a step and waits for it.
    ///
    /// # Errors
    /// As [`TrainStep::start`].
    pub fn step(&mut self, network: &mut Network, optimizer: &mut Sgd, batch: &Batch) -> Result<StepReport> {
        self.start(network, optimizer, batch)?;
        let report = self.finish()?;
        report.ok_or_else(|| Error::Config("the step before was not finished".into()))
    }

    /// Starts a step. The gradient is the mean over the mini-batch, however it is split; if anything is not finite, no
    /// weight changes.
    ///
    /// # Errors
    /// Those of the operations, if the batch does not fit the network.
    pub fn start(&mut self, network: &mut Network, optimizer: &mut Sgd, batch: &Batch) -> Result<()> {
        self.start_part(network, optimizer, batch, &[batch.len()], 0)
    }

    /// As [`TrainStep::start`] of a batch of which each rank has so many images, and this one the images of `batch`.
    pub(crate) fn start_part(
        &mut self,
        network: &mut Network,
        optimizer: &mut Sgd,
        batch: &Batch,
        split: &[usize],
        rank: usize,
    ) -> Result<()> {
        if self.repeated.split != split {
            // Ranks capture together: with another batch size, or place in it, all of them do so anew.
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

    /// The memory that steps read their batch from, with this batch; for one of another size it is other memory, and other work.
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

    /// Asks for losses and logits of the step that was started.
    fn read_back(&mut self, targets: &[u32], device: &Device) -> Result<()> {
        let mut pending = self.pending_of(targets, device);
        let losses = self.results.iter().map(|(losses, _)| losses);
        let logits = self.results.iter().map(|(_, logits)| logits);
        pending.readback.start(losses.chain(logits), &self.state)?;
        self.pending.push_back(pending);
        Ok(())
    }

    /// A step for which this rank has no images.
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

    /// What waits for a step of these targets, in memory of an earlier one.
    fn pending_of(&mut self, targets: &[u32], device: &Device) -> Pending {
        let new = || Pending { readback: AsyncReadback::new(device), targets: Vec::new() };
        let mut pending = self.spare.pop().unwrap_or_else(new);
        pending.targets.clear();
        pending.targets.extend_from_slice(targets);
        pending
    }

    /// Waits for the oldest step that was started; nothing if there is none.
    ///
    /// # Errors
    /// If a GPU fails.
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

/// What a step does on the device, the same each time.
struct Work<'a> {
    network: &'a mut Network,
    optimizer: &'a mut Sgd,
    state: &'a StepState,
    staged: &'a StagedBatch,
    config: StepConfig,
    run: DropoutSeed,
    /// Images of all ranks.
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
            let (logits, trace) = self.network.forward_in_step(x, run, state)?;
            let loss = ops::softmax_cross_entropy_staged(&logits, staged, images, weight, state)?;
            self.results.push((loss.per_sample, logits));
            let mode = if first == 0 { GradMode::Overwrite } else { GradMode::Accumulate };
            match &mut self.reducer {
                // Now gradients are final, as far as they are this rank's.
                Some(reducer) if images_end == n => {
                    let finished = &mut |parameter: &mut Parameter| reducer.push(parameter);
                    self.network.backward_with(trace, loss.grad, mode, self.state, finished)?;
                }
                _ => self.network.backward(trace, loss.grad, mode, self.state)?,
            }
        }
        if let Some(reducer) = &mut self.reducer {
            reducer.finish(self.network, self.state)?;
        }
        Ok(self.optimizer.step(self.network.parameters_mut(), self.state)?)
    }
}

/// On a GPU nobody else would notice.
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

/// Counts wrong first answers as evaluation does: a tie with another class is wrong, and so is what is no number.
fn wrong(logits: &[f32], targets: &[u32]) -> usize {
    let right = |row: &[f32], target: usize| {
        row.iter().enumerate().all(|(class, v)| class == target || *v < row[target])
    };
    let classes = logits.len() / targets.len().max(1);
    let rows = logits.chunks_exact(classes.max(1));
    rows.zip(targets).filter(|(row, target)| !right(row, **target as usize)).count()
}
