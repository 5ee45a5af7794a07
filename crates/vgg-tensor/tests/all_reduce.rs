//! All-reduce over ranks, which are threads here: the sums, and the `finite` flag of a step.

mod common;
mod instruction_sets;

use std::sync::Arc;

use vgg_tensor::ops::softmax_cross_entropy;
use vgg_tensor::{
    AllReduce, Device, Error, ProcessGroup, Result, SingleProcess, StepState, Tensor, on_thread_ranks,
};
use vgg_testkit::pseudo_random;

use common::every_device;
use instruction_sets::is_gpu;

const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// The input of one rank to one step.
#[derive(Clone)]
struct Step {
    grads: Vec<Vec<f32>>,
    loss_is_bad: bool,
}

impl Step {
    /// Hashed gradients of several lengths; the last needs three blocks of threads on a GPU.
    fn new(rank: usize) -> Step {
        let lengths = [5, 1, 16, 33, 700];
        let grad = |i: usize| pseudo_random(&format!("rank {rank}, gradient {i}"), 1.0, lengths[i]);
        let grads = (0..lengths.len()).map(grad).collect();
        Step { grads, loss_is_bad: false }
    }
}

/// The sums and the flag of a step.
type Outcome = (Vec<Vec<f32>>, bool);

/// Runs the steps of one rank.
fn run(group: &Arc<dyn ProcessGroup>, device: &Device, steps: &[Step]) -> Result<Vec<Outcome>> {
    let mut all = AllReduce::new(group, device)?;
    let state = StepState::new(device)?;
    let mut outcomes = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        state.begin(number as u64, 0.1)?;
        if step.loss_is_bad {
            let logits = Tensor::from_slice(&[f32::NAN, 0.0], [1, 2], device)?;
            softmax_cross_entropy(&logits, &[0], 1.0, &state)?;
        }
        let tensor = |grad: &Vec<f32>| Tensor::from_slice(grad, [grad.len()], device);
        let mut tensors = step.grads.iter().map(tensor).collect::<Result<Vec<Tensor>>>()?;
        tensors.iter_mut().try_for_each(|tensor| all.begin(tensor))?;
        all.finish(tensors.iter_mut().map(Ok), &state)?;
        outcomes.push((tensors.iter().map(Tensor::to_vec).collect(), state.finite()?));
    }
    Ok(outcomes)
}

/// Runs the steps of two ranks. Returns `None` and reports a skip if NCCL or a GPU for each rank is missing.
fn run_two(device: &Device, steps: [Vec<Step>; 2]) -> Option<Vec<Vec<Outcome>>> {
    of_all(on_thread_ranks(2, |group| run(&group, device, &steps[group.rank()])))
}

