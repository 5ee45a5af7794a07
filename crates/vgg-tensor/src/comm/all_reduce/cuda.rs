//! Sums among GPUs: in place, on a stream of their own, while the device's stream goes on.

use super::BUCKET_BYTES;
use crate::comm::nccl::Communicator;
use crate::cuda::Cuda;
use crate::{RankGroup, Result, StepState, Tensor};

const OP: &str = "all_reduce";

pub(super) struct Sums {
    cuda: Cuda,
    ranks: Communicator,
    /// Where the tensors of the bucket that is being filled lie, and their lengths.
    filling: Vec<(u64, usize)>,
    filling_bytes: usize,
    /// Handles of all tensors that were begun: what NCCL writes to must not be given back before it has. After `ranks`, which end first.
    begun: Vec<Tensor>,
}

impl Sums {
    pub(super) fn new(group: &dyn RankGroup, cuda: &Cuda) -> Result<Sums> {
        let ranks = Communicator::join(group, cuda)?;
        Ok(Sums { cuda: cuda.clone(), ranks, filling: Vec::new(), filling_bytes: 0, begun: Vec::new() })
    }

    pub(super) fn begin(&mut self, tensor: &mut Tensor) -> Result<()> {
        let len = tensor.shape().len();
        self.filling.push((tensor.cuda_memory_mut(OP, "a tensor")?, len));
        self.begun.push(tensor.clone());
        self.filling_bytes += size_of::<f32>() * len;
        if self.filling_bytes >= BUCKET_BYTES { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<()> {
        self.ranks.sum(&self.filling)?;
        self.filling.clear();
        self.filling_bytes = 0;
        Ok(())
    }

    pub(super) fn finish<'a>(
        &mut self,
        tensors: impl Iterator<Item = Result<&'a mut Tensor>>,
        state: &StepState,
    ) -> Result<()> {
        self.send()?;
        let step = state.pointer(OP)?;
        self.ranks.any(step + StepState::NOT_FINITE_AT as u64)?;
        self.ranks.wait()?;
        // The device's stream comes after the sums now, and so does whoever gets the memory next.
        self.begun.clear();
        for tensor in tensors {
            let tensor = tensor?;
            let (n, at) = (tensor.shape().len(), tensor.cuda_memory_mut(OP, "a tensor")?);
            // Two numbers may be finite while their sum is not.
            // SAFETY: the tensor has that many floats, and the state is of this device.
            unsafe { self.cuda.launch("check_finite", n, &[at, n as u64, step]) }?;
        }
        Ok(())
    }
}
