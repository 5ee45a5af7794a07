//! Ranks of a training that is spread over processes: what `mpirun`, `srun` and `torchrun` say of them, and what carries sums from
//! one to another: MPI, or TCP.
//!
//! ```
//! // Started by no launcher, a process is on its own.
//! let launch = vgg_distributed::Launch::from(&|_| None)?;
//! assert!(launch.is_none());
//! # Ok::<(), vgg_distributed::Error>(())
//! ```

#![warn(clippy::unwrap_used)]

mod launch;
mod messages;
#[cfg(feature = "mpi")]
mod mpi;
mod rendezvous;
mod scale;
mod tcp;
mod watch;

use std::sync::Arc;

use vgg_error::ErrorKind;
use vgg_tensor::{ProcessGroup, SingleProcess};

pub use launch::{Launch, Launcher};
use rendezvous::Rendezvous;
pub use scale::{Bottleneck, Cluster, ScaleWorkload, StepEstimate};
use tcp::TcpGroup;

/// What keeps ranks from finding each other.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A launcher's variables are set in part, or make no sense.
    #[error(
        "{set} is set, but not {missing}: {launcher} sets them all; start all ranks by it, or unset {set}"
    )]
    HalfSet {
        /// Whose variables they are.
        launcher: &'static str,
        /// One that is there.
        set: &'static str,
        /// Those that are not.
        missing: String,
    },
    /// A variable holds no number, or one that cannot be.
    #[error("{name} is {value:?}, which is no number of a rank or of ranks that could be")]
    Value {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
    },
    /// There is nothing that would carry sums between these ranks.
    #[error("this is rank {rank} of {size}, but {reason}")]
    NoTransport {
        /// Its rank.
        rank: usize,
        /// How many there are.
        size: usize,
        /// What is missing.
        reason: String,
    },
}

impl Error {
    /// The kind of error, such as for an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::HalfSet { .. } | Error::Value { .. } => ErrorKind::Usage,
            Error::NoTransport { .. } => ErrorKind::Other,
        }
    }
}

/// The group that a process was started in, and what its launcher said.
pub struct Joined {
    /// [`SingleProcess`] if it was started by itself.
    pub group: Arc<dyn ProcessGroup>,
    /// None if it was.
    pub launch: Option<Launch>,
}

/// Waits for all ranks that this process was started with. To be called once, before threads are started.
///
/// Ranks of `mpirun` and `srun` reach each other by MPI, those of `torchrun` by TCP, at `MASTER_ADDR` and the port after
/// `MASTER_PORT`. Where there is no MPI but these two are set, they serve any launcher's ranks.
///
/// `lost` hears, on a thread of its own, that another rank is gone while this one may wait for it without end, in a library say; it must end the
/// process. Under MPI the launcher does that.
///
/// # Errors
/// [`Error`].
pub fn join(lost: impl Fn(&str) + Send + 'static) -> Result<Joined, Error> {
    let get = |name: &str| std::env::var(name).ok();
    let launch = Launch::from(&get)?.filter(|launch| launch.size > 1);
    let Some(several) = launch else { return Ok(Joined { group: Arc::new(SingleProcess), launch: None }) };
    #[cfg(feature = "mpi")]
    if several.launcher != Launcher::Torchrun {
        return Ok(Joined { group: Arc::new(mpi::MpiGroup::join(several)?), launch });
    }
    match Rendezvous::from(&get)? {
        Some(place) => Ok(Joined { group: Arc::new(TcpGroup::join(several, &place, lost)?), launch }),
        None => Err(several.without(
            "this build lacks the feature `mpi`; enable it, or set MASTER_ADDR and MASTER_PORT on all ranks",
        )),
    }
}
