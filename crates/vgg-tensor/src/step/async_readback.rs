//! Asynchronous copies of results to the host.

use crate::cuda::DeviceToHost;
use crate::{Device, Result, StepState, Tensor};

/// Copies tensors, and whether a step was finite, to the host while a GPU computes the next step.
pub struct AsyncReadback {
    device: Device,
    values: Vec<f32>,
    finite: bool,
    fetched: Option<DeviceToHost>,
}

impl AsyncReadback {
    /// A readback that has copied nothing yet.
    pub fn new(device: &Device) -> AsyncReadback {
        AsyncReadback { device: device.clone(), values: Vec::new(), finite: true, fetched: None }
    }

    /// Starts to copy tensors as unpadded `f32` (others are converted first), such as losses and logits, and
    /// the `finite` flag of `state`.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`] on a GPU.
    pub fn start<'a>(
        &mut self,
        tensors: impl Iterator<Item = &'a Tensor> + Clone,
        state: &StepState,
    ) -> Result<()> {
        self.values.clear();
        let Some(cuda) = self.device.cuda() else {
            for tensor in tensors {
                self.values.extend_from_slice(tensor.to_plain()?.cpu());
            }
            self.finite = state.finite()?;
            return Ok(());
        };
        let len = tensors.clone().map(|tensor| tensor.shape().len()).sum::<usize>();
        let bytes = StepState::BYTES + 4 * len;
        if self.fetched.as_ref().is_none_or(|fetched| fetched.len() != bytes) {
            self.fetched = Some(DeviceToHost::new(cuda, bytes)?);
        }
        let Some(fetched) = &mut self.fetched else { return Ok(()) };
        // Losses and logits are unpadded f32 on a GPU; other tensors are converted, and the converted copy
        // lives until its copy to the host is queued.
        let plain =
            tensors.map(|tensor| Ok((cuda.plain_of("readback", "a tensor", tensor)?, tensor.shape().len())));
        let plain = plain.collect::<Result<Vec<_>>>()?;
        let head = (state.pointer("readback", cuda)?, StepState::BYTES);
        let pieces = std::iter::once(head).chain(plain.iter().map(|(x, len)| (x.pointer, 4 * len)));
        // SAFETY: a state has that many bytes, and a plain tensor a float for each value.
        unsafe { fetched.start(pieces) }
    }

    /// Waits for the copies: the concatenated values, and whether the step was finite.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`] on a GPU.
    pub fn wait(&mut self) -> Result<(&[f32], bool)> {
        if let Some(fetched) = &self.fetched {
            let (head, values) = fetched.wait()?.split_at(StepState::BYTES);
            self.finite = StepState::says_finite(head);
            self.values.clear();
            self.values.extend(values.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])));
        }
        Ok((&self.values, self.finite))
    }
}
