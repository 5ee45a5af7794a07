//! Progress of a training run on stderr.

use std::time::{Duration, Instant};

use vgg_experiment::{RunEvent, RunPlan};
use vgg_train::{EpochMetrics, EpochTiming, Event};

use super::Progress;
use super::progress::clock;

pub(crate) struct TrainingView {
    progress: Progress,
    batch: usize,
    max_epochs: usize,
    /// Steps per epoch.
    steps: u64,
    epoch: Epoch,
}

struct Epoch {
    start: Instant,
    images: usize,
    waited: Duration,
}

impl TrainingView {
    pub(crate) fn new(plan: &RunPlan) -> TrainingView {
        TrainingView {
            progress: Progress::new(&plan.name, 1),
            batch: plan.optimizer.batch,
            max_epochs: plan.run.max_epochs,
            steps: 1,
            epoch: Epoch::begins(),
        }
    }

    pub(crate) fn show(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Cached(run) => {
                let error =
                    run.last.val_top1_error.map_or(String::new(), |e| format!(", validation {}", percent(e)));
                self.progress.line(&format!("  already trained: {} epochs{error}", run.epochs));
            }
            RunEvent::Begins { images, transfer } => {
                match transfer {
                    Some(report) if report.not_loaded.is_empty() => {
                        self.progress.line("  loaded: all layers")
                    }
                    Some(report) => self.progress.line(&format!(
                        "  loaded: {}; initialised: {}",
                        report.loaded.join(" "),
                        report.not_loaded.join(" ")
                    )),
                    None => (),
                }
                self.epoch = Epoch::begins();
                self.steps = images.div_ceil(self.batch) as u64;
                self.progress.restart(0, self.steps * self.max_epochs as u64);
            }
            RunEvent::Training(event) => self.training(event),
            RunEvent::Skipped(bad) => {
                self.progress.warning(&format!("  warning: skipped in validation: {bad}"));
            }
        }
    }

    fn training(&mut self, event: &Event) {
        match event {
            Event::Resumed { epochs, batches } => {
                let done = *epochs as u64 * self.steps + *batches as u64;
                self.progress.restart(done, self.max_epochs as u64 * self.steps);
                let within = if *batches > 0 { format!(" and {batches} batches") } else { String::new() };
                self.progress.line(&format!("  resuming after epoch {epochs}{within}"));
            }
            Event::Rejected(why) => self.progress.line(&format!("  warning: skipped a checkpoint: {why}")),
            Event::Skipped(bad) => {
                self.progress.warning(&format!("  warning: skipped: {}", bad.error));
            }
            Event::Step { epoch, step, loss, top1_error, images, waited, .. } => {
                self.epoch.images += images;
                self.epoch.waited += *waited;
                let (speed, waiting) = self.epoch.speed();
                let (of, done) = (self.max_epochs, (*epoch as u64 - 1) * self.steps + *step as u64);
                self.progress.at(done, || {
                    let error = percent(*top1_error);
                    format!("epoch {epoch}/{of}, loss {loss:.3}, error {error}, {speed:.0} images/s, data wait {waiting:.0} %")
                });
            }
            Event::Epoch { metrics, timing } => {
                self.epoch_line(metrics, timing);
                self.epoch = Epoch::begins();
            }
            Event::Diverges { loss, chance } => self.progress.line(&format!(
                "  warning: the loss {loss:.3} is far above chance level ({chance:.3}): training diverges. Usual remedies: \
                 a lower learning rate, pixel_scale = \"unit-variance\", or starting from a trained A (network.init.from)."
            )),
            Event::NoProgress { loss, chance } => self.progress.line(&format!(
                "  note: after one epoch the loss is still at chance level, {loss:.3} (ln of the number of classes: \
                 {chance:.3}). Networks without normalisation may need a few epochs to start learning. If the loss \
                 stays there, usual remedies: network.init.scheme = \"he\", starting from a trained A (network.init.from), pixel_scale = \
                 \"unit-variance\", less dropout, smaller batches, another learning rate."
            )),
        }
    }

    fn epoch_line(&mut self, m: &EpochMetrics, timing: &EpochTiming) {
        let validation = match (m.val_top1_error, m.val_loss) {
            (Some(error), Some(loss)) => format!("; validation: loss {loss:.3}, error {}", percent(error)),
            _ => String::new(),
        };
        let left = clock(self.progress.left(m.epoch as u64 * self.steps));
        self.progress.line(&format!(
            "  epoch {}/{}: loss {:.3}, error {}{validation}; lr {}, {:.0} images/s, data wait {:.0} %, {left} left",
            m.epoch,
            self.max_epochs,
            m.train_loss,
            percent(m.train_top1_error),
            m.lr as f32,
            timing.images_per_s,
            100.0 * timing.waiting,
        ));
    }
}

impl Epoch {
    fn begins() -> Epoch {
        Epoch { start: Instant::now(), images: 0, waited: Duration::ZERO }
    }

    /// Images per second, and the percentage of time spent waiting for data.
    fn speed(&self) -> (f64, f64) {
        let seconds = self.start.elapsed().as_secs_f64().max(1e-9);
        (self.images as f64 / seconds, (100.0 * self.waited.as_secs_f64() / seconds).min(100.0))
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
