//! Ranks of a training that is spread over processes: what `mpirun`, `srun` and `torchrun` say of them, and what carries sums from
//! one to another: MPI, or TCP.
//!
//! ```
//! // Started by no launcher, a process is on its own.
//! let launch = vgg_distributed::Launch::from(&|_| None)?;
//! assert!(launch.is_none());
//! # Ok::<(), vgg_distributed::Error>(())
//! ```

mod launch;
#[cfg(feature = "mpi")]
mod mpi;
mod rendezvous;
mod tcp;

use std::sync::Arc;

use vgg_tensor::{Alone, RankGroup};

pub use launch::{Launch, Launcher};
use rendezvous::Rendezvous;
use tcp::TcpGroup;

/// What keeps ranks from finding each other.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A launcher's variables are set in part, or make no sense.
    #[error("{launcher} has set {set}, but not {missing}: start all ranks by it, or unset them")]
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
    #[error("started by {launcher} as rank {rank} of {size}, but {reason}")]
    NoTransport {
        /// Who started it.
        launcher: &'static str,
        /// Its rank.
        rank: usize,
        /// How many there are.
        size: usize,
        /// What is missing.
        reason: String,
    },
}

/// The group that this process was started in; [`Alone`] if it was started by itself. To be called once, before threads are
/// started.
///
/// Ranks of `mpirun` and `srun` reach each other by MPI, those of `torchrun` by TCP, at `MASTER_ADDR` and the port after
/// `MASTER_PORT`. Where there is no MPI but these two are set, they serve any launcher's ranks.
///
/// # Errors
/// [`Error`].
pub fn group() -> Result<Arc<dyn RankGroup>, Error> {
    let get = |name: &str| std::env::var(name).ok();
    let launch = Launch::from(&get)?;
    let Some(launch) = launch.filter(|launch| launch.size > 1) else { return Ok(Arc::new(Alone)) };
    #[cfg(feature = "mpi")]
    if launch.launcher != Launcher::Torchrun {
        return Ok(Arc::new(mpi::MpiGroup::join(launch)?));
    }
    match Rendezvous::from(&get)? {
        Some(place) => Ok(Arc::new(TcpGroup::join(launch, &place)?)),
        None => Err(launch.without(
            "this build has no MPI; build it with --features mpi, or set MASTER_ADDR and MASTER_PORT on all ranks",
        )),
    }
}
