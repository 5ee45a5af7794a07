//! Memory of training: what was planned is what is taken, and a steady step asks the system for nothing.
//!
//! One test in a process of its own, for it counts what the whole process allocates.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]
#![allow(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use vgg_layers::{Config, DropoutRun, Init, Network, NetworkSpec};
use vgg_optim::{Schedule, Sgd, SgdOptions};
use vgg_tensor::{Device, StepState, Tensor, Write, ops};
use vgg_train::{TrainConfig, step_memory_bytes};

/// Counts what the program asks of the system's allocator.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: by the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: by the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bookkeeping of a step: handles of tensors, names, sums of a few channels. Activations are a thousand times larger.
const BOOKKEEPING_BYTES: usize = 64 << 10;

/// Page faults of this process so far, where the system tells.
fn page_faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(7)?.parse().ok()
}

#[test]
fn steps_take_what_was_planned_and_then_nothing() {
    for (config, threads) in [(Config::A, 1), (Config::ALrn, 2), (Config::C, 2), (Config::D, 2)] {
        let spec = NetworkSpec { width: 0.25, crop: 64, head: [512, 512], ..NetworkSpec::paper(config) };
        let device = Device::cpu(threads).unwrap();
        let (micro_batch, sgd) = (12, SgdOptions::PAPER);
        let schedule = Schedule::Constant { lr: 1e-3 };
        let train = TrainConfig { micro_batch, sgd, schedule, max_epochs: 1, validate_every: 1, seed: 1 };
        let planned = step_memory_bytes(&spec, None, &train, 48, &device).unwrap();

        let mut network = Network::random(spec, Init::He, 1, &device).unwrap();
        let (mut sgd, state) = (Sgd::new(sgd).unwrap(), StepState::new());
        let targets: Vec<u32> = (0..12).collect();
        let mut step = |step: u64| {
            state.begin(step, 1e-4);
            let x = Tensor::zeros([micro_batch, 64, 64, 3], &device);
            let run = DropoutRun { seed: 1, step, first_sample: 0 };
            let (logits, trace) = network.forward(x, run).unwrap();
            let loss = ops::softmax_cross_entropy(&logits, &targets, 0.1, &state).unwrap();
            network.backward(trace, loss.grad, Write::Overwrite, &state).unwrap();
            sgd.step(network.parameters_mut(), &state).unwrap();
        };
        (0..3).for_each(&mut step);
        let taken = device.memory().peak_bytes;
        let ratio = planned as f64 / taken as f64;
        assert!((0.9..1.1).contains(&ratio), "{config:?}: planned {planned}, taken {taken} bytes");

        let (bytes, faults) = (BYTES.load(Relaxed), page_faults());
        (3..6).for_each(&mut step);
        let bytes = (BYTES.load(Relaxed) - bytes) / 3;
        assert!(bytes < BOOKKEEPING_BYTES, "{config:?}: a step allocates {bytes} bytes");
        assert_eq!(device.memory().peak_bytes, taken, "{config:?}: steady steps need no more memory");
        if let (Some(before), Some(after)) = (faults, page_faults()) {
            assert!(after - before <= 3, "{config:?}: {} page faults in three steps", after - before);
        }
    }
}
