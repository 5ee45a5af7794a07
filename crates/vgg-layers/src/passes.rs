//! Forward and backward passes of a [`Network`].

use std::ops::Range;

use vgg_tensor::ops::lrn::{self, Lrn};
use vgg_tensor::ops::{conv2d, dropout, linear, max_pool2d};
use vgg_tensor::{Grad, GradMode, Parameter, ReluDropoutMask, Shape, StepState, Tensor};

use crate::error::in_layer;
use crate::network::{Layer, Params};
use crate::{Error, LayerKind, Network, Pass, PoolRounding, Result, Stopwatch};

/// Seeds dropout in one forward pass: equal values give equal masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutSeed {
    /// Seed of the run.
    pub seed: u64,
    /// Step number in the run.
    pub step: u64,
    /// Index in the batch of the first sample of this micro-batch.
    pub first_sample: usize,
}

/// Tensors that a forward pass saves for the backward pass, such as the inputs of layers.
#[derive(Default)]
pub struct ForwardCache {
    saved: Vec<Saved>,
}

enum Saved {
    Input(Tensor),
    Pool(max_pool2d::PoolIndex),
    Lrn {
        x: Tensor,
        base: Tensor,
    },
    /// Dropout saves nothing: the zeros of its output show what was dropped.
    Nothing,
}

impl Network {
    /// Logits `[N, classes]` of crops `x [N, crop, crop, 3]`, without dropout.
    ///
    /// # Errors
    /// [`Error::Input`] if `x` has another shape; [`Error::Layer`] if an operation fails.
    pub fn infer(&self, x: &Tensor) -> Result<Tensor> {
        self.check_input(x)?;
        self.infer_images(x, self.spec.pool_rounding, self.layers.len())
    }

    /// Output of the first `layers` layers for images of any size that they accept.
    ///
    /// Layers with large feature maps process `Device::cache_batch` images at a time.
    pub(crate) fn infer_images(&self, x: &Tensor, rounding: PoolRounding, layers: usize) -> Result<Tensor> {
        let n = x.shape().first();
        // The first convolution keeps the spatial size, so its output is the largest feature map.
        let widest = self.layers.first().map_or(1, |layer| layer.spec.output[2]);
        let first_output: Vec<usize> = x.shape().dims()[..3].iter().copied().chain([widest]).collect();
        let at_once = Shape::from_slice(&first_output).map_or(n, |shape| self.device.cache_batch(shape));
        let mut parts = Vec::with_capacity(n.div_ceil(at_once));
        let mut next = 0;
        for start in (0..n).step_by(at_once) {
            let images = x.images(start..(start + at_once).min(n))?;
            let large = |y: &Tensor| self.device.cache_batch(y.shape().with_first(n)) < n;
            let (y, reached) = self.infer_while(0..layers, images, rounding, large)?;
            next = reached;
            parts.push(y);
        }
        let all = if parts.len() == 1 { parts.swap_remove(0) } else { Tensor::concat(&parts)? };
        drop(parts);
        Ok(self.infer_while(next..layers, all, rounding, |_| true)?.0)
    }

    /// Runs layers in order while `go_on` is true for their output. Returns the last output and the next
    /// layer's index.
    fn infer_while(
        &self,
        layers: Range<usize>,
        x: Tensor,
        rounding: PoolRounding,
        go_on: impl Fn(&Tensor) -> bool,
    ) -> Result<(Tensor, usize)> {
        let (mut x, mut next) = (x, layers.start);
        while let Some(layer) = self.layers[..layers.end].get(next) {
            let following = self.layers[..layers.end].get(next + 1);
            let followed_by_pool =
                following.is_some_and(|following| following.spec.kind == LayerKind::MaxPool);
            let in_this_layer = in_layer(&layer.spec.name);
            let watch = self.stopwatch.as_deref();
            x = Stopwatch::time(watch, &layer.spec.name, Pass::Forward, || {
                match (layer.spec.kind, &layer.params) {
                    (LayerKind::Conv { kernel }, Some(p)) if followed_by_pool => {
                        next += 1;
                        let (weight, bias) = (&p.weight.weight, &p.bias.weight);
                        conv2d::forward_pooled(&x, weight, bias, conv_config(kernel), rounding)
                    }
                    (LayerKind::MaxPool, _) => max_pool2d::infer(&x, rounding),
                    _ => self.infer_layer(layer, &x),
                }
            })
            .map_err(in_this_layer)?;
            next += 1;
            if !go_on(&x) {
                break;
            }
        }
        Ok((x, next))
    }

