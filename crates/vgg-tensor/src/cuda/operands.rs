//! Operands of GPU work: tensor formats, matrices and convolutions, by device address. No CUDA types.

#![cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "without CUDA nothing reads the operands"))]

use crate::{Precision, Shape};

/// Channels of images and filters are padded to multiples of this.
pub(crate) const CHANNELS: usize = 8;
/// Threads of a block in every kernel.
pub(crate) const THREADS: usize = 256;

/// How the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) element: Element,
    /// Zeros behind each row of the last axis.
    pub(crate) padding: usize,
}

impl Format {
    /// Floats without padding.
    pub(crate) const PLAIN: Format = Format { element: Element::F32, padding: 0 };

    /// Elements from one row of a last axis of `c` to the next.
    pub(crate) fn pitch(self, c: usize) -> usize {
        c + self.padding
    }
}

/// The type of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    Bf16,
}

impl Element {
    /// The element of activations.
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
    /// Whether it is taken as its transpose.
    pub(crate) transposed: bool,
}

/// What is done with a product before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CublasEpilogue {
    /// It replaces what was there.
    Write,
    /// It is added to what was there.
    Add,
    /// A bias is added to each row, and negative values become zero.
    BiasRelu,
}

/// `out = a b`.
pub(crate) struct Product {
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
    pub(crate) out: Matrix,
    pub(crate) epilogue: CublasEpilogue,
    /// The bias, of the type of `out`; 0 without.
    pub(crate) bias: u64,
}

/// Which convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ConvolutionPass {
    /// `y = x * w + bias`, then ReLU if asked for.
    Forward {
        /// Whether negative results become zero.
        relu: bool,
    },
    /// `dx` from `dy` and `w`.
    GradInput,
    /// `dw` from `x` and `dy`.
    GradWeight,
}

/// Sizes in the device's memory: channels are padded.
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

/// Pointers of a convolution's operands; what a pass does not have is 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvolutionOperands {
    pub(crate) x: u64,
    pub(crate) w: u64,
    pub(crate) y: u64,
    pub(crate) bias: u64,
}

/// Rows of the last axis of a shape.
pub(crate) fn rows(shape: Shape) -> usize {
    shape.len() / shape.last().max(1)
}

/// The argument of a kernel that is a float.
pub(crate) fn bits(x: f32) -> u64 {
    u64::from(x.to_bits())
}
