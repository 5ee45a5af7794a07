//! Every device with its own code paths: the CPU under each instruction set and in bf16, and the GPU in each precision.

#![allow(dead_code, reason = "not every test that shares this needs all of it")]

use vgg_tensor::{ConvAlgorithm, Device, DeviceConfig, DeviceKind, Error, Grad, Tensor};

use crate::common::{TestDevice, bf16_cpus, every_device};

/// Lengths with every remainder modulo 8 and 16, below and above one and two vectors.
pub const LENGTHS: [usize; 24] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 23, 24, 31, 32, 33, 49];

/// The instruction sets of this processor, which the error for an unknown one lists.
pub fn instruction_sets() -> Vec<String> {
    match Device::open(&cpu_config(ConvAlgorithm::Auto, "unknown")) {
        Err(Error::InstructionSet { available, .. }) => available.split(", ").map(str::to_owned).collect(),
        other => panic!("an unknown instruction set must be an error, not {other:?}"),
    }
}

fn cpu_config(conv: ConvAlgorithm, instruction_set: &str) -> DeviceConfig {
    DeviceConfig {
        kind: DeviceKind::Cpu,
        threads: 1,
        conv,
        instruction_set: Some(instruction_set.to_owned()),
        ..DeviceConfig::default()
    }
}

/// The CPU under each of its instruction sets.
pub fn every_cpu(conv: ConvAlgorithm) -> Vec<TestDevice> {
    let open = |set: String| TestDevice {
        name: format!("{set}, {} convolutions", conv.name()),
        device: Device::open(&cpu_config(conv, &set)).unwrap(),
        rounding: 0.0,
    };
    instruction_sets().into_iter().map(open).collect()
}

/// The GPU in each precision, if there is one.
pub fn every_gpu() -> Vec<TestDevice> {
    every_device().into_iter().filter(is_gpu).collect()
}

/// The CPU under each instruction set and in bf16, and the GPU in each precision.
pub fn all_devices() -> Vec<TestDevice> {
    let mut all = every_cpu(ConvAlgorithm::Auto);
    all.extend(bf16_cpus(1));
    all.extend(every_gpu());
    all
}

/// A device with a convolution algorithm, and its tolerance relative to sums in f64.
pub struct ConvTestDevice {
    pub on: TestDevice,
    pub tolerance: f64,
}

/// Every algorithm for filters of `r` x `r` under each instruction set, the CPU in bf16, and the GPU in each precision.
pub fn all_devices_for_filters_of(r: usize) -> Vec<ConvTestDevice> {
    // Winograd serves only 3x3 filters; for other filters, all choices except `Direct` are the same.
    let choices = ConvAlgorithm::ALL.into_iter().map(|entry| entry.1);
    let choices =
        choices.filter(|conv| r == 3 || matches!(conv, ConvAlgorithm::Auto | ConvAlgorithm::Direct));
    let mut all = Vec::new();
    for conv in choices {
        // As in docs/numerics.md: transforms of larger tiles lose accuracy.
        let tolerance = match conv {
            _ if r != 3 => 3e-6,
            ConvAlgorithm::Direct => 3e-6,
            ConvAlgorithm::Winograd2 => 1e-5,
            ConvAlgorithm::Auto | ConvAlgorithm::Winograd4 | ConvAlgorithm::Winograd6 => 5e-5,
        };
        all.extend(every_cpu(conv).into_iter().map(|on| ConvTestDevice { on, tolerance }));
    }
    let rounding = bf16_cpus(1).into_iter().chain(every_gpu());
    all.extend(rounding.map(|on| ConvTestDevice { tolerance: on.rounding.max(3e-6), on }));
    all
}

/// Whether a device is a GPU. An emulated GPU is slow, so tests run fewer cases on it.
pub fn is_gpu(on: &TestDevice) -> bool {
    on.device.instruction_set() == "cuda"
}

/// Runs `op` with free memory full of NaN, so that an output element that `op` does not write is NaN.
pub fn in_poisoned_memory<T>(on: &TestDevice, op: impl Fn() -> T) -> T {
    // The first run grows the arena to the size that the second run needs.
    drop(op());
    on.device.poison_free_memory().unwrap();
    op()
}

/// Asserts that each value is within `bound` of the expected one.
#[track_caller]
pub fn assert_within(got: &[f32], expected: &[f64], bound: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - expected).abs();
        assert!(error <= bound, "{what}: value {i} is {got}, not {expected} within {bound:.1e}");
    }
}

/// Asserts that the bias gradient is the sum of the gradient's rows.
///
/// The device must sum the values that it writes. On a GPU, a mask's scale must be a power of two, because
/// other scales round after the sums are taken.
#[track_caller]
pub fn assert_bias_grad(grad: &Grad, what: &str) {
    let channels = grad.grad.shape().last();
    let dz = grad.grad.to_vec();
    let mut sums = vec![0.0f64; channels];
    let mut magnitudes = vec![0.0f64; channels];
    for row in dz.chunks_exact(channels) {
        for (channel, value) in row.iter().enumerate() {
            sums[channel] += f64::from(*value);
            magnitudes[channel] += f64::from(value.abs());
        }
    }
    // A sum of n values in f32, in any order, has an error of at most n / 2^24 times the sum of magnitudes.
    let largest = magnitudes.into_iter().fold(0.0, f64::max);
    let bound = (dz.len() / channels) as f64 * 2f64.powi(-24) * largest;
    assert_within(&grad.bias_grad.to_vec(), &sums, bound, &format!("{what}: bias gradient"));
}

/// The values of a tensor in f64.
pub fn wide(tensor: &Tensor) -> Vec<f64> {
    tensor.to_vec().into_iter().map(f64::from).collect()
}

/// The largest magnitude, to which tolerances are relative.
pub fn largest(values: &[f64]) -> f64 {
    assert!(values.iter().all(|value| value.is_finite()), "references are finite");
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}
