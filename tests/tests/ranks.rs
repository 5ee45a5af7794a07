//! Several ranks train what one process trains.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod training;

use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};

use training::{RUN, Run, run, small_set};
use vgg_data::ImageSet;
use vgg_tensor::{RankGroup, Result};

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

/// Trains on `of` ranks; whether they were interrupted.
fn on_ranks(of: usize, folder: &Arc<ImageSet>, dir: &Path, stop: Option<usize>) -> bool {
    let values = (0..of).map(|_| Mutex::default()).collect();
    let shared = Arc::new(Shared { barrier: Barrier::new(of), values });
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let one = |rank| {
            let group: Arc<dyn RankGroup> = Arc::new(Thread { rank, shared: shared.clone() });
            // The last one alone is asked to stop.
            let stop = stop.filter(|_| rank + 1 == of);
            scope.spawn(move || {
                run(folder, dir, &Run { threads: 1, stop, group: Some(group), ..RUN }).0.unwrap().interrupted
            })
        };
        let ranks: Vec<_> = (0..of).map(one).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
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