    /// As [`Network::infer`] with dropout; also returns the cache for [`Network::backward`].
    ///
    /// # Errors
    /// As [`Network::infer`].
    pub fn forward(&self, x: Tensor, dropout: DropoutSeed) -> Result<(Tensor, ForwardCache)> {
        self.forward_with(x, dropout, None)
    }

    /// As [`Network::forward`], but dropout reads the step number from `state` at execution time instead of
    /// `dropout.step`, so that a captured step draws new masks at each launch.
    ///
    /// # Errors
    /// As [`Network::infer`].
    pub fn forward_in_step(
        &self,
        x: Tensor,
        dropout: DropoutSeed,
        state: &StepState,
    ) -> Result<(Tensor, ForwardCache)> {
        self.forward_with(x, dropout, Some(state))
    }

    fn forward_with(
        &self,
        x: Tensor,
        dropout: DropoutSeed,
        state: Option<&StepState>,
    ) -> Result<(Tensor, ForwardCache)> {
        self.check_input(&x)?;
        let mut saved = Vec::with_capacity(self.layers.len());
        let mut x = x;
        let mut dropouts = 0;
        for layer in &self.layers {
            let in_this_layer = in_layer(&layer.spec.name);
            let watch = self.stopwatch.as_deref();
            let pass = || match layer.spec.kind {
                LayerKind::MaxPool => {
                    max_pool2d::forward(&x, self.spec.pool_rounding).map(|(y, index)| (y, Saved::Pool(index)))
                }
                LayerKind::Lrn => lrn::forward(&x, Lrn::alexnet(self.spec.lrn_style))
                    .map(|(y, base)| (y, Saved::Lrn { x, base })),
                LayerKind::Dropout => {
                    dropouts += 1;
                    let DropoutSeed { seed, step, first_sample } = dropout;
                    let key = dropout::DropoutKey { seed, step, layer: dropouts - 1, first_sample };
                    let y = match state {
                        Some(state) => dropout::forward_in_step(&x, self.spec.dropout, key, state),
                        None => dropout::forward(&x, self.spec.dropout, key),
                    };
                    y.map(|y| (y, Saved::Nothing))
                }
                _ => self.infer_layer(layer, &x).map(|y| (y, Saved::Input(x))),
            };
            let (y, kept) =
                Stopwatch::time(watch, &layer.spec.name, Pass::Forward, pass).map_err(in_this_layer)?;
            saved.push(kept);
            x = y;
        }
        Ok((x, ForwardCache { saved }))
    }

    /// Computes the gradients of all trainable parameters from the gradient of the logits, last layer first.
    ///
    /// The pass ends at the network's first trainable layer. A non-finite gradient clears the flag of
    /// `state`.
    ///
    /// # Errors
    /// [`Error::Internal`] if `cache` is from a different network; [`Error::Layer`] if an operation fails.
    pub fn backward(
        &mut self,
        cache: ForwardCache,
        dlogits: Grad,
        mode: GradMode,
        state: &StepState,
    ) -> Result<()> {
        self.backward_with(cache, dlogits, mode, state, &mut |_| Ok(()))
    }

    /// As [`Network::backward`]; calls `finished` for the parameters of each layer as soon as their gradients
    /// are written: last layer first, bias before weight.
    ///
    /// # Errors
    /// As [`Network::backward`]; [`Error::Layer`] if `finished` fails.
    pub fn backward_with(
        &mut self,
        cache: ForwardCache,
        dlogits: Grad,
        mode: GradMode,
        state: &StepState,
        finished: &mut dyn FnMut(&mut Parameter) -> vgg_tensor::Result<()>,
    ) -> Result<()> {
        let lowest = self.layers.iter().position(|l| l.params.as_ref().is_some_and(Params::trainable));
        let Some(lowest) = lowest else { return Ok(()) };
        let mut grad = dlogits;
        let mut cache = cache;
        if cache.saved.len() != self.layers.len() {
            return Err(Error::Internal("the forward cache is from another network".into()));
        }
        for index in (lowest..self.layers.len()).rev() {
            let Some(saved) = cache.saved.pop() else {
                return Err(Error::Internal("the forward cache is from another network".into()));
            };
            let input_scale = (index > lowest).then(|| self.input_scale(index));
            let (style, layer) = (self.spec.lrn_style, &mut self.layers[index]);
            let (watch, name) = (self.stopwatch.as_deref(), &layer.spec.name);
            grad = match saved {
                Saved::Nothing => Ok(grad),
                Saved::Pool(pooled) => {
                    Stopwatch::time(watch, name, Pass::GradInput, || max_pool2d::backward(&grad, &pooled))
                }
                Saved::Lrn { x, base } => Stopwatch::time(watch, name, Pass::GradInput, || {
                    lrn::backward(
                        &grad.grad,
                        ReluDropoutMask { y: &x, scale: 1.0 },
                        &base,
                        Lrn::alexnet(style),
                    )
                }),
                Saved::Input(x) => layer.backward(x, grad, input_scale, mode, state, watch),
            }
            .map_err(in_layer(&layer.spec.name))?;
            if let Some(Params { weight, bias }) = &mut layer.params {
                finished(bias).and_then(|()| finished(weight)).map_err(in_layer(&layer.spec.name))?;
            }
        }
        Ok(())
    }

