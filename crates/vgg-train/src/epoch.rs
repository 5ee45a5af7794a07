//! The steps of an epoch, pipelined to the device's depth, and the checkpoints between them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vgg_data::Batch;
use vgg_layers::Network;
use vgg_optim::Sgd;
use vgg_tensor::ProcessGroup;

use crate::checkpoint::{Checkpoints, Saver, Snapshot};
use crate::gradient_reducer::StepConsensus;
use crate::norms::layers_of;
use crate::run_state::RunState;
use crate::{Error, Event, Result, StepSums, TrainStep};

/// A step in progress.
struct Started {
    step: u64,
    /// Batch of the epoch, from 1.
    batch: usize,
    samples: Vec<usize>,
    waited: Duration,
}

/// An epoch in progress, or the rest of an epoch that was resumed.
pub(crate) struct Epoch<'a, 'b> {
    pub(crate) network: &'a mut Network,
    pub(crate) optimizer: &'a mut Sgd,
    pub(crate) step: &'a mut TrainStep,
    pub(crate) state: &'a mut RunState,
    pub(crate) events: &'a mut (dyn FnMut(Event) + 'b),
    pub(crate) checkpoints: Option<CheckpointSchedule<'a>>,
    pub(crate) group: Arc<dyn ProcessGroup>,
    /// Number of batches in the whole epoch.
    pub(crate) batches: usize,
    started: VecDeque<Started>,
    /// When this part of the epoch began, and the seconds before it was resumed.
    began: Instant,
    seconds_before: f64,
}

/// When checkpoints are due.
pub(crate) struct CheckpointSchedule<'a> {
    saver: &'a mut Saver,
    policy: Checkpoints,
    last_time: Instant,
    last_step: u64,
}

impl<'a> CheckpointSchedule<'a> {
    /// A schedule that counts from this step and from now.
    pub(crate) fn new(saver: &'a mut Saver, policy: Checkpoints, step: u64) -> CheckpointSchedule<'a> {
        CheckpointSchedule { saver, policy, last_time: Instant::now(), last_step: step }
    }

    /// Whether a checkpoint is due after the next step.
    fn is_due(&mut self, step: u64) -> Result<bool> {
        let policy = self.policy;
        let by_steps = policy.every_steps.is_some_and(|n| step + 1 >= self.last_step + n.max(1));
        let by_time = policy.every.is_some_and(|every| self.last_time.elapsed() >= every);
        // If the disk is slower than `every`, wait until the previous checkpoint is written.
        Ok(by_steps || by_time && !self.saver.is_busy()?)
    }

    fn save(&mut self, snapshot: Snapshot, step: u64) -> Result<()> {
        self.saver.save(snapshot)?;
        self.last_time = Instant::now();
        self.last_step = step;
        Ok(())
    }
}

impl<'a, 'b> Epoch<'a, 'b> {
    /// The epoch that `state` is in.
    pub(crate) fn new(
        network: &'a mut Network,
        optimizer: &'a mut Sgd,
        step: &'a mut TrainStep,
        state: &'a mut RunState,
        events: &'a mut (dyn FnMut(Event) + 'b),
        group: Arc<dyn ProcessGroup>,
        batches: usize,
    ) -> Epoch<'a, 'b> {
        let seconds_before = state.timing.current_epoch;
        Epoch {
            network,
            optimizer,
            step,
            state,
            events,
            checkpoints: None,
            group,
            batches,
            started: VecDeque::new(),
            began: Instant::now(),
            seconds_before,
        }
    }

    /// Runs the step of the next batch; returns `false`, without running it, if any rank was interrupted.
    pub(crate) fn run_step(&mut self, batch: &Batch, waited: Duration, interrupted: bool) -> Result<bool> {
        let save = match &mut self.checkpoints {
            Some(checkpoints) => checkpoints.is_due(self.state.step)?,
            None => false,
        };
        let agreed = StepConsensus::new(&*self.group, batch.len(), interrupted, save)?;
        if agreed.interrupted {
            return Ok(false);
        }
        self.start(batch, &agreed, waited)?;
        self.finish(self.network.device().pipeline_depth())?;
        // The end of the epoch has its own checkpoint.
        if agreed.save && self.state.batches < self.batches {
            self.save()?;
        }
        Ok(true)
    }

    /// Waits for the steps in progress; returns `false` if the epoch is incomplete, after saving its state.
    pub(crate) fn end(mut self) -> Result<bool> {
        self.finish(0)?;
        self.state.timing.current_epoch = self.seconds();
        let whole = self.state.batches == self.batches;
        if !whole {
            self.save()?;
        }
        self.step.release();
        Ok(whole)
    }

    fn start(&mut self, batch: &Batch, agreed: &StepConsensus, waited: Duration) -> Result<()> {
        for bad in &batch.skipped {
            (self.events)(Event::Skipped(bad));
        }
        self.state.own.skipped += batch.skipped.len();
        self.state.batches += 1;
        self.state.timing.current_epoch_waited += waited.as_secs_f64();
        if agreed.images.iter().all(|images| *images == 0) {
            return Ok(());
        }
        let rank = self.group.rank();
        self.step.set_number(self.state.step);
        self.step.start_part(self.network, self.optimizer, batch, &agreed.images, rank)?;
        self.started.push_back(Started {
            step: self.state.step,
            batch: self.state.batches,
            samples: batch.ids.clone(),
            waited,
        });
        self.state.step += 1;
        Ok(())
    }

    /// Waits until at most `ahead` steps are in progress.
    fn finish(&mut self, ahead: usize) -> Result<()> {
        while self.started.len() > ahead {
            let (Some(started), Some(report)) = (self.started.pop_front(), self.step.finish()?) else {
                return Ok(());
            };
            let Started { step, batch, samples, waited } = started;
            if !report.finite {
                // The flag is the same on all ranks.
                let samples = of_all_ranks(&samples, &*self.group)?;
                let epoch = self.state.epochs + 1;
                return Err(Error::NotFinite { epoch, step, samples, layers: layers_of(self.network) });
            }
            let sums = &mut self.state.own.sums;
            sums.add(report.sums);
            let (loss, top1_error) = sums.means();
            let (epoch, steps, images) = (self.state.epochs + 1, self.batches, report.sums.n);
            (self.events)(Event::Step { epoch, step: batch, steps, loss, top1_error, images, waited });
        }
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        self.finish(0)?;
        self.state.timing.current_epoch = self.seconds();
        // A checkpoint contains the progress of all ranks; rank 0 writes it.
        let state = self.state.all_gather(&*self.group)?;
        let Some(checkpoints) = &mut self.checkpoints else { return Ok(()) };
        checkpoints.save(Snapshot::take(self.network, self.optimizer, state), self.state.step)
    }

    /// Seconds of the epoch so far.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.began.elapsed().as_secs_f64()
    }
}

/// All-gathers the samples of a batch that is distributed over ranks.
fn of_all_ranks(samples: &[usize], group: &dyn ProcessGroup) -> Result<Vec<usize>> {
    let own: Vec<u8> = samples.iter().flat_map(|sample| (*sample as u64).to_le_bytes()).collect();
    let all = group.all_gather_bytes(&own)?.concat();
    Ok(all.as_chunks().0.iter().map(|sample| u64::from_le_bytes(*sample) as usize).collect())
}

impl StepSums {
    pub(crate) fn add(&mut self, other: StepSums) {
        self.loss += other.loss;
        self.wrong += other.wrong;
        self.n += other.n;
    }

    pub(crate) fn means(&self) -> (f64, f64) {
        let n = self.n.max(1) as f64;
        (self.loss / n, self.wrong as f64 / n)
    }
}
