//! All-reduce on GPUs: in place, on a stream beside the device's own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::BUCKET_BYTES;
use crate::comm::nccl::Communicator;
use crate::cuda::Cuda;
use crate::{Error, ProcessGroup, Result, StepState, Tensor};

const OP: &str = "all_reduce";

pub(super) struct NcclReducer {
    cuda: Cuda,
    /// Shared with the graphs in which all-reduces were captured.
    in_flight: Arc<Mutex<InFlight>>,
    /// GPU addresses and lengths of the tensors in the bucket that is being filled.
    filling: Vec<(u64, usize)>,
    filling_bytes: usize,
}

/// Fields are dropped in this order: NCCL stops before the memory that it writes to is freed.
struct InFlight {
    communicator: Communicator,
    /// Handles of the tensors whose all-reduce has in_progress and not finished.
    in_progress: Vec<Tensor>,
}

impl NcclReducer {
    pub(super) fn new(group: &dyn ProcessGroup, cuda: &Cuda) -> Result<NcclReducer> {
        let in_flight = InFlight { communicator: Communicator::join(group, cuda)?, in_progress: Vec::new() };
        let in_flight = Arc::new(Mutex::new(in_flight));
        Ok(NcclReducer { cuda: cuda.clone(), in_flight, filling: Vec::new(), filling_bytes: 0 })
    }

    pub(super) fn begin(&mut self, tensor: &mut Tensor) -> Result<()> {
        let len = tensor.shape().len();
        if tensor.device().cuda().is_none_or(|cuda| !cuda.shares_memory_with(&self.cuda)) {
            return Err(Error::Device { op: OP, operand: "a tensor" });
        }
        self.filling.push((tensor.cuda_memory_mut(OP, "a tensor")?, len));
        self.in_flight().in_progress.push(tensor.clone());
        self.filling_bytes += size_of::<f32>() * len;
        if self.filling_bytes >= BUCKET_BYTES { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<()> {
        self.cuda.keep_for_graph(|| self.in_flight.clone());
        // SAFETY: `in_progress` holds the tensors of the bucket, and writing to them needs their only handle, until
        // `finish` has waited.
        unsafe { self.in_flight().communicator.all_reduce_sum(&self.filling) }?;
        self.filling.clear();
        self.filling_bytes = 0;
        Ok(())
    }

    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn finish<'a>(
        &mut self,
        tensors: impl Iterator<Item = Result<&'a mut Tensor>>,
        state: &StepState,
    ) -> Result<()> {
        self.send()?;
        let step = state.pointer(OP, &self.cuda)?;
        let mut in_flight = self.in_flight();
        // SAFETY: the flag is a part of the state, which outlives the wait.
        unsafe { in_flight.communicator.all_reduce_or(step + StepState::NOT_FINITE_AT as u64) }?;
        in_flight.communicator.wait()?;
        // Later work on the device's stream now follows the sums, so their memory may be reused.
        in_flight.in_progress.clear();
        drop(in_flight);
        for tensor in tensors {
            let tensor = tensor?;
            let (n, at) = (tensor.shape().len(), tensor.cuda_memory_mut(OP, "a tensor")?);
            // A sum of finite values may overflow.
            // SAFETY: the tensor has that many floats, and the state is of this device.
            unsafe { self.cuda.launch("check_finite", n, &[at, n as u64, step]) }?;
        }
        Ok(())
    }
}
