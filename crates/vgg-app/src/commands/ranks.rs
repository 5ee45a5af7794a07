//! The processes that a launcher started this one with.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use vgg_distributed::Launch;
use vgg_tensor::{Alone, RankGroup};

use crate::console::{Interrupt, be_quiet, note};
use crate::exit;
use crate::settings::SettingsError;

/// This process among those that work together; most often there is no other.
pub(super) struct Ranks {
    group: Arc<dyn RankGroup>,
    /// Its number among those of this machine, and how many these are.
    local: (usize, usize),
}

impl Ranks {
    /// Waits for the others. From then on, the first one speaks for all.
    pub(super) fn join() -> Result<Ranks> {
        let wrong = |e: vgg_distributed::Error| SettingsError(e.to_string());
        let launch = Launch::from(&|name| std::env::var(name).ok()).map_err(wrong)?;
        let group = vgg_distributed::group().map_err(wrong)?;
        if group.rank() > 0 {
            be_quiet();
        } else if group.size() > 1 {
            note(&format!("ranks: {}", group.size()));
        }
        let together = launch.filter(|_| group.size() > 1);
        Ok(Ranks { group, local: together.map_or((0, 1), |launch| (launch.local_rank, launch.local_size)) })
    }

    /// This process, whatever others there are.
    pub(super) fn alone() -> Ranks {
        Ranks { group: Arc::new(Alone), local: (0, 1) }
    }

    pub(super) fn group(&self) -> &Arc<dyn RankGroup> {
        &self.group
    }

    pub(super) fn local(&self) -> (usize, usize) {
        self.local
    }

    /// Whether this one speaks for all, and writes.
    pub(super) fn is_first(&self) -> bool {
        self.group.rank() == 0
    }

    /// Does this rank's part. If it fails, all ranks end: the others would wait for this one without end.
    pub(super) fn work<R>(&self, f: impl FnOnce() -> Result<R>) -> Result<R> {
        let (rank, size) = (self.group.rank(), self.group.size());
        // A defect, too, must not leave the others waiting.
        let _guard = EndsAll(&*self.group);
        f().inspect_err(|error| {
            if size > 1 {
                eprintln!("error on rank {rank} of {size}: {}", exit::message(error));
                self.group.abort(i32::from(exit::code(error)));
            }
        })
    }

    /// The exit code after a signal, which may have come to another rank than this one.
    pub(super) fn interrupted(&self, interrupt: &Interrupt, message: &str) -> Result<ExitCode> {
        note(message);
        let own = if interrupt.asked() { interrupt.exit_code() } else { 0 };
        let codes = self.group.gather(&[f64::from(own)])?;
        Ok((codes.into_iter().fold(0.0, f64::max) as u8).into())
    }
}

/// Ends all ranks if this one panics.
struct EndsAll<'a>(&'a dyn RankGroup);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && self.0.size() > 1 {
            self.0.abort(101);
        }
    }
}
