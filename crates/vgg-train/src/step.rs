//! One step: forward and backward over the micro-batches of a mini-batch, then the update.

use ndarray::{Axis, Slice};
use vgg_data::Batch;
use vgg_layers::{DropoutRun, Network};
use vgg_optim::Sgd;
use vgg_tensor::{StepState, Write, ops};

use crate::Result;

/// What steps are taken with.
pub struct Stepper<'a> {
    network: &'a mut Network,
    sgd: &'a mut Sgd,
    state: StepState,
    scale: [f32; 3],
    micro_batch: usize,
    seed: u64,
    /// Losses and logits on the host, kept so that a step need not allocate.
    losses: Vec<f32>,
    logits: Vec<f32>,
}

/// Sums over the samples of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepSums {
    /// Sum of the losses, without the penalty of weight decay.
    pub loss: f64,
    /// Samples whose first answer was wrong, with dropout on.
    pub wrong: usize,
    /// Samples.
    pub n: usize,
}

impl<'a> Stepper<'a> {
    /// Steps of `network` by `sgd`. Pixels are multiplied by `scale` after their offset was added; at most
    /// `micro_batch` images are in memory at once; `seed` is dropout's.
    ///
    /// # Errors
    /// If a GPU fails.
    pub fn new(
        network: &'a mut Network,
        sgd: &'a mut Sgd,
        scale: [f32; 3],
        micro_batch: usize,
        seed: u64,
    ) -> Result<Stepper<'a>> {
        let (losses, logits) = (Vec::new(), Vec::new());
        let state = StepState::new(network.device())?;
        Ok(Stepper { network, sgd, state, scale, micro_batch, seed, losses, logits })
    }

    /// Takes a step. The gradient is the mean over the mini-batch, however it is split; if anything is not finite,
    /// no weight changes, which [`Stepper::finite`] tells.
    ///
    /// # Errors
    /// Those of the operations, if the batch does not fit the network.
    pub fn step(&mut self, batch: &Batch, step: u64, lr: f64) -> Result<StepSums> {
        self.state.begin(step, lr as f32)?;
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
            let loss = ops::softmax_cross_entropy(&logits, targets, weight, &self.state)?;
            loss.per_sample.read_into(&mut self.losses)?;
            sums.loss += self.losses.iter().map(|l| f64::from(*l)).sum::<f64>();
            logits.read_into(&mut self.logits)?;
            sums.wrong += wrong(&self.logits, targets);
            drop(logits);
            let write = if first == 0 { Write::Overwrite } else { Write::Accumulate };
            self.network.backward(trace, loss.grad, write, &self.state)?;
        }
        self.sgd.step(self.network.parameters_mut(), &self.state)?;
        Ok(sums)
    }

    /// Whether everything in the last step was finite.
    ///
    /// # Errors
    /// If a GPU fails.
    pub fn finite(&self) -> Result<bool> {
        Ok(self.state.finite()?)
    }
}

/// Counts wrong first answers as evaluation does: a tie with another class is wrong, and so is what is no number.
fn wrong(logits: &[f32], targets: &[u32]) -> usize {
    let right = |row: &[f32], target: usize| {
        row.iter().enumerate().all(|(class, v)| class == target || *v < row[target])
    };
    let rows = logits.chunks_exact(logits.len() / targets.len());
    rows.zip(targets).filter(|(row, target)| !right(row, **target as usize)).count()
}
