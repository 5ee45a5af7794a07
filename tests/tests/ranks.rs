//! Several ranks train what one process trains.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod training;

use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};

use training::{RUN, Run, run, small_set};
use vgg_data::ImageSet;
use vgg_tensor::ops::AllReduce;
use vgg_tensor::{Device, Precision, RankGroup, Result, StepState, Tensor};
use vgg_tests::gpu;

/// A rank that is a thread.
struct Thread {
    rank: usize,
    shared: Arc<Shared>,
}

struct Shared {
    barrier: Barrier,
    values: Vec<Mutex<Vec<f64>>>,
}

impl RankGroup for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.values.len()
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        let mine: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        let all = self.gather(&mine)?;
        for (i, value) in values.iter_mut().enumerate() {
            *value = all.iter().skip(i).step_by(mine.len()).fold(0.0, |sum, v| sum + *v as f32);
        }
        Ok(())
    }

    fn gather(&self, values: &[f64]) -> Result<Vec<f64>> {
        *self.shared.values[self.rank].lock().unwrap() = values.to_vec();
        self.shared.barrier.wait();
        let all = self.shared.values.iter().flat_map(|values| values.lock().unwrap().clone()).collect();
        self.shared.barrier.wait();
        Ok(all)
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}

/// What each of `of` ranks comes to.
fn each<R: Send>(of: usize, one: impl Fn(Arc<dyn RankGroup>) -> R + Sync) -> Vec<R> {
    let values = (0..of).map(|_| Mutex::default()).collect();
    let shared = Arc::new(Shared { barrier: Barrier::new(of), values });
    std::thread::scope(|scope| {
        let one = &one;
        let start = |rank| {
            let group: Arc<dyn RankGroup> = Arc::new(Thread { rank, shared: shared.clone() });
            scope.spawn(move || one(group))
        };
        let ranks: Vec<_> = (0..of).map(start).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Trains on `of` ranks; whether they were interrupted.
fn on_ranks(of: usize, folder: &Arc<ImageSet>, dir: &Path, stop: Option<usize>) -> bool {
    let outcomes = each(of, |group| {
        // The last one alone is asked to stop.
        let stop = stop.filter(|_| group.rank() + 1 == of);
        run(folder, dir, &Run { threads: 1, stop, group: Some(group), ..RUN }).0.unwrap().interrupted
    });
    assert!(outcomes.iter().all(|interrupted| *interrupted == outcomes[0]), "{outcomes:?}");
    outcomes[0]
}

fn weights(dir: &Path) -> Vec<f32> {
    let mut file = vgg_files::TensorFile::open(&dir.join("weights.safetensors")).unwrap();
    file.names().iter().flat_map(|name| file.read_f32(name).unwrap()).collect()
}

/// Losses of the epochs.
fn losses(dir: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let loss =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["train_loss"].as_f64().unwrap();
    text.lines().map(loss).collect()
}

#[test]
fn ranks_come_to_what_one_process_comes_to_and_to_the_same_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let folder = small_set(&dir.path().join("set"));
    let at = |name: &str| dir.path().join(name);
    run(&folder, &at("one"), &RUN).0.unwrap();
    // Of batches of 8, 8 and 4 images: three ranks have different numbers, and with six some have none.
    for of in [2, 3, 6] {
        let (first, second) = (at(&format!("first-{of}")), at(&format!("second-{of}")));
        assert!(!on_ranks(of, &folder, &first, None) && !on_ranks(of, &folder, &second, None));
        let (ours, single) = (weights(&first), weights(&at("one")));
        assert!(ours == weights(&second), "{of} ranks twice");
        let apart = ours.iter().zip(&single).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5, "{of} ranks: weights up to {apart:e} apart after nine steps");
        for (a, b) in losses(&first).iter().zip(losses(&at("one"))) {
            assert!((a - b).abs() < 1e-5, "{of} ranks: a loss of {a} where one process has {b}");
        }
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let folder = small_set(&dir.path().join("set"));
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    run(&folder, &whole, &RUN).0.unwrap();
    assert!(on_ranks(2, &folder, &parts, Some(4)), "the last rank stops all");
    assert!(on_ranks(3, &folder, &parts, Some(2)));
    run(&folder, &parts, &RUN).0.unwrap();
    let pairs = weights(&whole).into_iter().zip(weights(&parts));
    let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-5, "{apart:e}");
    assert_eq!(losses(&whole).len(), losses(&parts).len());
    for (a, b) in losses(&whole).into_iter().zip(losses(&parts)) {
        assert!((a - b).abs() < 1e-5, "{a}, {b}");
    }
}

/// How many ranks one GPU can be: NCCL takes one for each, the emulator any number.
fn ranks_of(gpu: &Device) -> &'static [usize] {
    if gpu.describe().contains("emulated") { &[1, 2, 3] } else { &[1] }
}

