//! Ranks that reach each other by MPI.

use std::sync::{Mutex, PoisonError};

use mpi::Threading;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};
use vgg_tensor::{ProcessGroup, Result};

use crate::{Error, Launch};

/// All processes that a launcher started.
pub(crate) struct MpiGroup {
    rank: usize,
    size: usize,
    /// One call at a time, from whatever thread.
    world: Mutex<World>,
}

struct World {
    all: SimpleCommunicator,
    /// Ends MPI when it goes.
    _universe: Universe,
    /// What is sent and received in turns, kept from sum to sum.
    send: Vec<f32>,
    receive: Vec<f32>,
}

// SAFETY: MPI was told that several threads would call it one at a time, and the lock sees to that.
unsafe impl Send for World {}

impl MpiGroup {
    pub(crate) fn join(launch: Launch) -> std::result::Result<MpiGroup, Error> {
        let begun = mpi::initialize_with_threading(Threading::Serialized);
        let (universe, threading) = begun.ok_or_else(|| launch.without("MPI was begun before"))?;
        if threading < Threading::Serialized {
            return Err(launch.without("this MPI lets only one thread call it"));
        }
        let all = universe.world();
        let (rank, size) = (all.rank() as usize, all.size() as usize);
        if (rank, size) != (launch.rank, launch.size) {
            let reason = format!("MPI says rank {rank} of {size}: the program was built with another MPI");
            return Err(launch.without(&reason));
        }
        let world = World { all, _universe: universe, send: Vec::new(), receive: Vec::new() };
        Ok(MpiGroup { rank, size, world: Mutex::new(world) })
    }

    fn with<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        f(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ProcessGroup for MpiGroup {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        // Each rank adds a part of all, in the order of ranks, and hands the sums round: as much traffic as the best
        // all-reduce, and the same bits whatever the library would choose to do.
        let part = values.len().div_ceil(self.size);
        self.with(|World { all, send, receive, .. }| {
            send.clear();
            send.extend_from_slice(values);
            send.resize(part * self.size, 0.0);
            receive.resize(part * self.size, 0.0);
            all.all_to_all_into(&send[..], &mut receive[..]);
            let (sums, others) = receive.split_at_mut(part);
            for other in others.chunks_exact(part.max(1)) {
                sums.iter_mut().zip(other).for_each(|(sum, value)| *sum += value);
            }
            all.all_gather_into(&sums[..], &mut send[..]);
            values.copy_from_slice(&send[..values.len()]);
        });
        Ok(())
    }

    fn all_gather(&self, values: &[f64]) -> Result<Vec<f64>> {
        let mut gathered = vec![0.0; values.len() * self.size];
        self.with(|world| match values {
            [] => world.all.barrier(),
            _ => world.all.all_gather_into(values, &mut gathered[..]),
        });
        Ok(gathered)
    }

    fn abort(&self, code: i32) -> ! {
        // Not by the lock: another thread may be waiting in it for ranks that will never come.
        SimpleCommunicator::world().abort(code)
    }
}
