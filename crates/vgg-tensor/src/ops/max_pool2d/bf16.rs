//! Max-pooling of bf16 activations on the CPU.

use std::sync::Arc;

use super::PoolIndex;
use crate::cpu::{BLOCK, Cpu, Line, SharedMut, Vector, VectorKernel, from_bf16};
use crate::tensor::{Blocked, BlockedView, Storage};
use crate::{Error, Grad, Result, Shape, Tensor};

/// The pooled map, and the index of each maximum: `[N, C / 32, PH, PW, 32]`.
pub(super) fn forward(x: &Tensor, output: Shape) -> Result<(Tensor, PoolIndex)> {
    let (input, cpu) = (x.shape(), x.device().cpu_context());
    let x = x.to_blocked()?;
    let mut index = cpu.memory.try_alloc(index_len(output))?;
    let y = Tensor::build_blocked(output, x.device(), |layout, lines| {
        let index = Some(SharedMut::new(index.as_u8_mut(index_len(output))));
        pool(cpu, x.blocked(), layout, lines, index);
    })?;
    Ok((y, PoolIndex { storage: Arc::new(Storage::from(index)), blocked: true, input, output }))
}

/// The pooled map.
pub(super) fn infer(x: &Tensor, output: Shape) -> Result<Tensor> {
    let x = x.to_blocked()?;
    Tensor::build_blocked(output, x.device(), |layout, lines| {
        pool(x.device().cpu_context(), x.blocked(), layout, lines, None);
    })
}

/// Copies each gradient to the position of its maximum.
pub(super) fn backward(grad: &Grad, index: &PoolIndex) -> Result<Grad> {
    let Storage::Cpu(bytes) = &*index.storage else {
        return Err(Error::Device { op: "max_pool2d", operand: "index" });
    };
    let (dy, device) = (grad.grad.to_blocked()?, grad.grad.device());
    let (dy, index_bytes) = (dy.blocked(), bytes.as_u8(index_len(index.output)));
    let dx = Tensor::build_blocked(index.input, device, |layout, lines| {
        let (cpu, lines) = (device.cpu_context(), SharedMut::new(lines));
        cpu.for_each(layout.n * layout.blocks() * layout.h, |row| {
            cpu.isa.run_wide(ScatterRow { layout, row, dy, index: index_bytes, lines: &lines });
        });
    })?;
    Ok(Grad { grad: dx, bias_grad: grad.bias_grad.clone() })
}

fn index_len(output: Shape) -> usize {
    output.len() / output.last() * output.last().next_multiple_of(BLOCK)
}

fn pool(cpu: Cpu, x: BlockedView, layout: &Blocked, lines: &mut [Line], index: Option<SharedMut<u8>>) {
    let lines = SharedMut::new(lines);
    cpu.for_each(layout.n * layout.blocks() * layout.h, |row| {
        cpu.isa.run_wide(PoolRow { x, layout, row, lines: &lines, index: index.as_ref() });
    });
}

/// One row of windows of a block of an image.
struct PoolRow<'a> {
    x: BlockedView<'a>,
    layout: &'a Blocked,
    row: usize,
    lines: &'a SharedMut<'a, Line>,
    index: Option<&'a SharedMut<'a, u8>>,
}

impl VectorKernel for PoolRow<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (layout, input) = (self.layout, self.x.layout);
        let (plane, row) = (self.row / layout.h, self.row % layout.h);
        let (image, block) = (plane / layout.blocks(), plane % layout.blocks());
        for column in 0..layout.w {
            let at = |r: usize, q: usize| {
                // A cut-off window repeats its first row or column, which changes neither value nor index.
                let r = if 2 * row + r < input.h { 2 * row + r } else { 2 * row };
                let q = if 2 * column + q < input.w { 2 * column + q } else { 2 * column };
                &self.x.lines[input.line(image, block, r, q)]
            };
            // SAFETY: each line is written once.
            let to = &mut unsafe { self.lines.slice(layout.line(image, block, row, column), 1) }[0];
            let places = largest([at(0, 0), at(0, 1), at(1, 0), at(1, 1)], to);
            if let Some(index) = self.index {
                // SAFETY: each line has index bytes of its own.
                unsafe { index.slice((self.row * layout.w + column) * BLOCK, BLOCK) }
                    .copy_from_slice(&places);
            }
        }
    }
}

/// The largest values of four lines, and which line has them: the first of equal values; a NaN only as the first.
#[inline(always)]
fn largest(lines: [&Line; 4], to: &mut Line) -> [u8; BLOCK] {
    let mut places = [0; BLOCK];
    for (i, (to, place)) in to.iter_mut().zip(&mut places).enumerate() {
        let [a, b, d, e] = lines.map(|line| line[i]);
        let larger = |x: u16, y: u16| from_bf16(y) > from_bf16(x);
        let (top, top_place) = if larger(a, b) { (b, 1) } else { (a, 0) };
        let (low, low_place) = if larger(d, e) { (e, 3) } else { (d, 2) };
        (*to, *place) = if larger(top, low) { (low, low_place) } else { (top, top_place) };
    }
    places
}

/// The gradients of one row of pixels of a block of an image.
struct ScatterRow<'a> {
    layout: &'a Blocked,
    row: usize,
    dy: BlockedView<'a>,
    index: &'a [u8],
    lines: &'a SharedMut<'a, Line>,
}

impl VectorKernel for ScatterRow<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (layout, pooled) = (self.layout, self.dy.layout);
        let (plane, y) = (self.row / layout.h, self.row % layout.h);
        let (image, block) = (plane / layout.blocks(), plane % layout.blocks());
        for x in 0..layout.w {
            // SAFETY: each line is written once.
            let to = &mut unsafe { self.lines.slice(layout.line(image, block, y, x), 1) }[0];
            let (row, column) = (y / 2, x / 2);
            if row >= pooled.h || column >= pooled.w {
                *to = [0; BLOCK];
                continue;
            }
            let from = &self.dy.lines[pooled.line(image, block, row, column)];
            let index = &self.index[((plane * pooled.h + row) * pooled.w + column) * BLOCK..];
            let place = (2 * (y % 2) + x % 2) as u8;
            for ((to, from), index) in to.iter_mut().zip(from).zip(index) {
                *to = if *index == place { *from } else { 0 };
            }
        }
    }
}
