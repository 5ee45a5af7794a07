//! Self-test of each operation with its gradients, on random values.

use std::sync::Arc;

use ndarray::{Array2, Array4};

use super::{Check, NamedValues};
use crate::ops::conv2d::{self, Conv2d};
use crate::ops::dropout::{self, DropoutKey};
use crate::ops::linear::{self, Linear};
use crate::ops::lrn::{self, Lrn, LrnStyle};
use crate::ops::max_pool2d::{self, PoolRounding};
use crate::ops::{self, MomentumVariant, SgdConfig};
use crate::{
    AllReduce, Device, Error, Grad, GradMode, ProcessGroup, ReluDropoutMask, Result, SingleProcess,
    StepGraph, StepState, Tensor, Weight,
};

/// Every operation with its gradients, by name.
pub const OPERATIONS: [(&str, Check<Error>); 11] = [
    ("conv2d", convolutions),
    ("linear", linears),
    ("max_pool2d", pools),
    ("lrn", normalisation),
    ("dropout", dropouts),
    ("softmax", softmaxes),
    ("softmax_cross_entropy", losses),
    ("global_avg_pool2d", means),
    ("normalize", pixels),
    ("sgd_step", updates),
    ("all_reduce", sums_over_ranks),
];

/// Values between -1 and 1 that bf16 holds exactly. None is near 0, where rounding could decide whether a
/// mask lets it pass.
fn values(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let value = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
        f32::from_bits((value + value.signum() * 0.01).to_bits() & 0xffff_0000)
    };
    (0..len).map(|_| next()).collect()
}

fn tensor<const N: usize>(seed: u32, shape: [usize; N], device: &Device) -> Result<Tensor> {
    Tensor::from_slice(&values(seed, shape.iter().product()), shape, device)
}

fn named(name: &str, tensor: &Tensor) -> Result<NamedValues> {
    let mut values = Vec::new();
    tensor.read_into(&mut values)?;
    Ok((name.to_owned(), values))
}

fn convolutions(device: &Device) -> Result<Vec<NamedValues>> {
    let mut results = Vec::new();
    // `[n, h, w, c, k, filter, padding]`.
    for [n, h, w, c, k, r, pad] in [
        [2, 9, 7, 3, 16, 3, 1],
        [3, 11, 45, 3, 64, 3, 1],
        [3, 8, 8, 24, 40, 3, 1],
        [2, 5, 6, 16, 8, 1, 0],
        [1, 8, 9, 8, 24, 7, 0],
    ] {
        let (oh, ow) = (h + 2 * pad - r + 1, w + 2 * pad - r + 1);
        let (x, dz) = (tensor(1, [n, h, w, c], device)?, tensor(2, [n, oh, ow, k], device)?);
        let weight = Weight::new(tensor(3, [k, r, r, c], device)?);
        let bias = Weight::new(tensor(4, [k], device)?);
        let state = StepState::new(device)?;
        let shape = format!("{h}x{w}, {r}x{r}, {c} to {k}");
        for relu in [true, false] {
            let y = conv2d::forward(&x, &weight, &bias, Conv2d { pad, relu })?;
            results.push(named(&format!("{shape}, relu {relu}"), &y)?);
        }
        let config = Conv2d { pad, relu: true };
        let grad = conv2d::grad_input(&dz, &weight, config, ReluDropoutMask { y: &x, scale: 2.0 })?;
        results.push(named(&format!("{shape}, grad-input"), &grad.grad)?);
        results.push(named(&format!("{shape}, bias gradient"), &grad.bias_grad)?);
        let mut dw = Tensor::zeros([k, r, r, c], device)?;
        conv2d::grad_weight(&x, &dz, config, &mut dw, GradMode::Overwrite, &state)?;
        conv2d::grad_weight(&x, &dz, config, &mut dw, GradMode::Accumulate, &state)?;
        results.push(named(&format!("{shape}, grad-weight, accumulated"), &dw)?);
    }
    Ok(results)
}

