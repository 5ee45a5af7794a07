//! Operands of GPU operations by device address: tensor formats, matrices and convolutions. Uses no CUDA
//! types.

#![cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "without CUDA nothing reads the operands"))]

use crate::{Precision, Shape};

/// Channels of images and filters are padded to a multiple of this.
pub(crate) const CHANNEL_ALIGNMENT: usize = 8;
/// Threads per block, in every kernel.
pub(crate) const THREADS: usize = 256;

/// Storage format of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) element: Element,
    /// Number of zeros after each row of the last axis.
    pub(crate) padding: usize,
}

impl Format {
    /// `f32` without padding.
    pub(crate) const PLAIN: Format = Format { element: Element::F32, padding: 0 };

    /// Elements from one row to the next, for a last axis of length `c`.
    pub(crate) fn pitch(self, c: usize) -> usize {
        c + self.padding
    }
}

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    Bf16,
}

impl Element {
    /// Element type of activations.
    pub(crate) fn of(precision: Precision) -> Element {
        match precision {
            Precision::Bf16 => Element::Bf16,
            Precision::Tf32 | Precision::F32 => Element::F32,
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 => 2,
        }
    }
}

/// A matrix `[rows, columns]` in device memory, row-major.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) pointer: u64,
    pub(crate) element: Element,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Elements from one row to the next.
    pub(crate) pitch: usize,
    /// Whether the product uses the transpose.
    pub(crate) transposed: bool,
}

/// The epilogue of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CublasEpilogue {
    /// Overwrites `out`.
    Write,
    /// Adds the product to `out`.
    Add,
    /// Adds a bias to each row, then applies ReLU.
    BiasRelu,
}

/// `out = a b`.
pub(crate) struct Product {
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
    pub(crate) out: Matrix,
    pub(crate) epilogue: CublasEpilogue,
    /// The bias, with the element type of `out`; 0 if there is none.
    pub(crate) bias: u64,
}

/// A pass of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ConvolutionPass {
    /// `y = x * w + bias`, then optionally ReLU.
    Forward {
        /// Whether ReLU follows.
        relu: bool,
    },
    /// `dx` from `dy` and `w`.
    GradInput,
    /// `dw` from `x` and `dy`.
    GradWeight,
}

/// Pass and sizes of a convolution. Channels are padded, as in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConvolutionKey {
    pub(crate) pass: ConvolutionPass,
    pub(crate) n: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) c: usize,
    pub(crate) k: usize,
    pub(crate) r: usize,
    pub(crate) pad: usize,
}

/// Addresses of a convolution's operands; 0 for an operand that the pass does not use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvolutionOperands {
    /// Input, or its gradient.
    pub(crate) x: u64,
    /// Weights, or their gradient.
    pub(crate) w: u64,
    /// Output, or its gradient.
    pub(crate) y: u64,
    /// Bias; 0 if there is none.
    pub(crate) bias: u64,
}

/// Number of rows of the last axis.
pub(crate) fn rows(shape: Shape) -> usize {
    shape.len() / shape.last().max(1)
}

/// A float as a kernel argument.
pub(crate) fn bits(x: f32) -> u64 {
    u64::from(x.to_bits())
}
