//! The available devices, for tests that must pass on each of them.

#![allow(dead_code, reason = "not every test that shares this needs all of it")]

use vgg_tensor::{Device, DeviceConfig, DeviceKind, Grad, Precision, Tensor};
use vgg_testkit::{assert_close, pseudo_random};

/// A device under test.
pub struct TestDevice {
    pub name: String,
    pub device: Device,
    /// Rounding error of the device's activations relative to the largest value: bf16 has 8 significant bits.
    pub rounding: f64,
}

/// The CPU in f32 and in bf16, and the first GPU in every precision if there is one. If `VGG_REQUIRE` names `gpu`, a
/// missing GPU is a failure.
pub fn every_device() -> Vec<TestDevice> {
    let mut all = vec![TestDevice { name: "cpu".into(), device: Device::cpu(2).unwrap(), rounding: 0.0 }];
    all.extend(bf16_cpus(2));
    for (name, precision) in Precision::ALL {
        match Device::open(&DeviceConfig {
            kind: DeviceKind::Cuda(0),
            precision: Some(precision),
            ..DeviceConfig::default()
        }) {
            Ok(device) => {
                let rounding = match precision {
                    Precision::Bf16 => 6e-3,
                    Precision::Tf32 => 1.5e-3,
                    Precision::F32 => 0.0,
                };
                all.push(TestDevice { name: format!("cuda, {name}"), device, rounding });
            }
            Err(e) => {
                vgg_testkit::skip("gpu", &e);
            }
        }
    }
    all
}

/// The CPU in bf16 with this many threads: with the software model of the tile unit, and with AMX if the processor has it. If `VGG_REQUIRE`
/// names `amx`, a missing unit is a failure.
pub fn bf16_cpus(threads: usize) -> Vec<TestDevice> {
    let mut all = Vec::new();
    for instruction_set in [Some("portable".to_owned()), None] {
        match Device::open(&DeviceConfig {
            kind: DeviceKind::Cpu,
            threads,
            precision: Some(Precision::Bf16),
            instruction_set,
            ..DeviceConfig::default()
        }) {
            Ok(device) => all.push(TestDevice { name: device.to_string(), device, rounding: 6e-3 }),
            Err(e) => vgg_testkit::skip("amx", &e),
        }
    }
    all
}

impl TestDevice {
    /// Reproducible values between -1 and 1 that bf16 holds exactly.
    pub fn values(name: &str, len: usize) -> Vec<f32> {
        let mut values = pseudo_random(name, 1.0, len);
        values.iter_mut().for_each(|v| *v = f32::from_bits(v.to_bits() & 0xffff_0000));
        values
    }

    /// A tensor of [`TestDevice::values`].
    pub fn tensor<const N: usize>(&self, name: &str, shape: [usize; N]) -> Tensor {
        Tensor::from_slice(&TestDevice::values(name, shape.iter().product()), shape, &self.device).unwrap()
    }

    /// A gradient whose bias gradient does not matter.
    pub fn grad_of(&self, dz: Tensor) -> Grad {
        let bias_grad = Tensor::zeros([dz.shape().last()], &self.device).unwrap();
        Grad { grad: dz, bias_grad }
    }

    /// Asserts that `got` is within `tolerance`, or this device's rounding if that is larger.
    pub fn assert_close(&self, got: &[f32], expected: &[f32], tolerance: f64, what: &str) {
        assert_close(got, expected, tolerance.max(self.rounding), &format!("{}: {what}", self.name));
    }
}
