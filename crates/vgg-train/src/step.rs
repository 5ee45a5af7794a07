//! One step: forward and backward over the micro-batches of a mini-batch, then the update.

use ndarray::{Axis, Slice};
use vgg_data::Batch;
use vgg_layers::{DropoutRun, Network};
use vgg_optim::Sgd;
use vgg_tensor::{StepState, Tensor, Write, ops};

use crate::Result;

/// What a step is done with.
pub(crate) struct Stepper<'a> {
    pub(crate) network: &'a mut Network,
    pub(crate) sgd: &'a mut Sgd,
    pub(crate) state: &'a StepState,
    pub(crate) scale: [f32; 3],
    pub(crate) micro_batch: usize,
    pub(crate) seed: u64,
}

/// Sums over the samples of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StepSums {
    pub(crate) loss: f64,
    pub(crate) wrong: usize,
    pub(crate) n: usize,
}

impl Stepper<'_> {
    /// Takes a step. The gradient is the mean over the mini-batch, however it is split; if anything is not finite,
    /// no weight changes, which `state` tells.
    pub(crate) fn step(&mut self, batch: &Batch, step: u64, lr: f64) -> Result<StepSums> {
        self.state.begin(step, lr as f32);
        let mut sums = StepSums { n: batch.len(), ..StepSums::default() };
        let weight = 1.0 / batch.len() as f32;
        for first in (0..batch.len()).step_by(self.micro_batch) {
            let end = (first + self.micro_batch).min(batch.len());
            let slice = Slice::from(first..end);
            let (pixels, offset) =
                (batch.pixels.slice_axis(Axis(0), slice), batch.offset.slice_axis(Axis(0), slice));
            let x = ops::from_pixels(pixels, offset, self.scale, self.network.device())?;
            let run = DropoutRun { seed: self.seed, step, first_sample: first };
            let (logits, trace) = self.network.forward(x, run)?;
            let targets = &batch.targets[first..end];
            let loss = ops::softmax_cross_entropy(&logits, targets, weight, self.state)?;
            sums.loss += loss.per_sample.to_vec().iter().map(|l| f64::from(*l)).sum::<f64>();
            sums.wrong += wrong(&logits, targets);
            let write = if first == 0 { Write::Overwrite } else { Write::Accumulate };
            self.network.backward(trace, loss.grad, write, self.state)?;
        }
        self.sgd.step(self.network.parameters_mut(), self.state)?;
        Ok(sums)
    }
}

/// Counts wrong first answers as evaluation does: a tie with another class is wrong, and so is what is no number.
fn wrong(logits: &Tensor, targets: &[u32]) -> usize {
    let values = logits.to_vec();
    let right = |row: &[f32], target: usize| {
        row.iter().enumerate().all(|(class, v)| class == target || *v < row[target])
    };
    let rows = values.chunks_exact(logits.shape().last());
    rows.zip(targets).filter(|(row, target)| !right(row, **target as usize)).count()
}