fn linears(device: &Device) -> Result<Vec<NamedValues>> {
    let mut results = Vec::new();
    for (n, map, outputs) in [(3, [2, 3, 8], 40), (5, [3, 3, 12], 10), (33, [1, 1, 100], 17)] {
        let inputs = map.iter().product();
        let x = tensor(1, [n, map[0], map[1], map[2]], device)?;
        let dz = tensor(2, [n, outputs], device)?;
        let weight = Weight::new(tensor(3, [outputs, inputs], device)?);
        let bias = Weight::new(tensor(4, [outputs], device)?);
        let state = StepState::new(device)?;
        for relu in [true, false] {
            let y = linear::forward(&x, &weight, &bias, Linear { relu })?;
            results.push(named(&format!("{inputs} to {outputs}, relu {relu}"), &y)?);
        }
        let grad = linear::grad_input(&dz, &weight, ReluDropoutMask { y: &x, scale: 2.0 })?;
        results.push(named(&format!("{inputs} to {outputs}, grad-input"), &grad.grad)?);
        results.push(named(&format!("{inputs} to {outputs}, bias gradient"), &grad.bias_grad)?);
        let mut dw = Tensor::zeros([outputs, inputs], device)?;
        linear::grad_weight(&x, &dz, &mut dw, GradMode::Overwrite, &state)?;
        linear::grad_weight(&x, &dz, &mut dw, GradMode::Accumulate, &state)?;
        results.push(named(&format!("{inputs} to {outputs}, grad-weight, accumulated"), &dw)?);
    }
    Ok(results)
}

fn pools(device: &Device) -> Result<Vec<NamedValues>> {
    let mut results = Vec::new();
    for rounding in [PoolRounding::Floor, PoolRounding::Ceil] {
        let x = tensor(1, [2, 7, 6, 11], device)?;
        let (y, index) = max_pool2d::forward(&x, rounding)?;
        let dy = tensor(2, [2, y.shape().dims()[1], 3, 11], device)?;
        let bias_grad = Tensor::zeros([11], device)?;
        let grad = max_pool2d::backward(&Grad { grad: dy, bias_grad }, &index)?;
        results.push(named(&format!("{rounding:?}"), &y)?);
        results.push(named(&format!("{rounding:?}, gradient"), &grad.grad)?);
    }
    Ok(results)
}

fn normalisation(device: &Device) -> Result<Vec<NamedValues>> {
    let config = Lrn { alpha: 0.5, ..Lrn::alexnet(LrnStyle::AlexNet) };
    let (x, dy) = (tensor(1, [2, 3, 5, 13], device)?, tensor(2, [2, 3, 5, 13], device)?);
    let (y, base) = lrn::forward(&x, config)?;
    let grad = lrn::backward(&dy, ReluDropoutMask { y: &x, scale: 1.0 }, &base, config)?;
    Ok(vec![named("forward", &y)?, named("gradient", &grad.grad)?, named("bias gradient", &grad.bias_grad)?])
}

fn dropouts(device: &Device) -> Result<Vec<NamedValues>> {
    let key = DropoutKey { seed: 0x1234_5678_9abc, step: 3, layer: 1, first_sample: 5 };
    let (vectors, maps) = (tensor(1, [7, 999], device)?, tensor(2, [3, 4, 5, 6], device)?);
    let y = dropout::forward(&vectors, 0.5, key)?;
    Ok(vec![named("vectors", &y)?, named("maps", &dropout::forward(&maps, 0.25, key)?)?])
}

fn softmaxes(device: &Device) -> Result<Vec<NamedValues>> {
    Ok(vec![named("forward", &ops::softmax(&tensor(1, [5, 1000], device)?)?)?])
}

