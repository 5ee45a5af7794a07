//! One step: forward and backward over the micro-batches of a mini-batch, then the update.

use std::borrow::BorrowMut;
use std::collections::VecDeque;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use vgg_data::Batch;
use vgg_layers::{DropoutRun, Network};
use vgg_optim::Sgd;
use vgg_tensor::{Parameter, Readback, Replay, StepState, Tensor, Upload, Write, ops};

use crate::exchange::Exchange;
use crate::{Error, Result};

/// What steps are taken with.
///
/// [`Stepper::start`] hands a step to the device, [`Stepper::finish`] asks for what came of it. On a GPU the next step
/// may be started before: see [`vgg_tensor::Device::steps_ahead`]. Network and optimiser are owned or borrowed.
pub struct Stepper<N, S> {
    network: N,
    sgd: S,
    state: StepState,
    scale: [f32; 3],
    micro_batch: usize,
    seed: u64,
    upload: Option<Upload>,
    replay: Replay,
    eager: bool,
    /// Images of every rank in the step that is repeated.
    split: Vec<usize>,
    exchange: Option<Exchange>,
    /// Losses and logits of each micro-batch, where every step leaves them.
    results: Vec<(Tensor, Tensor)>,
    /// Steps that were started and not finished, and what others have left to be used again.
    pending: VecDeque<Pending>,
    spare: Vec<Pending>,
}

/// A step that was started.
struct Pending {
    readback: Readback,
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

impl<N: BorrowMut<Network>, S: BorrowMut<Sgd>> Stepper<N, S> {
    /// Steps of `network` by `sgd`. Pixels are multiplied by `scale` after their offset was added; at most
    /// `micro_batch` images are in memory at once; `seed` is dropout's.
    ///
    /// # Errors
    /// If a GPU fails.
    pub fn new(network: N, sgd: S, scale: [f32; 3], micro_batch: usize, seed: u64) -> Result<Stepper<N, S>> {
        let state = StepState::new(network.borrow().device())?;
        Ok(Stepper {
            network,
            sgd,
            state,
            scale,
            micro_batch,
            seed,
            upload: None,
            replay: Replay::new(),
            eager: false,
            split: Vec::new(),
            exchange: None,
            results: Vec::new(),
            pending: VecDeque::new(),
            spare: Vec::new(),
        })
    }

    /// The network, whose weights the steps change.
    pub fn network(&self) -> &Network {
        self.network.borrow()
    }

    /// The optimiser.
    pub fn sgd(&self) -> &Sgd {
        self.sgd.borrow()
    }

    /// The network, to measure it; until the next step.
    pub fn network_mut(&mut self) -> &mut Network {
        self.network.borrow_mut()
    }

    /// Sums gradients over a group from now on: steps are then taken of the group's batch, of which each rank has a part.
    pub(crate) fn exchange_by(&mut self, exchange: Option<Exchange>) {
        self.exchange = exchange;
    }

    /// What [`Stepper::exchange_by`] was given, for the next stepper.
    pub(crate) fn into_exchange(self) -> Option<Exchange> {
        self.exchange
    }

    /// Whether a GPU is given every operation of every step one by one, to debug and to measure layers, instead of a
    /// captured step as one.
    pub fn set_eager(&mut self, eager: bool) {
        (self.eager, self.replay) = (eager, Replay::new());
    }

    /// Takes a step and waits for it.
    ///
    /// # Errors
    /// As [`Stepper::start`].
    pub fn step(&mut self, batch: &Batch, step: u64, lr: f64) -> Result<StepReport> {
        self.start(batch, step, lr)?;
        let report = self.finish()?;
        report.ok_or_else(|| Error::Config("the step before was not finished".into()))
    }

    /// Starts a step. The gradient is the mean over the mini-batch, however it is split; if anything is not finite, no
    /// weight changes.
    ///
    /// # Errors
    /// Those of the operations, if the batch does not fit the network.
    pub fn start(&mut self, batch: &Batch, step: u64, lr: f64) -> Result<()> {
        self.start_part(batch, &[batch.len()], 0, step, lr)
    }

