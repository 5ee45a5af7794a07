//! Fully connected layers on a GPU, as cuBLASLt products of padded rows.

use super::{Linear, LinearShape};
use crate::cuda::{CublasEpilogue, Cuda, Element, Matrix, Product, rows};
use crate::tensor::Operand;
use crate::{Grad, GradMode, Result, Shape, StepState, Tensor, Weight};

const OP: &str = "linear";

/// `y [n, out]`: an activation with ReLU, f32 without.
pub(super) fn forward(
    s: LinearShape,
    x: &Tensor,
    weight: &Weight,
    bias: &Weight,
    config: Linear,
) -> Result<Tensor> {
    let device = x.device();
    let cuda = device.cuda_context();
    let shape = Shape::from([s.n, s.outputs]);
    let input = cuda.matrix_of(OP, "x", x)?;
    if !config.relu {
        return scores(s, &input, weight, bias, shape);
    }
    let format = cuda.activation(s.outputs);
    let y = cuda.alloc(shape, format)?;
    let (matrix, bias) = (cuda.weight_of(OP, "weight", weight)?, cuda.weight_of(OP, "bias", bias)?);
    let outputs = format.pitch(s.outputs);
    // SAFETY: matrices are activations and weights padded alike, `y` and the bias as wide as the padded
    // weight has rows.
    unsafe {
        cuda.product(&Product {
            a: activation(cuda, &input, s.n),
            b: Matrix { transposed: true, ..activation(cuda, &matrix, outputs) },
            out: matrix_at(y.pointer(), format.element, [s.n, outputs]),
            epilogue: CublasEpilogue::BiasRelu,
            bias: bias.pointer,
        })
    }?;
    Ok(Tensor::from_buffer(shape, y, device))
}

/// Scores `weight x + bias` in f32 for every row of `x [.., c]`, in `shape`.
pub(super) fn scores_of_rows(x: &Tensor, weight: &Weight, bias: &Weight, shape: Shape) -> Result<Tensor> {
    let cuda = x.device().cuda_context();
    let input = cuda.activation_of(OP, "x", x)?;
    let s = LinearShape { n: rows(shape), inputs: x.shape().last(), outputs: shape.last() };
    scores(s, &input, weight, bias, shape)
}

fn scores(s: LinearShape, input: &Operand, weight: &Weight, bias: &Weight, shape: Shape) -> Result<Tensor> {
    let device = weight.value().device();
    let cuda = device.cuda_context();
    let y = cuda.take_plain(shape)?;
    let matrix = cuda.weight_of(OP, "weight", weight)?;
    let (bias, _) = bias.value().cuda_memory(OP, "bias")?;
    // SAFETY: input and weight are padded alike, and `y` has `n * outputs` floats.
    unsafe {
        cuda.product(&Product {
            a: activation(cuda, input, s.n),
            b: Matrix { transposed: true, ..activation(cuda, &matrix, s.outputs) },
            out: matrix_at(y.pointer(), Element::F32, [s.n, s.outputs]),
            epilogue: CublasEpilogue::Write,
            bias: 0,
        })
    }?;
    let arguments = [y.pointer(), bias, s.n as u64, s.outputs as u64, 0];
    // SAFETY: `y` has `n` rows of as many floats as the bias has.
    unsafe { cuda.launch("add_bias", s.n * s.outputs, &arguments) }?;
    Ok(Tensor::from_buffer(shape, y, device))
}

/// Grad-input in the shape of the input `y`, masked by it.
pub(super) fn grad_input(
    s: LinearShape,
    dz: &Tensor,
    weight: &Weight,
    y: &Tensor,
    scale: f32,
) -> Result<Grad> {
    let device = dz.device();
    let cuda = device.cuda_context();
    let (shape, c) = (y.shape(), y.shape().last());
    let gradient = cuda.activation_of(OP, "dz", dz)?;
    let matrix = cuda.weight_of(OP, "weight", weight)?;
    let saved = cuda.activation_of(OP, "the saved input", y)?;
    let dx = cuda.alloc(shape, cuda.activation(c))?;
    // Images with padded channels are not rows of a matrix: the product is then written to a buffer first.
    let direct = shape.rank() == 2 || saved.pitch == c;
    let row_pitch = cuda.activation(s.inputs).pitch(s.inputs);
    let apart = match direct {
        true => None,
        false => Some(cuda.alloc(Shape::from([s.n, s.inputs]), cuda.activation(s.inputs))?),
    };
    let to = apart.as_ref().map_or(dx.pointer(), |buffer| buffer.pointer());
    // SAFETY: the gradient is as wide as the padded weight has rows, and what is written has `n` rows of
    // `row_pitch`.
    unsafe {
        cuda.product(&Product {
            a: activation(cuda, &gradient, s.n),
            b: activation(cuda, &matrix, gradient.pitch),
            out: matrix_at(to, cuda.element(), [s.n, row_pitch]),
            epilogue: CublasEpilogue::Write,
            bias: 0,
        })
    }?;
    if let Some(from) = &apart {
        let (n, pixels) = (s.n as u64, (s.inputs / c) as u64);
        let (c, pitch) = (c as u64, saved.pitch as u64);
        let arguments = [from.pointer(), dx.pointer(), n, s.inputs as u64, c, pitch, row_pitch as u64];
        // SAFETY: `from` has `n` rows of `row_pitch`, and `dx` is an activation of the images' shape.
        unsafe { cuda.launch("unflatten", (n * pixels * pitch) as usize, &arguments) }?;
    }
    // SAFETY: `dx` and the saved input are activations of this shape.
    unsafe { cuda.gradient(shape, dx, Some((saved.pointer, scale)), device) }
}

/// Grad-weight, in f32.
pub(super) fn grad_weight(
    s: LinearShape,
    x: &Tensor,
    dz: &Tensor,
    dw: &mut Tensor,
    mode: GradMode,
    state: &StepState,
) -> Result<()> {
    let cuda = x.device().cuda_context();
    let (input, gradient) = (cuda.matrix_of(OP, "x", x)?, cuda.activation_of(OP, "dz", dz)?);
    let to = dw.cuda_memory_mut(OP, "dw")?;
    let part = |operand: &Operand, columns| Matrix { columns, ..activation(cuda, operand, s.n) };
    // SAFETY: both are activations of `n` rows, and the gradient of the weight has `outputs * inputs` floats.
    unsafe {
        cuda.product(&Product {
            a: Matrix { transposed: true, ..part(&gradient, s.outputs) },
            b: part(&input, s.inputs),
            out: matrix_at(to, Element::F32, [s.outputs, s.inputs]),
            epilogue: if mode == GradMode::Accumulate { CublasEpilogue::Add } else { CublasEpilogue::Write },
            bias: 0,
        })
    }?;
    let len = s.outputs * s.inputs;
    // SAFETY: the gradient has that many floats, and the state is of this device.
    unsafe { cuda.launch("check_finite", len, &[to, len as u64, state.pointer(OP, cuda)?]) }
}

/// An operand with its padding, as a matrix of `rows` rows.
fn activation(cuda: &Cuda, operand: &Operand, rows: usize) -> Matrix {
    matrix_at(operand.pointer, cuda.element(), [rows, operand.pitch])
}

fn matrix_at(pointer: u64, element: Element, [rows, columns]: [usize; 2]) -> Matrix {
    Matrix { pointer, element, rows, columns, pitch: columns, transposed: false }
}
