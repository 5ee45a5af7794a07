//! An epoch: its steps, then validation, and what is written down of both.

use std::mem::take;

use vgg_optim::Sgd;

use crate::checkpoint::{EpochPart, RunState, Saver, Snapshot};
use crate::exchange::Exchange;
use crate::steps::take_steps;
use crate::{EpochMetrics, EpochTiming, Error, Event, Result, Training, Validation};

/// A loss of so many times that of chance is no learning any more.
const DIVERGED: f64 = 2.0;

/// One epoch, or what is left of it; `false` if it was interrupted. Then, what was done of it has been saved.
pub(crate) fn take_epoch(
    t: &mut Training,
    (sgd, state): (&mut Sgd, &mut RunState),
    exchange: &mut Option<Exchange>,
    mut saver: Option<&mut Saver>,
) -> Result<bool> {
    let lr = t.config.schedule.lr(&state.schedule, state.epochs, t.config.max_epochs);
    if !take_steps(t, (sgd, state), exchange, saver.as_deref_mut(), lr)? {
        return Ok(false);
    }
    let part = state.part.of_all_ranks(&*t.group)?;
    if part.total().sums.n == 0 {
        return Err(Error::Config("every image of the epoch was left out".into()));
    }
    let epoch = state.epochs + 1;
    let due = epoch.is_multiple_of(t.config.validate_every) || epoch == t.config.max_epochs;
    let validation = if due { (t.validate)(t.network).map_err(Error::Validation)? } else { None };
    if due && validation.is_none() {
        // All steps are done: it goes on with the validation.
        if let Some(saver) = saver {
            saver.save(Snapshot::take(t.network, sgd, RunState { part, ..state.clone() }))?;
        }
        return Ok(false);
    }
    finish(t, state, &part, validation, lr);
    Ok(true)
}

/// Tells the schedule, and writes the epoch down.
fn finish(t: &mut Training, state: &mut RunState, part: &EpochPart, validation: Option<Validation>, lr: f64) {
    let (config, total) = (t.config, part.total());
    state.part = EpochPart::default();
    state.epochs += 1;
    if let Some(v) = validation {
        let since = (state.epochs - 1) % config.validate_every + 1;
        config.schedule.after_validation(&mut state.schedule, v.top1_error, since);
    }
    let (seconds, waited) = (take(&mut state.timing.part), take(&mut state.timing.part_waited));
    let timing = EpochTiming {
        epoch: state.epochs,
        seconds,
        images_per_s: total.sums.n as f64 / seconds,
        waiting: waited / seconds,
    };
    let (train_loss, train_top1_error) = total.sums.means();
    let metrics = EpochMetrics {
        epoch: state.epochs,
        step: state.step,
        lr,
        train_loss,
        train_top1_error,
        val_top1_error: validation.map(|v| v.top1_error),
        val_top5_error: validation.map(|v| v.top5_error),
        val_loss: validation.map(|v| v.loss),
        skipped: total.skipped,
    };
    (t.events)(Event::Epoch { metrics: &metrics, timing });
    warn(t, &metrics);
    state.metrics.push(metrics);
    state.timing.epochs.push(timing);
}

/// Says aloud that it does not learn.
fn warn(t: &mut Training, metrics: &EpochMetrics) {
    let chance = (t.network.spec().classes as f64).ln();
    // The training loss is a mean over the epoch, with the wild first steps in it; validation sees its end.
    let loss = metrics.val_loss.unwrap_or(metrics.train_loss);
    // A validation loss alone may be as large where a network has learnt its training images by heart.
    if loss.min(metrics.train_loss) > DIVERGED * chance {
        (t.events)(Event::Diverges { loss, chance });
    }
    if metrics.epoch == 1 && (loss - chance).abs() < 0.01 * chance {
        (t.events)(Event::DeadStart { loss, chance });
    }
}
