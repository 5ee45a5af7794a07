//! All-reduce of gradients over ranks during the backward pass.
//!
//! A layer's gradient is final after the backward pass of the last micro-batch. Its all-reduce then starts,
//! fc8 first; at the end of the pass the sums replace the gradients.

use std::sync::Arc;

use vgg_layers::Network;
use vgg_tensor::AllReduce;
use vgg_tensor::{Parameter, ProcessGroup, StepState, Tensor};

use crate::Result;

/// All-reduces gradients over the ranks of a group.
pub(crate) struct GradientReducer(AllReduce);

impl GradientReducer {
    /// The reducer of a group of several ranks; `None` for a single process.
    pub(crate) fn new(group: &Arc<dyn ProcessGroup>, network: &Network) -> Result<Option<GradientReducer>> {
        if group.size() == 1 {
            return Ok(None);
        }
        Ok(Some(GradientReducer(AllReduce::new(group, network.device())?)))
    }

    /// Starts the all-reduce of a gradient that is final on this rank.
    pub(crate) fn push(&mut self, parameter: &mut Parameter) -> vgg_tensor::Result<()> {
        if !parameter.trainable {
            return Ok(());
        }
        self.0.begin(parameter.grad_mut()?)
    }

    /// Starts the all-reduce of zero gradients, if this rank has no images and other ranks have some.
    pub(crate) fn push_zeros(&mut self, network: &mut Network) -> Result<()> {
        for parameter in in_order(network) {
            let grad = parameter.grad_mut()?;
            let zeros = Tensor::zeros(grad.shape(), grad.device())?;
            grad.copy_from(&zeros)?;
            self.0.begin(grad)?;
        }
        Ok(())
    }

    /// Replaces the gradients by their sums. A value that is not finite on any rank clears the flag of
    /// `state` on all.
    pub(crate) fn finish(&mut self, network: &mut Network, state: &StepState) -> Result<()> {
        Ok(self.0.finish(in_order(network).map(Parameter::grad_mut), state)?)
    }
}

/// What the ranks agree on before a step.
#[derive(Debug)]
pub(crate) struct StepConsensus {
    /// Number of images on each rank.
    pub(crate) images: Vec<usize>,
    /// Whether any rank was interrupted.
    pub(crate) interrupted: bool,
    /// Whether rank 0 requests a checkpoint after the step.
    pub(crate) save: bool,
}

impl StepConsensus {
    pub(crate) fn new(
        group: &dyn ProcessGroup,
        images: usize,
        interrupted: bool,
        save: bool,
    ) -> Result<StepConsensus> {
        let mine = [images as f64, f64::from(u8::from(interrupted)), f64::from(u8::from(save))];
        let all = group.all_gather(&mine)?;
        let of = |what: usize| all.iter().skip(what).step_by(mine.len());
        Ok(StepConsensus {
            images: of(0).map(|images| *images as usize).collect(),
            interrupted: of(1).any(|&asked| asked > 0.0),
            save: of(2).next().is_some_and(|&wanted| wanted > 0.0),
        })
    }
}

/// Trainable parameters in the order in which the backward pass finishes them.
fn in_order(network: &mut Network) -> impl Iterator<Item = &mut Parameter> {
    let mut all: Vec<&mut Parameter> = network.parameters_mut().filter(|p| p.trainable).collect();
    all.reverse();
    all.into_iter()
}
