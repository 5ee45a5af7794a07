//! Packing of filters for the tile unit: panels of 32 filters, `[K / 32][C / 32][taps][2][16 pairs][16][2]`.

use std::sync::Arc;

use super::super::shape::ConvShape;
use crate::Weight;
use crate::cpu::{BLOCK, Cpu, STEP, SharedMut, TILE, to_bf16};
use crate::tensor::{PackedKind, Storage};

/// Packed filters of a pass.
pub(in crate::ops) struct Filters {
    storage: Arc<Storage>,
    len: usize,
    pub(in crate::ops) panels: usize,
}

impl Filters {
    pub(in crate::ops) fn values(&self) -> &[u16] {
        match &*self.storage {
            Storage::Cpu(buffer) => buffer.as_u16(self.len),
            Storage::Blocked(_) | Storage::Cuda(_) => unreachable!("filters are packed in host memory"),
        }
    }
}

/// The filters `weight [k, taps, c]` of the forward pass.
pub(in crate::ops) fn forward(cpu: Cpu, weight: &Weight, sizes: Sizes) -> Filters {
    let Sizes { taps, c, .. } = sizes;
    let w = weight.value().cpu();
    packed(cpu, weight, PackedKind::Bf16Forward { taps, c }, sizes, |k, tap, from, to| {
        let values = &w[(k * taps + tap) * c + from..];
        to.iter_mut().zip(values).for_each(|(to, value)| *to = *value);
    })
}

/// The rotated filters of grad-input, from the channels of the output to those of the input.
pub(super) fn grad_input(cpu: Cpu, weight: &Weight, s: &ConvShape) -> Filters {
    let w = weight.value().cpu();
    let taps = s.r * s.s;
    let sizes = Sizes { k: s.c, taps, c: s.k };
    packed(cpu, weight, PackedKind::Bf16GradInput, sizes, |c, tap, from, to| {
        for (i, to) in to.iter_mut().enumerate() {
            *to = w[((from + i) * taps + taps - 1 - tap) * s.c + c];
        }
    })
}

/// Number of filters, taps and channels.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Sizes {
    pub(in crate::ops) k: usize,
    pub(in crate::ops) taps: usize,
    pub(in crate::ops) c: usize,
}

/// Packs filters; `read(filter, tap, first channel, to)` fills `to` with the values of as many channels.
fn packed(
    cpu: Cpu,
    weight: &Weight,
    kind: PackedKind,
    sizes: Sizes,
    read: impl Fn(usize, usize, usize, &mut [f32]) + Sync,
) -> Filters {
    let Sizes { k, taps, c } = sizes;
    let (panels, blocks) = (k.div_ceil(BLOCK), c.div_ceil(BLOCK));
    let len = panels * blocks * taps * STEP;
    let storage = weight.packed(kind, len / 2, |buffer| {
        // SAFETY: bf16 values fill the buffer, and every bit pattern is a valid one.
        let (_, packed, _) = unsafe { buffer.align_to_mut::<u16>() };
        let packed = SharedMut::new(packed);
        cpu.for_each(panels * blocks, |task| {
            let (panel, block) = (task / blocks, task % blocks);
            for tap in 0..taps {
                // SAFETY: each step of a panel is packed once.
                let step = unsafe { packed.slice((task * taps + tap) * STEP, STEP) };
                let channels = BLOCK.min(c - block * BLOCK);
                for filter in 0..BLOCK {
                    let mut values = [0.0; BLOCK];
                    if panel * BLOCK + filter < k {
                        read(panel * BLOCK + filter, tap, block * BLOCK, &mut values[..channels]);
                    }
                    let at = filter / TILE * STEP / 2 + filter % TILE * 2;
                    for (pair, values) in values.as_chunks::<2>().0.iter().enumerate() {
                        step[at + pair * 2 * TILE] = to_bf16(values[0]);
                        step[at + pair * 2 * TILE + 1] = to_bf16(values[1]);
                    }
                }
            }
        });
    });
    Filters { storage, len, panels }
}