/// The results of all ranks, or `None` with a skip as in [`run_two`].
fn of_all<T>(results: Vec<Result<T>>) -> Option<Vec<T>> {
    match results.into_iter().collect() {
        Ok(all) => Some(all),
        Err(e @ Error::NoCuda { .. }) => {
            vgg_testkit::skip("nccl", &e);
            None
        }
        // NCCL rejects two ranks on one GPU; an emulated GPU accepts them.
        Err(e @ Error::Cuda { call: "ncclCommInitRank", .. }) => {
            vgg_testkit::skip("a GPU that two ranks can share", &e);
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// On a GPU the tensor is reduced in place, after its handle is dropped.
#[test]
fn dropped_tensor_keeps_its_memory_until_the_all_reduce_finishes() {
    for on in every_device() {
        let results = on_thread_ranks(2, |group| -> Result<Vec<f32>> {
            let mut all = AllReduce::new(&group, &on.device)?;
            let state = StepState::new(&on.device)?;
            state.begin(0, 0.1)?;
            let mut dropped = Tensor::from_slice(&[1.0; 300], [300], &on.device)?;
            all.begin(&mut dropped)?;
            drop(dropped);
            // Without the all-reduce's own handle, this tensor would get the same memory.
            let other = Tensor::from_slice(&[5.0; 300], [300], &on.device)?;
            all.finish(std::iter::empty(), &state)?;
            group.barrier()?;
            Ok(other.to_vec())
        });
        for values in of_all(results).unwrap_or_default() {
            assert_eq!(values, [5.0; 300], "{}", on.name);
        }
    }
}

#[test]
fn tensors_receive_the_sums_of_two_ranks() {
    for on in every_device() {
        let steps = [vec![Step::new(0); 2], vec![Step::new(1); 2]];
        let Some(outcomes) = run_two(&on.device, steps.clone()) else { continue };
        for (rank, outcomes) in outcomes.iter().enumerate() {
            for (sums, finite) in outcomes {
                assert!(finite, "{}: rank {rank}", on.name);
                for (i, sums) in sums.iter().enumerate() {
                    let grads = [&steps[0][0].grads[i], &steps[1][0].grads[i]];
                    let expected: Vec<f32> = (0..sums.len()).map(|at| grads[0][at] + grads[1][at]).collect();
                    assert_eq!(*sums, expected, "{}: gradient {i} on rank {rank}", on.name);
                }
            }
        }
    }
}

#[test]
fn bad_gradient_of_one_rank_clears_the_flag_of_both() {
    for on in every_device() {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let lengths: Vec<usize> = Step::new(0).grads.iter().map(Vec::len).collect();
        for (grad, len) in lengths.into_iter().enumerate() {
            for at in (0..len).step_by(if len > 100 { 53 } else { 1 }).chain([len - 1]) {
                let mut steps = [Step::new(0), Step::new(1)];
                steps[at % 2].grads[grad][at] = BAD[at % 3];
                let [one, other] = steps;
                first.push(one);
                second.push(other);
            }
        }
        // A finite step afterwards has the flag set.
        first.push(Step::new(0));
        second.push(Step::new(1));
        let last = first.len() - 1;
        let Some(outcomes) = run_two(&on.device, [first, second]) else { continue };
        for (rank, outcomes) in outcomes.iter().enumerate() {
            for (step, outcome) in outcomes.iter().enumerate() {
                assert_eq!(outcome.1, step == last, "{}: step {step} on rank {rank}", on.name);
            }
        }
    }
}

#[test]
fn sum_that_overflows_clears_the_flag_of_both_ranks() {
    for on in every_device() {
        let large = Step { grads: vec![vec![3e38; 33]], loss_is_bad: false };
        let small = Step { grads: vec![vec![1.0; 33]], loss_is_bad: false };
        let mut one_large = small.clone();
        one_large.grads[0][32] = 3e38;
        let first = vec![large.clone(), large, one_large.clone()];
        let second = vec![small.clone(), one_large.clone(), one_large];
        let Some(outcomes) = run_two(&on.device, [first, second]) else { continue };
        for outcomes in outcomes {
            let flags: Vec<bool> = outcomes.iter().map(|outcome| outcome.1).collect();
            assert_eq!(flags, [true, false, false], "{}", on.name);
        }
    }
}

#[test]
fn bad_loss_of_one_rank_clears_the_flag_of_both() {
    for on in every_device() {
        let good = |rank| Step::new(rank);
        let bad = |rank| Step { loss_is_bad: true, ..Step::new(rank) };
        let first = vec![good(0), bad(0), good(0), good(0)];
        let second = vec![good(1), good(1), bad(1), good(1)];
        let Some(outcomes) = run_two(&on.device, [first, second]) else { continue };
        for outcomes in outcomes {
            let flags: Vec<bool> = outcomes.iter().map(|outcome| outcome.1).collect();
            assert_eq!(flags, [true, false, false, true], "{}", on.name);
        }
    }
}

/// Gradients are sent in buckets of 4 MiB: the second gradient here starts in one bucket and ends in the
/// next.
#[test]
fn gradients_longer_than_a_bucket_keep_their_values_and_their_flag() {
    const BUCKET: usize = 1 << 20;
    for on in every_device() {
        let group: Arc<dyn ProcessGroup> = Arc::new(SingleProcess);
        let good = vec![
            pseudo_random("first", 1.0, BUCKET - 3),
            pseudo_random("second", 1.0, 11),
            pseudo_random("third", 1.0, 5),
        ];
        let places = [(0, 0), (0, BUCKET / 2), (0, BUCKET - 4), (1, 0), (1, 2), (1, 3), (1, 10), (2, 4)];
        let mut steps = vec![Step { grads: good.clone(), loss_is_bad: false }];
        for (grad, at) in places.into_iter().take(if is_gpu(&on) { 3 } else { 8 }) {
            let mut grads = good.clone();
            grads[grad][at] = f32::NAN;
            steps.push(Step { grads, loss_is_bad: false });
        }
        let outcomes = match run(&group, &on.device, &steps) {
            Ok(outcomes) => outcomes,
            Err(e @ Error::NoCuda { .. }) => {
                vgg_testkit::skip("nccl", &e);
                continue;
            }
            Err(e) => panic!("{e}"),
        };
        assert!(outcomes[0].0 == good && outcomes[0].1, "{}: sums over one rank", on.name);
        for (step, outcome) in outcomes.iter().enumerate().skip(1) {
            assert!(!outcome.1, "{}: bad value at {:?}", on.name, places[step - 1]);
        }
    }
}
