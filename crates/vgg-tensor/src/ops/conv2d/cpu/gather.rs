//! Unpadded convolution with large filters, as in dense fc6. The windows of some pixels are gathered into
//! rows and multiplied by the unpacked filters, so that no packed copy of 400 MB is needed.

use super::{ConvKernel, Forward, GradInput, GradWeight, direct::Direct};
use crate::cpu::{Cpu, add_bias, gemm_nt};

/// Pixels gathered at a time.
const PIXELS: usize = 256;

/// The gather algorithm. It uses the direct algorithm for gradients, which only fine-tuning of a dense
/// network needs.
pub(super) struct Gather;

impl ConvKernel for Gather {
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
            gemm_nt(cpu, windows, job.weight.value().cpu(), depth, y);
            add_bias(cpu.isa, y, job.bias, job.relu);
        }
    }

    fn grad_input(&self, cpu: Cpu, job: &GradInput, dx: &mut [f32], sums: &mut [f32]) {
        Direct.grad_input(cpu, job, dx, sums);
    }

    fn grad_weight(&self, cpu: Cpu, job: &GradWeight, dw: &mut [f32]) {
        Direct.grad_weight(cpu, job, dw);
    }
}
