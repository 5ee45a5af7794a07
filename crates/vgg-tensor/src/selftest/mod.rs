//! GPU self-test: compares operations, and other computations of a caller, with the CPU.

mod operations;

use crate::{CudaLibrary, Device, Error, Precision, cuda_libraries};

pub use operations::OPERATIONS;

/// Values with a name.
pub type NamedValues = (String, Vec<f32>);

/// A computation to compare, which runs on any device.
pub type Check<E> = fn(&Device) -> Result<Vec<NamedValues>, E>;

/// The difference between a result of a GPU and the CPU's.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Name of the check and of its result.
    pub what: String,
    /// Largest difference over the largest value; infinite if a value is not finite.
    pub error: f64,
    /// Cosine similarity of both results.
    pub cosine: f64,
    /// Whether the difference is within the tolerance.
    pub passed: bool,
}

/// Largest accepted difference between results of a GPU and the CPU.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Largest difference over the largest value.
    pub error: f64,
    /// Smallest cosine similarity.
    pub cosine: f64,
}

impl Tolerance {
    /// Tolerance of an operation: one rounding of an input or a result, and sums in another order.
    pub fn of_operations(precision: Precision) -> Tolerance {
        match precision {
            Precision::F32 => Tolerance { error: 1e-4, cosine: 0.999_999 },
            Precision::Tf32 => Tolerance { error: 3e-3, cosine: 0.9999 },
            Precision::Bf16 => Tolerance { error: 1.5e-2, cosine: 0.9999 },
        }
    }
}

/// Compares the results of `run` on `gpu` with those on `cpu`.
///
/// It runs twice on the GPU and poisons the free memory in between, so that cached cuDNN plans are used and
/// memory that is never written is noticed.
///
/// # Errors
/// Errors of `run`; [`crate::Error::Cuda`] if a GPU fails.
pub fn compare<E: From<Error>>(
    what: &str,
    run: Check<E>,
    tolerance: Tolerance,
    gpu: &Device,
    cpu: &Device,
) -> Result<Vec<Finding>, E> {
    run(gpu)?;
    gpu.poison_free_memory()?;
    let ours = run(gpu)?;
    let theirs = run(cpu)?;
    let mut findings = Vec::new();
    if ours.len() != theirs.len() {
        let what = format!("{what}: number of results");
        findings.push(Finding { what, error: f64::INFINITY, cosine: -1.0, passed: false });
    }
    for ((name, a), (_, b)) in ours.iter().zip(&theirs) {
        let (error, cosine) = distance(a, b);
        let passed = error <= tolerance.error && cosine >= tolerance.cosine;
        findings.push(Finding { what: format!("{what}: {name}"), error, cosine, passed });
    }
    Ok(findings)
}

/// Whether NCCL is available; without it, all-reduce on a GPU is not tested.
pub fn has_nccl() -> bool {
    cuda_libraries().iter().any(|status| status.library == CudaLibrary::Nccl && status.found.is_ok())
}

/// Relative error and cosine similarity; a value that is not finite fails both.
fn distance(a: &[f32], b: &[f32]) -> (f64, f64) {
    if a.len() != b.len() || a.iter().any(|v| !v.is_finite()) {
        return (f64::INFINITY, -1.0);
    }
    let pairs = || a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let largest = pairs().fold(0.0f64, |m, (_, b)| m.max(b.abs()));
    let difference = pairs().fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in pairs() {
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    let same = aa == 0.0 && bb == 0.0;
    let error = if largest > 0.0 { difference / largest } else { difference };
    (error, if same { 1.0 } else { ab / (aa * bb).sqrt() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Result;

    fn same(_: &Device) -> Result<Vec<NamedValues>> {
        Ok(vec![("ones".into(), vec![1.0; 3]), ("zeros".into(), vec![0.0])])
    }

    /// Returns a different result in one call of three.
    fn other(_: &Device) -> Result<Vec<NamedValues>> {
        static CALLS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let call = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(vec![("values".into(), vec![1.0, if call % 3 == 1 { 1.5 } else { 1.0 }])])
    }

    #[test]
    fn results_that_differ_by_more_than_the_tolerance_fail() {
        let cpu = Device::cpu(1).unwrap();
        let tolerance = Tolerance::of_operations(Precision::Bf16);
        let findings = compare("same", same, tolerance, &cpu, &cpu).unwrap();
        assert!(findings.len() == 2 && findings.iter().all(|f| f.passed && f.error == 0.0), "{findings:?}");
        let findings = compare("other", other, tolerance, &cpu, &cpu).unwrap();
        assert!(!findings[0].passed && findings[0].error == 0.5, "{findings:?}");
        assert_eq!(findings[0].what, "other: values");
    }

    /// Every operation on the tile unit of the processor, or on a signal handler that computes its instructions, and on
    /// the software model.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn operations_agree_bitwise_on_the_tile_unit_and_its_model() {
        use crate::cpu::{TileIsa, emulator};
        if !emulator::install() {
            vgg_testkit::skip("avx512-bf16", &"the vector instructions of the tile unit's kernels");
            return;
        }
        let [hardware, model] = [TileIsa::Amx, TileIsa::Model].map(Device::with_tile_unit);
        for (name, run) in OPERATIONS {
            assert!(run(&hardware).unwrap() == run(&model).unwrap(), "{name}");
        }
    }

    #[test]
    fn distances_worked_by_hand() {
        assert_eq!(distance(&[3.0, 4.0], &[4.0, 3.0]), (0.25, 24.0 / 25.0));
        assert_eq!(distance(&[0.0], &[0.0]), (0.0, 1.0));
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(distance(&[bad, 1.0], &[1.0, 1.0]), (f64::INFINITY, -1.0));
        }
        assert_eq!(distance(&[1.0], &[1.0, 1.0]), (f64::INFINITY, -1.0));
    }
}
