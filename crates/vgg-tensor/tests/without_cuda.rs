//! A build without the feature `cuda`: opening a GPU by name is an error, and `Auto` opens the CPU.
#![cfg(not(feature = "cuda"))]

use vgg_tensor::{Device, DeviceConfig, DeviceKind, Error};

#[test]
fn opening_a_gpu_is_an_error_with_the_reason() {
    let config = DeviceConfig { kind: DeviceKind::Cuda(0), ..DeviceConfig::default() };
    match Device::open(&config) {
        Err(Error::NoCuda { reason }) => assert!(reason.contains("without the Cargo feature"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(Device::gpus(), 0);
}

#[test]
fn auto_opens_the_cpu_and_records_the_reason() {
    let device = Device::open(&DeviceConfig { kind: DeviceKind::Auto, ..DeviceConfig::default() }).unwrap();
    assert_ne!(device.instruction_set(), "cuda");
    assert!(device.why_not_cuda().is_some_and(|why| why.contains("without the Cargo feature")));
    assert_eq!(device.memory().in_use_bytes, 0);
}
