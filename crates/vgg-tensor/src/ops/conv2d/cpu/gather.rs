//! Valid convolution with large filters, as in dense fc6: the windows of some pixels are gathered into rows and
//! multiplied by the filters where they lie, so that no packed copy of 400 MB is made.

use super::{BackwardData, BackwardFilter, ConvAlgorithm, Forward, direct::Direct};
use crate::cpu::{Cpu, add_bias, product_transposed};

/// Pixels gathered at a time.
const PIXELS: usize = 256;

/// The gathering algorithm. Gradients, which only fine-tuning a dense network would need, are the direct ones.
pub(super) struct Gather;

impl ConvAlgorithm for Gather {
    fn forward(&self, cpu: Cpu, job: &Forward, y: &mut [f32]) {
        let s = &job.shape;
        let (depth, run) = (s.depth(), s.s * s.c);
        let mut windows = cpu.scratch(PIXELS.min(s.n * s.oh * s.ow) * depth);
        for (group, y) in y.chunks_mut(PIXELS * s.k).enumerate() {
            let pixels = y.len() / s.k;
            let windows = &mut windows[..pixels * depth];
            cpu.for_each_chunk(windows, depth, |i, window| {
                let pixel = group * PIXELS + i;
                let (image, row, column) = (pixel / (s.oh * s.ow), pixel / s.ow % s.oh, pixel % s.ow);
                for (r, to) in window.chunks_exact_mut(run).enumerate() {
                    let from = ((image * s.h + row + r) * s.w + column) * s.c;
                    to.copy_from_slice(&job.x[from..from + run]);
                }
            });
            product_transposed(cpu, windows, job.weight.value().cpu(), depth, y);
            add_bias(y, job.bias, job.relu);
        }
    }

    fn backward_data(&self, cpu: Cpu, job: &BackwardData, dx: &mut [f32], sums: &mut [f32]) {
        Direct.backward_data(cpu, job, dx, sums);
    }

    fn backward_filter(&self, cpu: Cpu, job: &BackwardFilter, dw: &mut [f32]) {
        Direct.backward_filter(cpu, job, dw);
    }
}
