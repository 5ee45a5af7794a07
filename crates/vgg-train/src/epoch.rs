//! The steps of an epoch: as many under way at once as the device wants.

use std::collections::VecDeque;
use std::time::Duration;

use vgg_data::Batch;
use vgg_layers::Network;
use vgg_optim::Sgd;

use crate::{Error, Event, Result, StepSums, Stepper, Training};

/// What an epoch has come to so far.
#[derive(Default)]
pub(crate) struct SoFar {
    pub(crate) sums: StepSums,
    /// Images that were left out.
    pub(crate) skipped: usize,
    /// Batches done.
    pub(crate) batches: usize,
    /// Steps of the run done; fewer than batches if one had no image left.
    pub(crate) step: u64,
    pub(crate) waited: Duration,
}

/// A step under way.
struct Started {
    step: u64,
    /// Its place in the epoch, from 1.
    batch: usize,
    samples: Vec<usize>,
    waited: Duration,
}

/// The steps of epoch `number`, counted from 0, until it is over or interrupted.
pub(crate) fn take_steps(
    t: &mut Training,
    sgd: &mut Sgd,
    number: usize,
    batches: usize,
    lr: f64,
    so_far: &mut SoFar,
) -> Result<()> {
    let (_, scale) = t.metadata.offset_and_scale();
    let ahead = t.network.device().steps_ahead();
    let mut stepper = Stepper::new(&mut *t.network, sgd, scale, t.config.micro_batch, t.config.seed)?;
    let (events, interrupted) = (&mut *t.events, t.interrupted);
    let mut started = VecDeque::new();
    t.loader.for_each(number as u64, 0, |batch: &Batch, waited| -> Result<bool> {
        if interrupted() {
            return Ok(false);
        }
        batch.skipped.iter().for_each(|bad| events(Event::Skipped(bad)));
        so_far.skipped += batch.skipped.len();
        so_far.batches += 1;
        so_far.waited += waited;
        if batch.is_empty() {
            return Ok(true);
        }
        stepper.start(batch, so_far.step, lr)?;
        started.push_back(Started {
            step: so_far.step,
            batch: so_far.batches,
            samples: batch.ids.clone(),
            waited,
        });
        so_far.step += 1;
        while started.len() > ahead {
            finish_oldest(&mut stepper, &mut started, number + 1, batches, so_far, events)?;
        }
        Ok(true)
    })?;
    while !started.is_empty() {
        finish_oldest(&mut stepper, &mut started, number + 1, batches, so_far, events)?;
    }
    Ok(())
}

fn finish_oldest(
    stepper: &mut Stepper<&mut Network, &mut Sgd>,
    started: &mut VecDeque<Started>,
    epoch: usize,
    steps: usize,
    so_far: &mut SoFar,
    events: &mut dyn FnMut(Event),
) -> Result<()> {
    let (Some(Started { step, batch, samples, waited }), Some(report)) =
        (started.pop_front(), stepper.finish()?)
    else {
        return Ok(());
    };
    if !report.finite {
        return Err(Error::NotFinite { epoch, step, samples });
    }
    so_far.sums.add(report.sums);
    let (loss, top1_error) = so_far.sums.means();
    events(Event::Step { epoch, step: batch, steps, loss, top1_error, images: report.sums.n, waited });
    Ok(())
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
