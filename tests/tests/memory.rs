//! Training memory: the peak matches the plan, and steady-state steps allocate nothing but short lists.
//!
//! A single test in its own process, as it counts the allocations of the whole process.

#![allow(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use vgg_data::Batch;
use vgg_layers::{Config, Init, Network, NetworkSpec};
use vgg_optim::{Schedule, Sgd, SgdOptions};
use vgg_tensor::{Device, DeviceConfig, DeviceKind, Precision};
use vgg_train::{StepConfig, TrainConfig, TrainStep, step_memory_bytes};

/// Counts allocations of more than a short list.
struct Counting;

/// Size of a short list in bytes: a pass has at most a few dozen tensors.
const SHORT: usize = 4096;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > SHORT {
            CALLS.fetch_add(1, Relaxed);
        }
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

/// Page faults of this process so far, if the system reports them.
fn page_faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(7)?.parse().ok()
}

#[test]
fn peak_memory_matches_the_plan_and_steady_steps_allocate_nothing() {
    let f32_on = |threads| Device::cpu(threads).unwrap();
    let bf16_on = |threads| {
        // On the software model of the tile unit, which every machine has.
        let config = DeviceConfig {
            kind: DeviceKind::Cpu,
            threads,
            precision: Some(Precision::Bf16),
            instruction_set: Some("portable".into()),
            ..DeviceConfig::default()
        };
        Device::open(&config).unwrap()
    };
    for (name, device) in [
        (Config::A, f32_on(1)),
        (Config::ALrn, f32_on(2)),
        (Config::C, f32_on(2)),
        (Config::D, f32_on(2)),
        (Config::C, bf16_on(2)),
    ] {
        let spec =
            NetworkSpec { width: 0.25, crop: 64, head: [512, 512], ..NetworkSpec::paper(name.clone()) };
        let (micro_batch, sgd) = (12, SgdOptions::PAPER);
        let schedule = Schedule::Constant { lr: 1e-3 };
        let train = TrainConfig { micro_batch, sgd, schedule, max_epochs: 1, validate_every: 1, seed: 1 };
        let planned = step_memory_bytes(&spec, None, &train, 48, &device).unwrap();

        let mut network = Network::random(spec, Init::He, 1, &device).unwrap();
        let mut sgd = Sgd::new(sgd).unwrap();
        let mut batch = Batch::blank(30, [64, 64]);
        batch.targets = (0..30).collect();
        let config = StepConfig { scale: [1.0 / 64.0; 3], micro_batch, seed: 1 };
        let mut train_step = TrainStep::new(&device, config).unwrap();
        train_step.set_lr(1e-4);
        let mut step = |_| {
            assert!(train_step.step(&mut network, &mut sgd, &batch).unwrap().finite);
        };
        (0..3).for_each(&mut step);
        let taken = device.memory().peak_bytes;
        let ratio = planned as f64 / taken as f64;
        assert!((0.9..1.1).contains(&ratio), "{device}, {name:?}: planned {planned}, taken {taken} bytes");

        let (faults, calls) = (page_faults(), CALLS.load(Relaxed));
        (3..6).for_each(&mut step);
        let calls = CALLS.load(Relaxed) - calls;
        assert_eq!(calls, 0, "{device}, {name:?}: allocations of more than {SHORT} bytes in three steps");
        assert_eq!(device.memory().peak_bytes, taken, "{device}, {name:?}: steady steps need no more memory");
        if let (Some(before), Some(after)) = (faults, page_faults()) {
            // The steps cause none; the kernel may count one for reading this file or for a thread's stack.
            assert!(after - before <= 3, "{device}, {name:?}: {} page faults in three steps", after - before);
        } else {
            vgg_testkit::skip("page-faults", &"the system does not report them");
        }
    }
}
