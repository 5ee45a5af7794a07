//! Progress on stderr: a bar on a terminal, otherwise a line every 30 seconds.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::{is_quiet, note, warning};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Interval between lines when stderr is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    of: u64,
    /// Parts done before `start`, excluded from the speed.
    before: u64,
    start: Instant,
    last_line: Instant,
}

impl Progress {
    pub(crate) fn new(what: &str, of: u64) -> Progress {
        let bar = (std::io::stderr().is_terminal() && !is_quiet()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(of), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix} {wide_bar:.cyan/dim} {msg}, {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(what.to_owned());
            bar.set_message("starting");
            bar
        });
        Progress {
            bar,
            what: what.to_owned(),
            of,
            before: 0,
            start: Instant::now(),
            last_line: Instant::now(),
        }
    }

    pub(crate) fn at(&mut self, done: u64, message: impl FnOnce() -> String) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(message());
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                let left = self.left(done);
                note(&format!("  {}: {}, {} left", self.what, message(), clock(left)));
            }
            None => (),
        }
    }

    /// Prints a line above the bar.
    pub(crate) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// As [`Progress::line`], also on quiet ranks.
    pub(crate) fn warning(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| warning(text)),
            None => warning(text),
        }
    }

    /// Estimated remaining time at the speed so far.
    pub(crate) fn left(&self, done: u64) -> Duration {
        let per_part = self.start.elapsed().as_secs_f64() / done.saturating_sub(self.before).max(1) as f64;
        Duration::from_secs_f64(per_part * self.of.saturating_sub(done) as f64)
    }

    /// Restarts the clock with a total of `of` parts, of which `before` are already done.
    pub(crate) fn restart(&mut self, before: u64, of: u64) {
        (self.before, self.of, self.start) = (before, of, Instant::now());
        if let Some(bar) = &self.bar {
            bar.set_length(of);
            bar.set_position(before);
            bar.reset_eta();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

pub(crate) fn clock(time: Duration) -> String {
    let s = time.as_secs();
    if s < 3600 {
        format!("{}:{:02}", s / 60, s % 60)
    } else {
        format!("{} h {:02} min", s / 3600, s / 60 % 60)
    }
}
