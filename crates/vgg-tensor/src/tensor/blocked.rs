//! The layout of bf16 activations of a CPU, in blocks of 32 channels.

use crate::Shape;
use crate::alloc::CpuBuffer;
use crate::cpu::{BLOCK, Cpu, Line, SharedMut};

/// Zero pixels around an image, enough for 3x3 filters with padding 1.
pub(crate) const BORDER: usize = 1;
/// Lines after the last one that a tile may read; their values are not used.
const SLACK: usize = 16;

/// Positions of the lines of activations: a line has 32 channels of a pixel.
///
/// Images `[N, H, W, C]` are stored as `[N, C / 32, H + 2, W + 2, 32]` with a border of zeros, so that a window of a
/// convolution is a fixed set of offsets, and 16 neighbouring pixels are a tile. Vectors `[N, C]` are stored as
/// `[C / 32, N, 32]`. Channels beyond `C` are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub(crate) n: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) c: usize,
    /// In lines, from a sample, block or row to the next.
    pub(crate) sample_stride: usize,
    pub(crate) block_stride: usize,
    pub(crate) row_stride: usize,
    border: usize,
}

impl Blocked {
    /// The layout of a tensor with four or two axes.
    pub(crate) fn of(shape: Shape) -> Option<Blocked> {
        match *shape.dims() {
            [n, h, w, c] => Some(Blocked::images([n, h, w, c])),
            [n, c] => Some(Blocked::vectors(n, c)),
            _ => None,
        }
    }

    /// The layout of images `[n, h, w, c]`.
    pub(crate) fn images([n, h, w, c]: [usize; 4]) -> Blocked {
        let row_stride = w + 2 * BORDER;
        let block_stride = (h + 2 * BORDER) * row_stride;
        let sample_stride = c.div_ceil(BLOCK) * block_stride;
        Blocked { n, h, w, c, sample_stride, block_stride, row_stride, border: BORDER }
    }

    /// The layout of `n` vectors of `c` values.
    pub(crate) fn vectors(n: usize, c: usize) -> Blocked {
        Blocked { n, h: 1, w: 1, c, sample_stride: 1, block_stride: n, row_stride: 1, border: 0 }
    }

    /// Whether this is the layout of vectors.
    pub(crate) fn holds_vectors(&self) -> bool {
        self.border == 0
    }

    /// Number of blocks of channels.
    pub(crate) fn blocks(&self) -> usize {
        self.c.div_ceil(BLOCK)
    }

    /// Number of lines, with those that tiles read beyond the last one.
    fn lines(&self) -> usize {
        let all =
            if self.border > 0 { self.n * self.sample_stride } else { self.blocks() * self.block_stride };
        all + SLACK
    }

    /// Index of the line of pixel `(y, x)`. The border has the rows and columns -1 and `h` or `w`.
    pub(crate) fn line(&self, sample: usize, block: usize, y: usize, x: usize) -> usize {
        let inside = (y + self.border) * self.row_stride + x + self.border;
        sample * self.sample_stride + block * self.block_stride + inside
    }

    /// Number of lines of a block of an image, including its border.
    pub(crate) fn padded_pixels(&self) -> usize {
        (self.h + 2 * self.border) * self.row_stride
    }

    /// Sets the border of every block to zero.
    fn clear_border(&self, cpu: Cpu, lines: &mut [Line]) {
        if self.border == 0 {
            return;
        }
        let (rows, columns) = (self.h + 2, self.row_stride);
        let lines = SharedMut::new(lines);
        cpu.for_each(self.n * self.blocks(), |i| {
            // SAFETY: each block of an image is a range of its own.
            let block = unsafe { lines.slice(i * self.block_stride, self.block_stride) };
            block[..columns].fill([0; BLOCK]);
            block[(rows - 1) * columns..].fill([0; BLOCK]);
            for row in block.chunks_exact_mut(columns) {
                row[0] = [0; BLOCK];
                row[columns - 1] = [0; BLOCK];
            }
        });
    }
}

/// The memory of blocked activations.
pub(crate) struct BlockedBuffer {
    buffer: CpuBuffer,
    pub(crate) layout: Blocked,
}

impl BlockedBuffer {
    /// Memory of this layout, with a border of zeros. The other lines are arbitrary.
    pub(crate) fn new(cpu: Cpu, layout: Blocked) -> BlockedBuffer {
        let mut blocked =
            BlockedBuffer { buffer: cpu.memory.alloc(layout.lines() * size_of::<Line>()), layout };
        layout.clear_border(cpu, blocked.lines_mut());
        blocked
    }

    pub(crate) fn lines(&self) -> &[Line] {
        self.buffer.as_u16(self.layout.lines() * BLOCK).as_chunks().0
    }

    pub(crate) fn lines_mut(&mut self) -> &mut [Line] {
        self.buffer.as_u16_mut(self.layout.lines() * BLOCK).as_chunks_mut().0
    }
}

/// Blocked activations of an operation: a range of samples.
#[derive(Clone, Copy)]
pub(crate) struct BlockedView<'a> {
    /// All lines from the first sample.
    pub(crate) lines: &'a [Line],
    pub(crate) layout: Blocked,
}