    /// As [`Stepper::start`] of a batch of which each rank has so many images, and this one the images of `batch`.
    pub(crate) fn start_part(
        &mut self,
        batch: &Batch,
        split: &[usize],
        rank: usize,
        step: u64,
        lr: f64,
    ) -> Result<()> {
        if self.split != split {
            // Another batch size, or place in it, is other work. Ranks begin anew together: what one of them captures, the others must.
            self.replay = Replay::new();
            self.split.clear();
            self.split.extend_from_slice(split);
        }
        if batch.is_empty() {
            return self.take_part_with_nothing(step, lr);
        }
        let device = self.network().device().clone();
        let [n, h, w, c] = <[usize; 4]>::from(batch.pixels.dim());
        let same_size = self.upload.as_ref().is_some_and(|upload| upload.shape().dims() == [n, h, w, c]);
        if !same_size {
            // Work on other memory.
            (self.upload, self.replay) = (None, Replay::new());
            self.results.clear();
        }
        let upload = match self.upload.take() {
            Some(upload) => upload,
            None => Upload::new([n, h, w, c], &device)?,
        };
        check_targets(&batch.targets, self.network().spec().classes)?;
        let upload = self.upload.insert(upload);
        upload.fill(batch.pixels.view(), batch.offset.view(), &batch.targets)?;
        self.state.begin(step, lr as f32)?;

        let work = Work {
            network: self.network.borrow_mut(),
            sgd: self.sgd.borrow_mut(),
            state: &self.state,
            upload,
            scale: self.scale,
            micro_batch: self.micro_batch,
            run: DropoutRun { seed: self.seed, step, first_sample: split[..rank].iter().sum() },
            of: split.iter().sum(),
            exchange: self.exchange.as_mut(),
            results: &mut self.results,
        };
        match self.eager {
            true => work.run()?,
            false => self.replay.run(&device, &self.state, || work.run())?,
        }

        let mut pending = self.pending_of(&batch.targets);
        let (losses, logits) = (self.results.iter().map(|(l, _)| l), self.results.iter().map(|(_, l)| l));
        pending.readback.start(losses.chain(logits), &self.state)?;
        self.pending.push_back(pending);
        Ok(())
    }

    /// A step for which this rank has no images.
    fn take_part_with_nothing(&mut self, step: u64, lr: f64) -> Result<()> {
        self.state.begin(step, lr as f32)?;
        let network = self.network.borrow_mut();
        if let Some(exchange) = &mut self.exchange {
            exchange.nothing(network)?;
            exchange.finish(network, &self.state)?;
        }
        self.sgd.borrow_mut().step(network.parameters_mut(), &self.state)?;
        let mut pending = self.pending_of(&[]);
        pending.readback.start(std::iter::empty(), &self.state)?;
        self.pending.push_back(pending);
        Ok(())
    }

    /// What waits for a step of these targets, in memory of an earlier one.
    fn pending_of(&mut self, targets: &[u32]) -> Pending {
        let device = self.network().device().clone();
        let new = || Pending { readback: Readback::new(&device), targets: Vec::new() };
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
    sgd: &'a mut Sgd,
    state: &'a StepState,
    upload: &'a Upload,
    scale: [f32; 3],
    micro_batch: usize,
    run: DropoutRun,
    /// Images of all ranks.
    of: usize,
    exchange: Option<&'a mut Exchange>,
    results: &'a mut Vec<(Tensor, Tensor)>,
}

impl Work<'_> {
    fn run(mut self) -> Result<()> {
        let n = self.upload.shape().first();
        let weight = 1.0 / self.of as f32;
        self.results.clear();
        for first in (0..n).step_by(self.micro_batch) {
            let images: Range<usize> = first..(first + self.micro_batch).min(n);
            let images_end = images.end;
            let x = ops::from_upload(self.upload, images.clone(), self.scale)?;
            let (logits, trace) = self
                .network
                .forward(x, DropoutRun { first_sample: self.run.first_sample + first, ..self.run })?;
            let (upload, state) = (self.upload, self.state);
            let loss = ops::softmax_cross_entropy_of_upload(&logits, upload, images, weight, state)?;
            self.results.push((loss.per_sample, logits));
            let write = if first == 0 { Write::Overwrite } else { Write::Accumulate };
            match &mut self.exchange {
                // Now gradients are final, as far as they are this rank's.
                Some(exchange) if images_end == n => {
                    let finished = &mut |parameter: &mut Parameter| exchange.ready(parameter);
                    self.network.backward_with(trace, loss.grad, write, self.state, finished)?;
                }
                _ => self.network.backward(trace, loss.grad, write, self.state)?,
            }
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.finish(self.network, self.state)?;
        }
        Ok(self.sgd.step(self.network.parameters_mut(), self.state)?)
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
