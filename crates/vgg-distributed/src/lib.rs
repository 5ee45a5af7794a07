//! Ranks of a training that is spread over processes: what `mpirun`, `srun` and `torchrun` say of them, and what carries sums from
//! one to another.
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

use std::sync::Arc;

use vgg_tensor::{Alone, RankGroup};

pub use launch::{Launch, Launcher};

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
/// # Errors
/// [`Error`].
pub fn group() -> Result<Arc<dyn RankGroup>, Error> {
    let launch = Launch::from(&|name| std::env::var(name).ok())?;
    match launch.filter(|launch| launch.size > 1) {
        None => Ok(Arc::new(Alone)),
        Some(launch) => transport(launch),
    }
}

#[cfg(feature = "mpi")]
fn transport(launch: Launch) -> Result<Arc<dyn RankGroup>, Error> {
    match launch.launcher {
        Launcher::Torchrun => {
            Err(launch.without("torchrun brings no MPI; start the ranks by mpirun or srun"))
        }
        _ => Ok(Arc::new(mpi::MpiGroup::join(launch)?)),
    }
}

#[cfg(not(feature = "mpi"))]
fn transport(launch: Launch) -> Result<Arc<dyn RankGroup>, Error> {
    Err(launch.without("this build has no transport between ranks; build it with --features mpi"))
}