    /// Scale of the gradient at the input of layer `index`: `1 / (1 - rate)` after dropout, else 1.
    fn input_scale(&self, index: usize) -> f32 {
        match index.checked_sub(1).map(|previous| self.layers[previous].spec.kind) {
            Some(LayerKind::Dropout) => 1.0 / (1.0 - self.spec.dropout),
            _ => 1.0,
        }
    }

    pub(crate) fn infer_layer(&self, layer: &Layer, x: &Tensor) -> vgg_tensor::Result<Tensor> {
        match (layer.spec.kind, &layer.params) {
            (LayerKind::Conv { kernel }, Some(p)) => {
                conv2d::forward(x, &p.weight.weight, &p.bias.weight, conv_config(kernel))
            }
            (LayerKind::Linear { relu }, Some(p)) if p.weight.weight.shape().rank() == 4 => {
                let config = conv2d::Conv2d { pad: 0, relu };
                conv2d::forward(x, &p.weight.weight, &p.bias.weight, config)
            }
            (LayerKind::Linear { relu }, Some(p)) => {
                linear::forward(x, &p.weight.weight, &p.bias.weight, linear::Linear { relu })
            }
            (LayerKind::MaxPool, _) => max_pool2d::infer(x, self.spec.pool_rounding),
            (LayerKind::Lrn, _) => lrn::forward(x, Lrn::alexnet(self.spec.lrn_style)).map(|(y, _)| y),
            (LayerKind::Dropout, _) => Ok(x.clone()),
            (LayerKind::Conv { .. } | LayerKind::Linear { .. }, None) => {
                unreachable!("convolutions and linear layers have parameters")
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
    /// Writes the gradients of the layer's parameters. With `input_scale`, the scale of the
    /// [`ReluDropoutMask`] at the input, returns the grad-input; otherwise returns `grad`.
    fn backward(
        &mut self,
        x: Tensor,
        grad: Grad,
        input_scale: Option<f32>,
        mode: GradMode,
        state: &StepState,
        watch: Option<&Stopwatch>,
    ) -> vgg_tensor::Result<Grad> {
        let Some(Params { weight, bias }) = &mut self.params else { return Ok(grad) };
        if bias.trainable {
            bias.write_grad(&grad.bias_grad, mode)?;
        }
        let (name, conv) = (
            &self.spec.name,
            match self.spec.kind {
                LayerKind::Conv { kernel } => Some(conv_config(kernel)),
                _ => None,
            },
        );
        if weight.trainable {
            Stopwatch::time(watch, name, Pass::GradWeight, || match conv {
                Some(config) => conv2d::grad_weight(&x, &grad.grad, config, weight.grad_mut()?, mode, state),
                None => linear::grad_weight(&x, &grad.grad, weight.grad_mut()?, mode, state),
            })?;
        }
        let Some(scale) = input_scale else { return Ok(grad) };
        Stopwatch::time(watch, name, Pass::GradInput, || match conv {
            Some(config) => conv2d::grad_input_in_place(&grad.grad, &weight.weight, config, x, scale),
            None => linear::grad_input(&grad.grad, &weight.weight, ReluDropoutMask { y: &x, scale }),
        })
    }
}

/// A convolution with ReLU whose padding keeps the spatial size.
pub(crate) fn conv_config(kernel: usize) -> conv2d::Conv2d {
    conv2d::Conv2d { pad: kernel / 2, relu: true }
}
