//! Sums of tensors over ranks, under way while other work goes on.
//!
//! Tensors go in as soon as they are final on a rank, in the same order on all, and the sums take their places at the end. So
//! gradients of the last layers travel while those of the first are computed.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use std::sync::Arc;

use crate::{Device, Error, ProcessGroup, Result, StepState, Tensor};

/// Bytes of a bucket, which is summed at once: 4 MiB. Smaller ones cost more calls, larger ones begin later.
const BUCKET_BYTES: usize = 4 << 20;

/// Sums over the ranks of a group. On a CPU the group's transport carries them, in a thread of its own; GPUs do it among
/// themselves by NCCL, beside the device's stream.
///
/// A sum may be given up between [`AllReduce::begin`] and [`AllReduce::finish`] only if no other is begun.
pub struct AllReduce(Transport);

enum Transport {
    Host(cpu::Sums),
    #[cfg(feature = "cuda")]
    Nccl(Box<cuda::Sums>),
}

impl AllReduce {
    /// Joins the ranks of `group`, all of which must do so, each with its own device; all are CPUs, or all are GPUs.
    ///
    /// # Errors
    /// [`Error::Group`] if devices differ in kind or the transport fails; [`Error::NoCuda`] if GPUs lack NCCL.
    pub fn new(group: &Arc<dyn ProcessGroup>, device: &Device) -> Result<AllReduce> {
        let kind = device.cuda().is_some();
        let kinds = group.all_gather(&[f64::from(u8::from(kind))])?;
        if let Some(other) = kinds.iter().position(|other| (*other != 0.0) != kind) {
            let name = |gpu: bool| if gpu { "a GPU" } else { "a CPU" };
            let (mine, theirs) = (name(kind), name(!kind));
            let reason = format!(
                "rank {} uses {mine}, rank {other} uses {theirs}; all must use the same",
                group.rank()
            );
            return Err(Error::Group { reason });
        }
        Ok(AllReduce(match device.cuda() {
            #[cfg(feature = "cuda")]
            Some(cuda) => Transport::Nccl(Box::new(cuda::Sums::new(&**group, cuda)?)),
            _ => Transport::Host(cpu::Sums::new(group.clone())?),
        }))
    }

    /// Takes a plain tensor whose values are final on this rank; until the end they are nobody else's.
    ///
    /// # Errors
    /// [`Error::Device`] if it is on another device, [`Error::Shared`] if another handle holds it, [`Error::Cuda`] if a GPU
    /// fails.
    pub fn begin(&mut self, tensor: &mut Tensor) -> Result<()> {
        match &mut self.0 {
            Transport::Host(sums) => {
                sums.begin(tensor.cpu_mut("all_reduce", "a tensor")?);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Transport::Nccl(sums) => sums.begin(tensor),
        }
    }

    /// Puts the sums in the places of all `tensors` that were begun, which come in the same order. If `state` or a sum is not
    /// finite on any rank, the flag of `state` is cleared on all.
    ///
    /// # Errors
    /// [`Error::Group`] if the transport fails, [`Error::Cuda`] if a GPU does.
    pub fn finish<'a>(
        &mut self,
        tensors: impl Iterator<Item = Result<&'a mut Tensor>>,
        state: &StepState,
    ) -> Result<()> {
        match &mut self.0 {
            Transport::Host(sums) => sums.finish(tensors, state),
            #[cfg(feature = "cuda")]
            Transport::Nccl(sums) => sums.finish(tensors, state),
        }
    }
}
