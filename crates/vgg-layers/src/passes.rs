//! Forward and backward passes, layer by layer.

use vgg_tensor::ops::{conv2d, dropout, linear, lrn, max_pool2d};
use vgg_tensor::{Gate, Grad, StepState, Tensor, Write};

use crate::error::in_layer;
use crate::network::{Layer, Params};
use crate::{Error, LayerKind, Network, Result};

/// What the random numbers of dropout depend on in one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutRun {
    /// Seed of the run.
    pub seed: u64,
    /// Step of the run.
    pub step: u64,
    /// Position of the first sample of this micro-batch in the step's mini-batch.
    pub first_sample: usize,
}

/// What a forward pass keeps for the backward pass: the input of every layer that needs it.
pub struct Trace {
    saved: Vec<Saved>,
}

enum Saved {
    Input(Tensor),
    Pool(max_pool2d::PoolIndex),
    Lrn {
        x: Tensor,
        base: Tensor,
    },
    /// Dropout needs nothing: its output says what was dropped.
    Nothing,
}

impl Network {
    /// Logits `[N, classes]` of crops `x [N, crop, crop, 3]`, without dropout.
    ///
    /// # Errors
    /// [`Error::Input`] if `x` is no batch of crops; [`Error::Layer`] if an operation fails.
    pub fn infer(&self, x: &Tensor) -> Result<Tensor> {
        self.check_input(x)?;
        let mut x = x.clone();
        for layer in &self.layers {
            x = self.infer_layer(layer, &x).map_err(in_layer(&layer.spec.name))?;
        }
        Ok(x)
    }

    /// As [`Network::infer`] with dropout, and what [`Network::backward`] needs.
    ///
    /// # Errors
    /// As [`Network::infer`].
    pub fn forward(&self, x: Tensor, run: DropoutRun) -> Result<(Tensor, Trace)> {
        self.check_input(&x)?;
        let mut saved = Vec::with_capacity(self.layers.len());
        let mut x = x;
        let mut dropouts = 0;
        for layer in &self.layers {
            let name = in_layer(&layer.spec.name);
            let (y, kept) = match layer.spec.kind {
                LayerKind::MaxPool => max_pool2d::forward(&x, self.spec.pool_rounding.into())
                    .map(|(y, index)| (y, Saved::Pool(index))),
                LayerKind::Lrn => {
                    lrn::forward(&x, self.spec.lrn_style.into()).map(|(y, base)| (y, Saved::Lrn { x, base }))
                }
                LayerKind::Dropout => {
                    dropouts += 1;
                    let DropoutRun { seed, step, first_sample } = run;
                    let key = dropout::DropoutKey { seed, step, layer: dropouts - 1, first_sample };
                    dropout::forward(&x, self.spec.dropout, key).map(|y| (y, Saved::Nothing))
                }
                _ => self.infer_layer(layer, &x).map(|y| (y, Saved::Input(x))),
            }
            .map_err(name)?;
            saved.push(kept);
            x = y;
        }
        Ok((x, Trace { saved }))
    }

    /// Computes the gradients of all trainable parameters from that of the logits, last layer first.
    ///
    /// Layers below the lowest trainable one are not visited. A gradient that is not finite clears the flag of
    /// `state`.
    ///
    /// # Errors
    /// [`Error::Layer`] if an operation fails.
    pub fn backward(&mut self, trace: Trace, dlogits: Grad, write: Write, state: &StepState) -> Result<()> {
        let lowest = self.layers.iter().position(|l| l.params.as_ref().is_some_and(Params::trainable));
        let Some(lowest) = lowest else { return Ok(()) };
        let scales: Vec<f32> = (0..self.layers.len()).map(|i| self.scale_below(i)).collect();
        let mut grad = dlogits;
        let mut saved = trace.saved;
        if saved.len() != self.layers.len() {
            return Err(Error::Spec("the trace is of another network".into()));
        }
        for index in (lowest..self.layers.len()).rev() {
            let Some(saved) = saved.pop() else {
                return Err(Error::Spec("the trace is of another network".into()));
            };
            let (style, layer) = (self.spec.lrn_style, &mut self.layers[index]);
            let scale = scales[index];
            let below = if index == lowest { None } else { Some(scale) };
            grad = match saved {
                Saved::Nothing => Ok(grad),
                Saved::Pool(pooled) => max_pool2d::backward(&grad, &pooled),
                Saved::Lrn { x, base } => {
                    lrn::backward(&grad.dz, Gate { y: &x, scale: 1.0 }, &base, style.into())
                }
                Saved::Input(x) => layer.backward(&x, grad, below, write, state),
            }
            .map_err(in_layer(&layer.spec.name))?;
        }
        Ok(())
    }

