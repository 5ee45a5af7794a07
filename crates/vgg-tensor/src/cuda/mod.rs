//! Infrastructure of the GPU operations: memory, kernels, matrix products and convolutions, all on one
//! stream.
//!
//! Without the feature `cuda`, only [`operands`] and uninhabited stand-ins for the other types (`absent.rs`)
//! exist.

mod operands;

#[cfg(not(feature = "cuda"))]
mod absent;
#[cfg(feature = "cuda")]
mod blas;
#[cfg(feature = "cuda")]
mod buffer;
#[cfg(feature = "cuda")]
mod cudnn;
#[cfg(feature = "cuda")]
mod error;
#[cfg(feature = "cuda")]
mod gpu;
#[cfg(feature = "cuda")]
mod graph;
#[cfg(feature = "cuda")]
mod kernels;
#[cfg(feature = "cuda")]
mod libraries;
#[cfg(feature = "cuda")]
mod limits;
#[cfg(feature = "cuda")]
mod stream;
#[cfg(feature = "cuda")]
mod transfer;

#[cfg(not(feature = "cuda"))]
pub(crate) use absent::{Cuda, CudaBuffer, DeviceToHost, Graph, HostToDevice, measure};
pub(crate) use operands::{
    CHANNEL_ALIGNMENT, ConvolutionKey, ConvolutionOperands, ConvolutionPass, CublasEpilogue, Element, Format,
    Matrix, Product, THREADS, bits, rows,
};

#[cfg(feature = "cuda")]
pub(crate) use self::{
    buffer::CudaBuffer,
    error::cuda_error,
    gpu::Cuda,
    graph::Graph,
    libraries::open_nccl,
    limits::measure,
    transfer::{DeviceToHost, HostToDevice},
};
#[cfg(feature = "cuda")]
pub use libraries::{CudaLibrary, CudaLibraryStatus, cuda_libraries};
