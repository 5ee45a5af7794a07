//! The shape of a tensor.

use std::fmt;

const MAX_RANK: usize = 4;

/// Sizes of the one to four axes of a tensor, outermost first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// The shape with these sizes, or `None` unless there are one to four.
    pub fn from_slice(dims: &[usize]) -> Option<Shape> {
        if dims.is_empty() || dims.len() > MAX_RANK {
            return None;
        }
        let mut all = [1; MAX_RANK];
        all[..dims.len()].copy_from_slice(dims);
        Some(Shape { dims: all, rank: dims.len() })
    }

    /// Sizes of the axes.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the first axis: the batch.
    pub fn first(&self) -> usize {
        self.dims[0]
    }

    /// Size of the last axis: the channels.
    pub fn last(&self) -> usize {
        self.dims[self.rank - 1]
    }

    /// Elements of one sample, such as `H * W * C` of `[N, H, W, C]`.
    pub fn numel_per_sample(&self) -> usize {
        self.dims[1..self.rank].iter().product()
    }

    /// The same shape with size `n` of the first axis.
    pub fn with_first(mut self, n: usize) -> Shape {
        self.dims[0] = n;
        self
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        const { assert!(N >= 1 && N <= MAX_RANK, "a shape has one to four axes") };
        let mut all = [1; MAX_RANK];
        all[..N].copy_from_slice(&dims);
        Shape { dims: all, rank: N }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
