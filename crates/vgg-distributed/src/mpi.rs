//! A process group over MPI.

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
    /// Any thread may call MPI, one at a time.
    world: Mutex<World>,
}

struct World {
    all: SimpleCommunicator,
    /// Finalises MPI on drop.
    _universe: Universe,
    /// Send and receive buffers, reused between calls.
    send: Vec<f32>,
    receive: Vec<f32>,
}

// SAFETY: MPI is initialised for calls from several threads, one at a time, and the lock ensures that.
unsafe impl Send for World {}

impl MpiGroup {
    pub(crate) fn join(launch: Launch) -> std::result::Result<MpiGroup, Error> {
        let begun = mpi::initialize_with_threading(Threading::Serialized);
        let (universe, threading) = begun.ok_or_else(|| launch.no_transport("MPI is already initialised"))?;
        if threading < Threading::Serialized {
            return Err(launch.no_transport("this MPI does not support MPI_THREAD_SERIALIZED"));
        }
        let all = universe.world();
        let (rank, size) = (all.rank() as usize, all.size() as usize);
        if (rank, size) != (launch.rank, launch.size) {
            let reason = format!("MPI reports rank {rank} of {size}; build with the MPI of the launcher");
            return Err(launch.no_transport(&reason));
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
        // Each rank sums its part of the values in the order of ranks, then all ranks gather the parts. No
        // all-reduce has less traffic, and the result does not depend on an algorithm that the library
        // chooses.
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
        // Without the lock: another thread may hold it while it waits for ranks that have failed.
        SimpleCommunicator::world().abort(code)
    }
}
