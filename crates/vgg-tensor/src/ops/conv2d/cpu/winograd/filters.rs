//! Filter transform `G g G^T` into the panels that the matrix products read.

use super::super::ConvShape;
use super::tiles::CHANNEL_BLOCK;
use super::transform::{Columns, Transform};
use crate::cpu::{Cpu, SharedMut, Vector, VectorKernel};

/// Length of the transformed filters of a convolution: `[side * side]` elements of `[k / 16][c][16]`.
pub(super) fn filters_len<T: Transform>(s: &ConvShape) -> usize {
    T::SIDE * T::SIDE * filters_pitch(s)
}

/// Values from one element of the transformed filters to the next: an odd number of cache lines, so that the elements
/// of a filter fall into different cache sets.
pub(super) fn filters_pitch(s: &ConvShape) -> usize {
    ((s.k.div_ceil(CHANNEL_BLOCK) * s.c) | 1) * CHANNEL_BLOCK
}

/// The pass of the convolution that uses the filters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Unchanged: a panel holds 16 filters.
    Forward,
    /// Rotated by 180 degrees, with inputs and outputs swapped: a panel holds 16 channels of the filters.
    GradInput,
}

/// Transforms `weight [k][taps][c]` of the forward convolution for a convolution of shape `s`, the shape of
/// the pass: for grad-input, `s.k` is the number of channels of the filters and `s.c` the number of filters.
pub(super) fn transform_filters<T: Transform>(
    cpu: Cpu,
    s: &ConvShape,
    weight: &[f32],
    pass: Pass,
    out: &mut [f32],
) {
    let panels = s.k.div_ceil(CHANNEL_BLOCK);
    let blocks = s.c.div_ceil(CHANNEL_BLOCK);
    let pitch = filters_pitch(s);
    assert_eq!(out.len(), filters_len::<T>(s));
    let out = SharedMut::new(out);
    cpu.for_each(panels * blocks, |task| {
        let (panel, first) = (task / blocks, task % blocks * CHANNEL_BLOCK);
        let mut taps = [[[0.0f32; CHANNEL_BLOCK]; CHANNEL_BLOCK]; 9];
        gather::<T>(s, weight, pass, panel * CHANNEL_BLOCK, first, &mut taps);
        let channels = CHANNEL_BLOCK.min(s.c - first);
        let start = (panel * s.c + first) * CHANNEL_BLOCK;
        let kernel = FilterBlock {
            taps: &taps,
            channels,
            start,
            pitch,
            out: &out,
            transform: std::marker::PhantomData::<T>,
        };
        cpu.isa.run_wide(kernel);
    });
}

/// Gathers 16 outputs (zeros past the last) and 16 inputs of the filters as `[tap][input][output]`.
fn gather<T: Transform>(
    s: &ConvShape,
    weight: &[f32],
    pass: Pass,
    output: usize,
    input: usize,
    taps: &mut [[[f32; CHANNEL_BLOCK]; CHANNEL_BLOCK]; 9],
) {
    let count = T::R * T::R;
    let (outputs, inputs) = (CHANNEL_BLOCK.min(s.k - output), CHANNEL_BLOCK.min(s.c - input));
    for (tap, to) in taps.iter_mut().enumerate().take(count) {
        match pass {
            Pass::Forward => {
                for o in 0..outputs {
                    let from = &weight[((output + o) * count + tap) * s.c + input..][..inputs];
                    for (i, value) in from.iter().enumerate() {
                        to[i][o] = *value;
                    }
                }
            }
            Pass::GradInput => {
                for (i, to) in to.iter_mut().enumerate().take(inputs) {
                    let from = &weight[((input + i) * count + count - 1 - tap) * s.k + output..][..outputs];
                    to[..outputs].copy_from_slice(from);
                }
            }
        }
    }
}

/// Transforms up to 16 inputs of one panel.
struct FilterBlock<'a, T> {
    taps: &'a [[[f32; CHANNEL_BLOCK]; CHANNEL_BLOCK]; 9],
    channels: usize,
    /// Start of the panel's first input within every element.
    start: usize,
    pitch: usize,
    out: &'a SharedMut<'a, f32>,
    transform: std::marker::PhantomData<T>,
}

impl<T: Transform> VectorKernel for FilterBlock<'_, T> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let zero = V::splat(0.0);
        for input in 0..self.channels {
            for part in (0..CHANNEL_BLOCK).step_by(V::LANES) {
                let mut columns = Columns::new();
                for j in 0..T::R {
                    let mut g = [zero; 3];
                    for (i, g) in g.iter_mut().enumerate().take(T::R) {
                        // SAFETY: a block's row has room for the vector.
                        *g = unsafe { V::load(self.taps[i * T::R + j][input].as_ptr().add(part)) };
                    }
                    columns.push(T::filter(&g));
                }
                for i in 0..T::SIDE {
                    let row = columns.row(i);
                    let row = T::filter(&[row[0], row[1], row[2]]);
                    for (j, value) in row.iter().enumerate().take(T::SIDE) {
                        let at = (i * T::SIDE + j) * self.pitch + self.start + input * CHANNEL_BLOCK + part;
                        // SAFETY: every task writes panels and inputs of its own.
                        unsafe { value.store(self.out.pointer(at, V::LANES)) };
                    }
                }
            }
        }
    }
}