/// Sums of tensors of these lengths over the ranks, as each of them got them, and whether the step was finite there. `spoil` puts
/// something else into a tensor of the last rank.
fn sums(of: usize, open: &(dyn Fn() -> Device + Sync), spoil: Option<f32>) -> Vec<(Vec<f32>, bool)> {
    // Some are larger than a bucket, some are many in one.
    let lengths = [3, 1_100_000, 64, 1, 500];
    each(of, |group| {
        let device = open();
        let mut all = AllReduce::new(&group, &device).unwrap();
        let state = StepState::new(&device).unwrap();
        // Twice, for what is used again.
        let mut result = (Vec::new(), false);
        for round in 0..2 {
            state.begin(round, 0.1).unwrap();
            let mut tensors: Vec<Tensor> = Vec::new();
            for (number, len) in lengths.into_iter().enumerate() {
                let mut values: Vec<f32> =
                    (0..len).map(|i| ((i * 7 + number + group.rank() * 31) % 1000) as f32).collect();
                if let (Some(bad), 1) = (spoil.filter(|_| group.rank() + 1 == of), number) {
                    values[77] = bad;
                }
                tensors.push(Tensor::from_slice(&values, [len], &device).unwrap());
            }
            tensors.iter_mut().for_each(|tensor| all.begin(tensor).unwrap());
            all.finish(tensors.iter_mut().map(Ok), &state).unwrap();
            result = (tensors.iter().flat_map(Tensor::to_vec).collect(), state.finite().unwrap());
        }
        result
    })
}

#[test]
fn sums_are_those_of_all_ranks_on_every_device() {
    let check = |of: usize, open: &(dyn Fn() -> Device + Sync)| {
        let all = sums(of, open, None);
        let value = |rank: usize| ((77 * 7 + 1 + rank * 31) % 1000) as f32;
        for (values, finite) in &all {
            assert!(*finite && values == &all[0].0);
            assert_eq!(values[3 + 77], (0..of).map(value).sum::<f32>());
        }
        // Two that are finite may have a sum that is not, and what one rank saw all must know.
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(sums(of, open, Some(bad)).iter().all(|(_, finite)| !finite), "{of} ranks, {bad}");
        }
    };
    [1, 2, 3].into_iter().for_each(|of| check(of, &|| Device::cpu(1).unwrap()));
    let Some(device) = gpu(Precision::F32) else { return };
    for of in ranks_of(&device) {
        check(*of, &|| gpu(Precision::F32).unwrap());
    }
}

#[test]
fn gpus_come_to_what_one_comes_to() {
    let Some(device) = gpu(Precision::F32) else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = small_set(&dir.path().join("set"));
    let single = dir.path().join("one");
    run(&folder, &single, &Run { gpu: Some(device.clone()), ..RUN }).0.unwrap();
    for of in ranks_of(&device) {
        let ours = dir.path().join(of.to_string());
        each(*of, |group| {
            let gpu = gpu(Precision::F32);
            run(&folder, &ours, &Run { threads: 1, group: Some(group), gpu, ..RUN }).0.unwrap();
        });
        let pairs = weights(&ours).into_iter().zip(weights(&single));
        let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5, "{of} GPUs: weights up to {apart:e} apart");
    }
}

#[test]
fn ranks_on_devices_of_different_kinds_are_refused() {
    let Some(_) = gpu(Precision::F32) else { return };
    let errors = each(2, |group| {
        let device = if group.rank() == 0 { gpu(Precision::F32).unwrap() } else { Device::cpu(1).unwrap() };
        AllReduce::new(&group, &device).err().unwrap().to_string()
    });
    assert!(errors[1].contains("rank 1 computes on a CPU, rank 0 on a GPU"), "{errors:?}");
}
