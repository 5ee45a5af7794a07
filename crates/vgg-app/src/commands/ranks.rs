//! The processes that a launcher started this one with.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use vgg_tensor::ProcessGroup;

use crate::console::{Interrupt, be_quiet, note};
use crate::exit;
use crate::exit::UsageError;

/// How long the others wait with an error of theirs.
const FIRST_GOES_FIRST: Duration = Duration::from_secs(5);

/// This process among those that work together; most often there is no other.
pub(super) struct Ranks {
    group: Arc<dyn ProcessGroup>,
    /// Its number among those of this machine, and how many these are.
    local: (usize, usize),
}

impl Ranks {
    /// Waits for the others. From then on, the first one speaks for all.
    pub(super) fn join() -> Result<Ranks> {
        // One that waits in a library for a rank that is gone would wait for ever.
        let lost = |what: &str| {
            eprintln!("error: {what}; this rank ends, too");
            // At once: handlers of libraries that wait for other ranks would wait here, too.
            signal_hook::low_level::exit(1);
        };
        let joined = vgg_distributed::join(lost).map_err(|e| UsageError(e.to_string()))?;
        let group = joined.group;
        if group.rank() > 0 {
            be_quiet();
        } else if group.size() > 1 {
            note(&format!("ranks: {}", group.size()));
        }
        Ok(Ranks {
            group,
            local: joined.launch.map_or((0, 1), |launch| (launch.local_rank, launch.local_size)),
        })
    }

    pub(super) fn group(&self) -> &Arc<dyn ProcessGroup> {
        &self.group
    }

    /// Its number among those of this machine, and how many these are.
    pub(super) fn local(&self) -> (usize, usize) {
        self.local
    }

    /// Cores that are this rank's: its share of those that it may use, unless the launcher has bound it to some of its own.
    pub(super) fn cores(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let bound = self.local.1 > 1
            && cores_of("self").is_some_and(|own| cores_of("1").is_some_and(|all| own != all));
        if bound { cores } else { (cores / self.local.1).max(1) }
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
                if rank > 0 {
                    // What is wrong on all the first one says, and it has files to finish.
                    std::thread::sleep(FIRST_GOES_FIRST);
                }
                eprintln!("error on rank {rank} of {size}: {}", exit::message(error));
                self.group.abort(i32::from(exit::code(error)));
            }
        })
    }

    /// The exit code after a signal, which may have come to another rank than this one.
    pub(super) fn interrupted(&self, interrupt: &Interrupt, message: &str) -> Result<ExitCode> {
        note(message);
        let own = if interrupt.asked() { interrupt.exit_code() } else { 0 };
        let codes = self.group.all_gather(&[f64::from(own)])?;
        Ok((codes.into_iter().fold(0.0, f64::max) as u8).into())
    }
}

/// The cores that a process may use, as Linux lists them; process 1 is what all others come from.
fn cores_of(process: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(list.trim().to_owned())
}

/// Ends all ranks if this one panics.
struct EndsAll<'a>(&'a dyn ProcessGroup);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && self.0.size() > 1 {
            self.0.abort(101);
        }
    }
}
