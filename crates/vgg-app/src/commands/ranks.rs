//! The process group that a launcher such as torchrun or mpirun started.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use vgg_tensor::ProcessGroup;

use crate::console::{Interrupt, be_quiet, note, warning};
use crate::exit;

/// Delay before other ranks report an error: rank 0 reports an error that all have.
const FIRST_GOES_FIRST: Duration = Duration::from_secs(5);

/// This rank of the process group, which usually is a single process.
pub(super) struct Ranks {
    group: Arc<dyn ProcessGroup>,
    local: (usize, usize),
}

impl Ranks {
    /// Joins the process group; ranks other than 0 become quiet.
    pub(super) fn join() -> Result<Ranks> {
        // Libraries that wait for a lost rank would block for ever.
        let lost = |what: &str| {
            warning(&format!("error: {what}; exiting"));
            // Immediately: exit handlers of such libraries would block here, too.
            signal_hook::low_level::exit(1);
        };
        let joined = vgg_distributed::join(lost)?;
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

    pub(super) fn local(&self) -> (usize, usize) {
        self.local
    }

    /// Cores for this rank: an equal share of the machine's, unless the launcher bound the rank to its own.
    pub(super) fn cores(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let bound = self.local.1 > 1
            && cores_of("self").is_some_and(|own| cores_of("1").is_some_and(|all| own != all));
        if bound { cores } else { (cores / self.local.1).max(1) }
    }

    /// Whether this is rank 0, which prints and writes.
    pub(super) fn is_first(&self) -> bool {
        self.group.rank() == 0
    }

    /// Runs this rank's part. On an error, aborts all ranks, which would otherwise wait for this one.
    pub(super) fn work<R>(&self, f: impl FnOnce() -> Result<R>) -> Result<R> {
        let (rank, size) = (self.group.rank(), self.group.size());
        // A panic must not leave the others waiting, either.
        let _guard = EndsAll(&*self.group);
        f().inspect_err(|error| {
            if size > 1 {
                if rank > 0 {
                    // Rank 0 reports an error that all have, and may have files to finish.
                    std::thread::sleep(FIRST_GOES_FIRST);
                }
                warning(&format!("error on rank {rank} of {size}: {}", exit::message(error)));
                self.group.abort(i32::from(exit::code(error)));
            }
        })
    }

    /// The exit code after a signal, which any rank may have received.
    pub(super) fn interrupted(&self, interrupt: &Interrupt, message: &str) -> Result<ExitCode> {
        note(message);
        let own = if interrupt.asked() { interrupt.exit_code() } else { 0 };
        let codes = self.group.all_gather(&[f64::from(own)])?;
        Ok((codes.into_iter().fold(0.0, f64::max) as u8).into())
    }
}

/// The allowed cores of a process on Linux; those of process 1 are all cores of the machine or container.
fn cores_of(process: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(list.trim().to_owned())
}

/// Aborts all ranks if this one panics.
struct EndsAll<'a>(&'a dyn ProcessGroup);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && self.0.size() > 1 {
            self.0.abort(101);
        }
    }
}
