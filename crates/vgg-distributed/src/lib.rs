//! Process groups for data-parallel training: ranks started by `mpirun`, `srun` or `torchrun`, connected by
//! MPI or TCP. [`StepEstimate`] models how training scales.
//!
//! ```
//! // Without a launcher's variables, the process is not a rank.
//! let launch = vgg_distributed::Launch::from(&|_| None)?;
//! assert!(launch.is_none());
//! # Ok::<(), vgg_distributed::Error>(())
//! ```

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod introduction;
mod launch;
mod messages;
#[cfg(feature = "mpi")]
mod mpi;
mod rendezvous;
mod scale;
mod secret;
mod tcp;
mod watch;

use std::sync::Arc;

use vgg_error::ErrorKind;
use vgg_tensor::{ProcessGroup, SingleProcess};

pub use launch::{Launch, Launcher};
use rendezvous::Rendezvous;
pub use scale::{Bottleneck, Cluster, ScaleWorkload, StepEstimate};
use tcp::TcpGroup;

/// An error that prevents ranks from forming a process group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Only some of a launcher's variables are set.
    #[error(
        "{set} is set, but {missing} missing. {launcher} sets all of them: start every rank with it, or unset {set}"
    )]
    HalfSet {
        /// The launcher.
        launcher: &'static str,
        /// A variable that is set.
        set: &'static str,
        /// The variables that are not set, and a verb: "A is", "A and B are".
        missing: String,
    },
    /// The value of a variable is not a number, is out of range, or is not UTF-8.
    #[error("{name}={value:?} is not valid: expected {}", if name.contains("SECRET") { "UTF-8" } else { "a rank, world size or port" })]
    Value {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The ranks cannot connect to each other.
    #[error("rank {rank} of {size} cannot join the process group: {reason}")]
    NoTransport {
        /// The rank of this process.
        rank: usize,
        /// The world size.
        size: usize,
        /// The cause.
        reason: String,
    },
}

impl Error {
    /// The kind of the error, for example to choose an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::HalfSet { .. } | Error::Value { .. } | Error::NoTransport { .. } => ErrorKind::Usage,
        }
    }
}

/// The process group of this process, and how it was launched.
pub struct Joined {
    /// The process group; [`SingleProcess`] if there is one rank.
    pub group: Arc<dyn ProcessGroup>,
    /// The rank of this process as set by its launcher; `None` if there is one rank.
    pub launch: Option<Launch>,
}

/// Joins the process group of this launch and waits for all ranks. Call it once, before threads are started.
///
/// Ranks of `mpirun` and `srun` communicate by MPI; ranks of `torchrun` by TCP, at `MASTER_ADDR` and the port
/// after `MASTER_PORT`. In a build without MPI, ranks of every launcher use TCP if these two variables are
/// set.
///
/// `lost` is called when another rank has disconnected. `lost` must end the process: this rank could
/// otherwise wait for the lost rank for ever, for example inside NCCL. It is called on a separate thread.
/// Under MPI it is not called; the launcher ends all ranks.
///
/// # Errors
/// [`Error::HalfSet`] if only some of a launcher's variables are set; [`Error::Value`] if a variable is
/// invalid; [`Error::NoTransport`] if the ranks cannot connect.
pub fn join(lost: impl Fn(&str) + Send + 'static) -> Result<Joined, Error> {
    for name in ["VGG_RANKS_SECRET", "VGG_RANKS_SECRET_FILE"] {
        // The secret itself is not printed.
        if let Err(std::env::VarError::NotUnicode(_)) = std::env::var(name) {
            return Err(Error::Value { name, value: "...".into() });
        }
    }
    let get = |name: &str| std::env::var(name).ok();
    let Some(launch) = Launch::from(&get)?.filter(|launch| launch.size > 1) else {
        return Ok(Joined { group: Arc::new(SingleProcess), launch: None });
    };
    #[cfg(feature = "mpi")]
    if launch.launcher != Launcher::Torchrun {
        return Ok(Joined { group: Arc::new(mpi::MpiGroup::join(launch)?), launch: Some(launch) });
    }
    match Rendezvous::from(&get, launch)? {
        Some(place) => {
            Ok(Joined { group: Arc::new(TcpGroup::join(launch, &place, lost)?), launch: Some(launch) })
        }
        None => Err(launch.no_transport(
            "this build lacks the feature `mpi`; enable it, or set MASTER_ADDR and MASTER_PORT on all ranks",
        )),
    }
}
