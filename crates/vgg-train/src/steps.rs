//! The steps of an epoch: as many under way at once as the device wants, and checkpoints between them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vgg_data::Batch;
use vgg_layers::Network;
use vgg_optim::Sgd;
use vgg_tensor::RankGroup;

use crate::checkpoint::{Checkpoints, RunState, Saver, Snapshot};
use crate::exchange::{Agreed, Exchange};
use crate::norms::layers_of;
use crate::{Error, Event, Result, StepSums, Stepper, Training};

/// A step under way.
struct Started {
    step: u64,
    /// Its place in the epoch, from 1.
    batch: usize,
    samples: Vec<usize>,
    waited: Duration,
}

/// An epoch, or what is left of it.
struct Epoch<'a, 'b> {
    /// From 1.
    number: usize,
    batches: usize,
    stepper: Stepper<&'a mut Network, &'a mut Sgd>,
    started: VecDeque<Started>,
    state: &'a mut RunState,
    events: &'a mut (dyn FnMut(Event) + 'b),
    /// When this part of it began, and what it had taken before.
    since: (Instant, f64),
    due: Option<Due<'a>>,
    group: Arc<dyn RankGroup>,
}

/// When a checkpoint is due.
struct Due<'a> {
    saver: &'a mut Saver,
    policy: Checkpoints,
    last: (Instant, u64),
}

/// The steps that are left of the epoch; `false` if it was interrupted. Then, what was done of it has been saved.
pub(crate) fn take_steps(
    t: &mut Training,
    (sgd, state): (&mut Sgd, &mut RunState),
    exchange: &mut Option<Exchange>,
    saver: Option<&mut Saver>,
    lr: f64,
) -> Result<bool> {
    let batches = t.loader.plan(state.epochs as u64).batches();
    let (_, scale) = t.metadata.offset_and_scale();
    let ahead = t.network.device().steps_ahead();
    let (epochs, first, interrupted) = (state.epochs, state.part.batches, t.interrupted);
    let group = t.group.clone();
    let due = saver.map(|saver| Due { saver, policy: t.checkpoints, last: (Instant::now(), state.step) });
    let mut epoch = Epoch {
        number: epochs + 1,
        batches,
        stepper: Stepper::new(&mut *t.network, sgd, scale, t.config.micro_batch, t.config.seed)?,
        started: VecDeque::new(),
        since: (Instant::now(), state.timing.part),
        state,
        events: &mut *t.events,
        due,
        group: group.clone(),
    };
    epoch.stepper.exchange_by(exchange.take());
    t.loader.for_each(epochs as u64, first, |batch: &Batch, waited| -> Result<bool> {
        let agreed = Agreed::new(&*group, batch.len(), interrupted(), epoch.is_due()?)?;
        if agreed.interrupted {
            return Ok(false);
        }
        epoch.start(batch, &agreed, waited, lr)?;
        epoch.finish(ahead)?;
        // The end of the epoch has a checkpoint of its own.
        if agreed.save && epoch.state.part.batches < batches {
            epoch.save()?;
        }
        Ok(true)
    })?;
    epoch.finish(0)?;
    epoch.state.timing.part = epoch.seconds();
    let whole = epoch.state.part.batches == batches;
    if !whole {
        epoch.save()?;
    }
    *exchange = epoch.stepper.into_exchange();
    Ok(whole)
}

impl Epoch<'_, '_> {
    fn start(&mut self, batch: &Batch, agreed: &Agreed, waited: Duration, lr: f64) -> Result<()> {
        for bad in &batch.skipped {
            (self.events)(Event::Skipped(bad));
        }
        let part = &mut self.state.part;
        part.own().skipped += batch.skipped.len();
        part.batches += 1;
        self.state.timing.part_waited += waited.as_secs_f64();
        if agreed.images.iter().all(|images| *images == 0) {
            return Ok(());
        }
        let (step, samples) = (self.state.step, batch.ids.clone());
        self.stepper.start_part(batch, &agreed.images, self.group.rank(), step, lr)?;
        self.started.push_back(Started { step, batch: part.batches, samples, waited });
        self.state.step += 1;
        Ok(())
    }

    /// Waits until at most `ahead` steps are under way.
    fn finish(&mut self, ahead: usize) -> Result<()> {
        while self.started.len() > ahead {
            let (Some(started), Some(report)) = (self.started.pop_front(), self.stepper.finish()?) else {
                return Ok(());
            };
            let Started { step, batch, samples, waited } = started;
            if !report.finite {
                // It was so on all ranks.
                let samples = of_all_ranks(&samples, &*self.group)?;
                let (epoch, layers) = (self.number, layers_of(self.stepper.network()));
                return Err(Error::NotFinite { epoch, step, samples, layers });
            }
            let sums = &mut self.state.part.own().sums;
            sums.add(report.sums);
            let (loss, top1_error) = sums.means();
            let (epoch, steps, images) = (self.number, self.batches, report.sums.n);
            (self.events)(Event::Step { epoch, step: batch, steps, loss, top1_error, images, waited });
        }
        Ok(())
    }

    /// Whether a checkpoint is due after the step that comes.
    fn is_due(&mut self) -> Result<bool> {
        let Some(due) = &mut self.due else { return Ok(false) };
        let (at, step) = due.last;
        let by_steps = due.policy.every_steps.is_some_and(|n| self.state.step + 1 >= step + n.max(1));
        let by_time = due.policy.every.is_some_and(|every| at.elapsed() >= every);
        // A disk that is slower than that gets what it can take.
        Ok(by_steps || by_time && !due.saver.is_busy()?)
    }

    fn save(&mut self) -> Result<()> {
        self.finish(0)?;
        self.state.timing.part = self.seconds();
        // All ranks have a part in what is saved, and the first writes it.
        let part = self.state.part.of_all_ranks(&*self.group)?;
        let Some(due) = &mut self.due else { return Ok(()) };
        let state = RunState { part, ..self.state.clone() };
        let snapshot = Snapshot::take(self.stepper.network(), self.stepper.sgd(), state);
        due.saver.save(snapshot)?;
        due.last = (Instant::now(), self.state.step);
        Ok(())
    }

    /// What the epoch has taken so far.
    fn seconds(&self) -> f64 {
        self.since.1 + self.since.0.elapsed().as_secs_f64()
    }
}

/// The samples of a batch of which each rank has some.
fn of_all_ranks(samples: &[usize], group: &dyn RankGroup) -> Result<Vec<usize>> {
    let own: Vec<u8> = samples.iter().flat_map(|sample| (*sample as u64).to_le_bytes()).collect();
    let all = group.gather_bytes(&own)?.concat();
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
