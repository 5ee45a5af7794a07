//! All-reduce of tensors over ranks, overlapped with computation.
//!
//! The caller passes tensors as soon as they are final on its rank, in the same order on all ranks, and gets
//! the sums at the end. Gradients of the last layers are thus reduced while those of the first are computed.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use std::sync::Arc;

use crate::{Device, Error, ProcessGroup, Result, StepState, Tensor};

/// Bytes of a bucket, which is reduced at once: 4 MiB. Smaller buckets need more calls, larger ones start
/// later.
const BUCKET_BYTES: usize = 4 << 20;

/// All-reduce over the ranks of a process group. On a CPU, a thread passes the values to the group's
/// transport; on GPUs, NCCL reduces them on a stream beside the device's own.
///
/// An all-reduce may be abandoned between [`AllReduce::begin`] and [`AllReduce::finish`] only if `begin` is
/// not called again.
pub struct AllReduce(Transport);

enum Transport {
    Host(cpu::HostReducer),
    #[cfg(feature = "cuda")]
    Nccl(Box<cuda::NcclReducer>),
}

impl AllReduce {
    /// Joins the ranks of `group`. All ranks must call this, each with its own device; all devices are CPUs
    /// or all are GPUs.
    ///
    /// # Errors
    /// [`Error::Group`] if the ranks mix CPUs and GPUs or the transport fails; [`Error::NoCuda`] if NCCL is
    /// unavailable on GPUs; [`Error::Threads`] if the thread cannot be started; [`Error::Cuda`] if a GPU
    /// fails.
    pub fn new(group: &Arc<dyn ProcessGroup>, device: &Device) -> Result<AllReduce> {
        let kind = device.cuda().is_some();
        let kinds = group.all_gather(&[f64::from(u8::from(kind))])?;
        if let Some(other) = kinds.iter().position(|other| (*other != 0.0) != kind) {
            let name = |gpu: bool| if gpu { "a GPU" } else { "a CPU" };
            let (mine, theirs) = (name(kind), name(!kind));
            let reason = format!(
                "rank {} uses {mine}, rank {other} uses {theirs}; all ranks must use the same kind of device",
                group.rank()
            );
            return Err(Error::Group { reason });
        }
        Ok(AllReduce(match device.cuda() {
            #[cfg(feature = "cuda")]
            Some(cuda) => Transport::Nccl(Box::new(cuda::NcclReducer::new(&**group, cuda)?)),
            _ => Transport::Host(cpu::HostReducer::new(group.clone())?),
        }))
    }

    /// Starts the all-reduce of an unpadded f32 tensor whose values are final on this rank. Its values are
    /// undefined until [`AllReduce::finish`].
    ///
    /// # Errors
    /// [`Error::Device`] if it is on another device, [`Error::Shared`] if it has another handle,
    /// [`Error::Cuda`] if a GPU fails.
    pub fn begin(&mut self, tensor: &mut Tensor) -> Result<()> {
        match &mut self.0 {
            Transport::Host(reducer) => {
                reducer.begin(tensor.cpu_mut("all_reduce", "a tensor")?);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Transport::Nccl(reducer) => reducer.begin(tensor),
        }
    }

    /// Waits for the sums and writes them to `tensors`: those passed to [`AllReduce::begin`], in the same
    /// order. If the flag of `state` is clear or a sum is not finite on any rank, the flag is cleared on all
    /// ranks.
    ///
    /// # Errors
    /// [`Error::Group`] if the transport fails; [`Error::Cuda`] if a GPU fails; [`Error::Internal`] if there
    /// are more tensors than were passed to `begin`.
    pub fn finish<'a>(
        &mut self,
        tensors: impl Iterator<Item = Result<&'a mut Tensor>>,
        state: &StepState,
    ) -> Result<()> {
        match &mut self.0 {
            Transport::Host(reducer) => reducer.finish(tensors, state),
            #[cfg(feature = "cuda")]
            Transport::Nccl(reducer) => reducer.finish(tensors, state),
        }
    }
}