    /// What gradients are multiplied by on their way into layer `index`'s input: dropout's factor, if it is there.
    fn scale_below(&self, index: usize) -> f32 {
        match index.checked_sub(1).map(|below| self.layers[below].spec.kind) {
            Some(LayerKind::Dropout) => 1.0 / (1.0 - self.spec.dropout),
            _ => 1.0,
        }
    }

    pub(crate) fn infer_layer(&self, layer: &Layer, x: &Tensor) -> vgg_tensor::Result<Tensor> {
        match (layer.spec.kind, &layer.params) {
            (LayerKind::Conv { kernel }, Some(p)) => {
                conv2d::forward(x, &p.weight.weight, &p.bias.weight, conv_config(kernel))
            }
            (LayerKind::Linear { relu }, Some(p)) => {
                linear::forward(x, &p.weight.weight, &p.bias.weight, linear::Linear { relu })
            }
            (LayerKind::MaxPool, _) => max_pool2d::infer(x, self.spec.pool_rounding.into()),
            (LayerKind::Lrn, _) => lrn::forward(x, self.spec.lrn_style.into()).map(|(y, _)| y),
            (LayerKind::Dropout, _) => Ok(x.clone()),
            (LayerKind::Conv { .. } | LayerKind::Linear { .. }, None) => {
                unreachable!("every such layer is made with parameters")
            }
        }
    }

    fn check_input(&self, x: &Tensor) -> Result<()> {
        let crop = self.spec.crop;
        match x.shape().dims() {
            [_, h, w, 3] if *h == crop && *w == crop => Ok(()),
            _ => {
                Err(Error::Input { expected: format!("[N, {crop}, {crop}, 3]"), got: x.shape().to_string() })
            }
        }
    }
}

impl Params {
    fn trainable(&self) -> bool {
        self.weight.trainable || self.bias.trainable
    }
}

impl Layer {
    /// Writes the gradients of a layer with parameters; with `below`, the scale of the gate, returns the gradient of
    /// its input, else what came in.
    fn backward(
        &mut self,
        x: &Tensor,
        grad: Grad,
        below: Option<f32>,
        write: Write,
        state: &StepState,
    ) -> vgg_tensor::Result<Grad> {
        let Some(Params { weight, bias }) = &mut self.params else { return Ok(grad) };
        if bias.trainable {
            bias.write_grad(&grad.channel_sums, write)?;
        }
        match self.spec.kind {
            LayerKind::Conv { kernel } => {
                if weight.trainable {
                    conv2d::backward_filter(
                        x,
                        &grad.dz,
                        conv_config(kernel),
                        weight.grad_mut(),
                        write,
                        state,
                    )?;
                }
                let Some(scale) = below else { return Ok(grad) };
                conv2d::backward_data(&grad.dz, &weight.weight, conv_config(kernel), Gate { y: x, scale })
            }
            _ => {
                if weight.trainable {
                    linear::backward_weight(x, &grad.dz, weight.grad_mut(), write, state)?;
                }
                let Some(scale) = below else { return Ok(grad) };
                linear::backward_data(&grad.dz, &weight.weight, Gate { y: x, scale })
            }
        }
    }
}

/// A convolution that keeps the size of its input.
pub(crate) fn conv_config(kernel: usize) -> conv2d::Conv2d {
    conv2d::Conv2d { pad: kernel / 2, relu: true }
}
