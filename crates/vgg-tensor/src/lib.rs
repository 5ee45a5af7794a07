//! Tensors on a CPU or an NVIDIA GPU ([`Device`], [`Tensor`], [`Parameter`]) and the operations of VGG
//! networks with their gradients, one module per operation under [`ops`].
//!
//! Layers and image files are other crates' work. Values are read and written as `f32` (a device of
//! [`Precision::Bf16`] stores activations as bf16). Tensors are row-major and contiguous; images are
//! `[N, H, W, C]` and filters `[K, R, S, C]`. Every operation is a free function: it checks its operands,
//! names them in its errors, and dispatches on the device that holds the data.
//!
//! Gradients follow one convention. A backward operation also applies the backward pass of the ReLU and
//! dropout of the layer below ([`ReluDropoutMask`]), so it returns the gradient of that layer's output
//! *before* the activation. With it, it returns the sum over every axis but the last, which is the gradient
//! of that layer's bias ([`Grad`]).
//!
//! Results are bitwise identical for any number of threads: work is split by shape alone, never by the
//! number of threads, and partial sums are added in a fixed order.
//!
//! ```
//! use ndarray::array;
//! use vgg_tensor::{Device, Tensor, Weight, ops::linear};
//!
//! let device = Device::cpu(2)?;
//! let x = Tensor::from_array(array![[1.0, 2.0]].view(), &device)?;
//! let weight = Weight::new(Tensor::from_array(array![[3.0, 4.0]].view(), &device)?);
//! let bias = Weight::new(Tensor::from_array(array![0.5].view(), &device)?);
//! let y = linear::forward(&x, &weight, &bias, linear::Linear { relu: true })?;
//! assert_eq!(y.to_vec(), [11.5]);
//! # Ok::<(), vgg_tensor::Error>(())
//! ```

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

// Layers of modules, the lowest first. A module imports only from lower layers; `cargo xtask tidy` checks it.
mod grad_mode;
mod shape;

mod error;

mod config;

mod alloc;

mod cpu;
mod cuda;

mod tensor;

pub mod ops;

mod comm;
mod step;

#[cfg(feature = "cuda")]
pub mod selftest;

pub use comm::{AllReduce, ProcessGroup, SingleProcess, on_thread_ranks};
pub use config::{ConvAlgorithm, DeviceConfig, DeviceKind, Engines, Memory, PeakThroughput, Precision};
#[cfg(feature = "cuda")]
pub use cuda::{CudaLibrary, CudaLibraryStatus, cuda_libraries};
pub use error::{Error, Result};
pub use grad_mode::GradMode;
pub use shape::Shape;
pub use step::{AsyncReadback, StepGraph};
pub use tensor::{
    Device, Grad, Parameter, ParameterKind, ReluDropoutMask, StagedBatch, StepState, Tensor, Weight,
};