fn losses(device: &Device) -> Result<Vec<NamedValues>> {
    let (x, state) = (tensor(1, [9, 1000], device)?, StepState::new(device)?);
    let targets: Vec<u32> = (0..9).map(|i| i * 111).collect();
    let loss = ops::softmax_cross_entropy(&x, &targets, 0.25, &state)?;
    let squares = ops::euclidean_loss(&x, &tensor(2, [9, 1000], device)?, 0.5, &state)?;
    let finite = if state.finite()? { 1.0 } else { 0.0 };
    Ok(vec![
        named("cross-entropy losses", &loss.per_sample)?,
        named("cross-entropy gradient", &loss.grad.grad)?,
        named("Euclidean losses", &squares.per_sample)?,
        named("Euclidean gradient", &squares.grad.grad)?,
        ("finite".into(), vec![finite]),
    ])
}

fn means(device: &Device) -> Result<Vec<NamedValues>> {
    let y = ops::global_avg_pool2d(&tensor(1, [3, 4, 5, 100], device)?)?;
    Ok(vec![named("forward", &y)?])
}

fn pixels(device: &Device) -> Result<Vec<NamedValues>> {
    let mut value = 0u8;
    let pixels = Array4::from_shape_simple_fn((3, 5, 7, 3), || {
        value = value.wrapping_mul(5).wrapping_add(17);
        value
    });
    let offset = Array2::from_elem((3, 3), -120.5);
    let y = ops::normalize(pixels.view(), offset.view(), [0.5, 1.0, 2.0], device)?;
    Ok(vec![named("pixels", &y)?])
}

fn updates(device: &Device) -> Result<Vec<NamedValues>> {
    let mut results = Vec::new();
    for form in [MomentumVariant::Caffe, MomentumVariant::Torch] {
        let mut weight = Weight::new(tensor(1, [24, 16], device)?);
        let (grad, mut velocity) = (tensor(2, [24, 16], device)?, tensor(3, [24, 16], device)?);
        let config = SgdConfig { momentum_variant: form, momentum: 0.9, weight_decay: 5e-4, lr_mult: 2.0 };
        let (x, bias) = (tensor(4, [3, 16], device)?, Weight::new(Tensor::zeros([24], device)?));
        let state = StepState::new(device)?;
        for step in 0..3 {
            // A matrix product before each step, so that the step has to update the packed copy of the
            // weights.
            linear::forward(&x, &weight, &bias, Linear { relu: true })?;
            state.begin(step, 0.05)?;
            ops::sgd_step(&mut weight, &grad, &mut velocity, &state, &config)?;
        }
        let y = linear::forward(&x, &weight, &bias, Linear { relu: true })?;
        results.push(named(&format!("{form:?}, weight"), weight.value())?);
        results.push(named(&format!("{form:?}, velocity"), &velocity)?);
        results.push(named(&format!("{form:?}, matrix product with the new weight"), &y)?);
    }
    Ok(results)
}

/// NCCL all-reduce over one rank, as part of a captured step. Returns no results without NCCL, which a single
/// GPU does not need.
fn sums_over_ranks(device: &Device) -> Result<Vec<NamedValues>> {
    if !super::has_nccl() {
        return Ok(Vec::new());
    }
    let group: Arc<dyn ProcessGroup> = Arc::new(SingleProcess);
    let mut all = AllReduce::new(&group, device)?;
    let state = StepState::new(device)?;
    let (dz, x) = (tensor(5, [300, 8], device)?, tensor(6, [300, 40], device)?);
    let mut grads = [Tensor::zeros([8, 40], device)?, Tensor::zeros([8], device)?];
    let mut replay = StepGraph::new();
    for step in 0..4 {
        state.begin(step, 0.1)?;
        replay.run(device, || -> Result<()> {
            // A gradient for the all-reduce to wait for.
            linear::grad_weight(&x, &dz, &mut grads[0], GradMode::Overwrite, &state)?;
            grads.iter_mut().try_for_each(|grad| all.begin(grad))?;
            all.finish(grads.iter_mut().map(Ok), &state)
        })?;
    }
    let finite = if state.finite()? { 1.0 } else { 0.0 };
    Ok(vec![named("sums", &grads[0])?, named("zeros", &grads[1])?, ("finite".to_owned(), vec![finite])])
}
