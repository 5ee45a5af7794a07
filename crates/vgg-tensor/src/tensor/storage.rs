//! The memory of a tensor.

use super::blocked::BlockedBuffer;
use crate::alloc::CpuBuffer;
use crate::cuda::CudaBuffer;

/// The memory of a tensor, on the CPU or a GPU. Every operation matches on it once.
pub(crate) enum Storage {
    /// In host memory: f32, row-major.
    Cpu(CpuBuffer),
    /// In host memory: bf16 activations in blocks of 32 channels.
    Blocked(BlockedBuffer),
    /// In the memory of a GPU.
    Cuda(CudaBuffer),
}

impl From<CpuBuffer> for Storage {
    fn from(buffer: CpuBuffer) -> Storage {
        Storage::Cpu(buffer)
    }
}

impl From<CudaBuffer> for Storage {
    fn from(buffer: CudaBuffer) -> Storage {
        Storage::Cuda(buffer)
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}
