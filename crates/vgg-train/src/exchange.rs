//! Gradients summed over ranks while the backward pass goes on.
//!
//! A layer's gradient is final when the last micro-batch has been through it. Then it is copied into a bucket, fc8 first; a full
//! bucket goes to a thread that sums it over all ranks. At the end of the pass the sums take the gradients' place.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use vgg_layers::Network;
use vgg_tensor::{Parameter, RankGroup, StepState, Tensor, Write};

use crate::{Error, Result};

/// Values of a bucket: 4 MiB. Smaller ones cost more calls, larger ones begin later.
const BUCKET: usize = 1 << 20;

/// The exchange of gradients with the other ranks.
pub(crate) struct Exchange {
    to_sum: Option<Sender<Vec<f32>>>,
    sums: Receiver<vgg_tensor::Result<Vec<f32>>>,
    thread: Option<JoinHandle<()>>,
    filling: Vec<f32>,
    under_way: usize,
    spare: Vec<Vec<f32>>,
    scratch: Vec<f32>,
}

/// What all ranks bring to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// Images of all ranks.
    pub(crate) images: usize,
    /// Images of the ranks before this one.
    pub(crate) before: usize,
    /// Whether any rank was asked to stop.
    pub(crate) interrupted: bool,
    /// Whether rank 0 wants a checkpoint after the step.
    pub(crate) save: bool,
}

impl Agreed {
    pub(crate) fn new(group: &dyn RankGroup, images: usize, interrupted: bool, save: bool) -> Result<Agreed> {
        let mine = [images as f64, f64::from(u8::from(interrupted)), f64::from(u8::from(save))];
        let all = group.gather(&mine)?;
        let of = |what: usize| all.iter().skip(what).step_by(mine.len());
        let before = of(0).take(group.rank()).sum::<f64>();
        Ok(Agreed {
            images: of(0).sum::<f64>() as usize,
            before: before as usize,
            interrupted: of(1).any(|&asked| asked > 0.0),
            save: of(2).next().is_some_and(|&wanted| wanted > 0.0),
        })
    }
}

impl Exchange {
    pub(crate) fn new(group: Arc<dyn RankGroup>) -> Result<Exchange> {
        let (to_sum, buckets) = channel::<Vec<f32>>();
        let (done, sums) = channel();
        let work = move || {
            for mut bucket in buckets {
                let summed = group.sum(&mut bucket).map(|()| bucket);
                if done.send(summed).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("vgg-exchange".into()).spawn(work);
        let thread = thread.map_err(|e| Error::Config(format!("no thread for gradients: {e}")))?;
        Ok(Exchange {
            to_sum: Some(to_sum),
            sums,
            thread: Some(thread),
            filling: Vec::with_capacity(BUCKET),
            under_way: 0,
            spare: Vec::new(),
            scratch: Vec::new(),
        })
    }

    /// Takes a gradient that is final on this rank.
    pub(crate) fn ready(&mut self, parameter: &Parameter) -> vgg_tensor::Result<()> {
        let Some(grad) = parameter.grad().filter(|_| parameter.trainable) else { return Ok(()) };
        let mut values = std::mem::take(&mut self.scratch);
        grad.read_into(&mut values)?;
        self.push(&values);
        self.scratch = values;
        Ok(())
    }

    /// Takes part with nothing, where the other ranks have images and this one has none.
    pub(crate) fn nothing(&mut self, network: &mut Network) -> Result<()> {
        let lengths: Vec<usize> = in_order(network)
            .map(|parameter| parameter.grad_mut().map(|grad| grad.shape().len()))
            .collect::<vgg_tensor::Result<_>>()?;
        lengths.into_iter().for_each(|length| self.push(&vec![0.0; length]));
        Ok(())
    }

    fn push(&mut self, mut values: &[f32]) {
        while !values.is_empty() {
            let (now, later) = values.split_at(values.len().min(BUCKET - self.filling.len()));
            self.filling.extend_from_slice(now);
            values = later;
            if self.filling.len() == BUCKET {
                self.send();
            }
        }
    }

    fn send(&mut self) {
        let next = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(BUCKET));
        let bucket = std::mem::replace(&mut self.filling, next);
        // A thread that is gone is noticed when its sums are missing.
        if let Some(to_sum) = &self.to_sum
            && to_sum.send(bucket).is_ok()
        {
            self.under_way += 1;
        }
    }

    /// Puts the sums in the gradients' places. Whatever was not finite on any rank clears the flag of `state` on all.
    pub(crate) fn finish(&mut self, network: &mut Network, state: &StepState) -> Result<()> {
        // A loss that was not finite may have left no trace in a gradient.
        self.push(&[if state.finite()? { 0.0 } else { f32::NAN }]);
        self.send();
        let mut sums = Sums { bucket: Vec::new(), at: 0 };
        for parameter in in_order(network) {
            let grad = parameter.grad_mut()?;
            let mut values = std::mem::take(&mut self.scratch);
            values.clear();
            while values.len() < grad.shape().len() {
                self.refill(&mut sums)?;
                values.extend_from_slice(sums.take(grad.shape().len() - values.len()));
            }
            state.check_values(&values)?;
            let summed = Tensor::from_slice(&values, grad.shape(), grad.device())?;
            grad.write_from(&summed, Write::Overwrite)?;
            self.scratch = values;
        }
        self.refill(&mut sums)?;
        state.check_values(sums.take(1))?;
        self.spare.push({
            sums.bucket.clear();
            sums.bucket
        });
        Ok(())
    }

    /// Gets the next bucket if all of the last was taken.
    fn refill(&mut self, sums: &mut Sums) -> Result<()> {
        if sums.at < sums.bucket.len() {
            return Ok(());
        }
        let gone = || Error::Config("gradients of the ranks do not fit each other; this is a defect".into());
        self.under_way = self.under_way.checked_sub(1).ok_or_else(gone)?;
        let mut used = std::mem::replace(&mut sums.bucket, self.sums.recv().map_err(|_| gone())??);
        sums.at = 0;
        used.clear();
        if used.capacity() > 0 {
            self.spare.push(used);
        }
        Ok(())
    }
}

/// A bucket that came back.
struct Sums {
    bucket: Vec<f32>,
    at: usize,
}

impl Sums {
    fn take(&mut self, most: usize) -> &[f32] {
        let start = self.at;
        self.at = (start + most).min(self.bucket.len());
        &self.bucket[start..self.at]
    }
}

/// Trainable parameters in the order in which the backward pass finishes them.
fn in_order(network: &mut Network) -> impl Iterator<Item = &mut Parameter> {
    let mut all: Vec<&mut Parameter> = network.parameters_mut().filter(|p| p.trainable).collect();
    all.reverse();
    all.into_iter()
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.to_sum = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
