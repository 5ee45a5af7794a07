//! Operands that operations must reject, and memory that a captured graph keeps.

mod common;

use std::sync::Arc;

use ndarray::{Array2, Array4};
use vgg_tensor::ops::max_pool2d::{self, PoolRounding};
use vgg_tensor::ops::{conv2d, dropout, linear, softmax_cross_entropy, softmax_cross_entropy_staged};
use vgg_tensor::{
    AllReduce, Device, DeviceConfig, DeviceKind, Error, GradMode, Precision, ProcessGroup, SingleProcess,
    StagedBatch, StepGraph, StepState, Tensor, Weight,
};

use common::{TestDevice, bf16_cpus, every_device};

/// The GPUs among the devices.
fn gpus() -> Vec<TestDevice> {
    every_device().into_iter().filter(|on| on.device.instruction_set() == "cuda").collect()
}

fn assert_device(result: Result<(), Error>, operand: &str, name: &str) {
    match result {
        Err(Error::Device { operand: found, .. }) => assert_eq!(found, operand, "{name}"),
        other => panic!("{name}: {other:?}"),
    }
}

fn assert_unsupported(result: Result<(), Error>, name: &str) {
    assert!(matches!(result, Err(Error::Unsupported { .. })), "{name}: {result:?}");
}

fn upload(device: &Device) -> StagedBatch {
    let mut upload = StagedBatch::new([2, 1, 1, 3], device).unwrap();
    let (pixels, offset) = (Array4::zeros([2, 1, 1, 3]), Array2::zeros([2, 3]));
    upload.fill(pixels.view(), offset.view(), &[0, 1]).unwrap();
    upload
}

#[test]
fn state_and_staged_batch_of_another_device_are_rejected() {
    for on in every_device() {
        let same_kind = match on.device.cudnn_properties().unwrap() {
            Some(_) => DeviceKind::Cuda(0),
            None => continue,
        };
        let config =
            DeviceConfig { kind: same_kind, precision: Some(Precision::F32), ..DeviceConfig::default() };
        let others = [Device::cpu(1).unwrap(), Device::open(&config).unwrap(), on.device.dry_run().unwrap()];
        let logits = on.tensor("logits", [2, 3]);
        let own = StepState::new(&on.device).unwrap();
        for (other, kind) in others.iter().zip(["a CPU", "another GPU", "a dry run"]) {
            let what = format!("{}, {kind}", on.name);
            let state = StepState::new(other).unwrap();
            let loss = softmax_cross_entropy(&logits, &[0, 1], 1.0, &state);
            assert_device(loss.map(drop), "state", &what);
            let loss = softmax_cross_entropy_staged(&logits, &upload(other), 0..2, 1.0, &own);
            assert_device(loss.map(drop), "staged batch", &what);
        }
    }
}

#[test]
fn activation_is_rejected_as_weight_and_gradient() {
    // Activations of a CPU in f32 have the format of weights.
    for on in every_device().into_iter().filter(|on| on.name != "cpu") {
        // Three channels are padded to eight.
        let x = on.tensor("x", [2, 4, 4, 3]);
        let key = dropout::DropoutKey { seed: 1, step: 0, layer: 0, first_sample: 0 };
        let activation = || dropout::forward(&on.tensor("a", [3, 3]), 0.0, key).unwrap();
        let bias = Weight::new(on.tensor("b", [3]));
        let config = linear::Linear { relu: false };
        let rows = on.tensor("rows", [2, 3]);
        let y = linear::forward(&rows, &Weight::new(activation()), &bias, config);
        assert_unsupported(y.map(drop), &on.name);
        let state = StepState::new(&on.device).unwrap();
        let written = linear::grad_weight(&rows, &rows, &mut activation(), GradMode::Overwrite, &state);
        assert_unsupported(written, &on.name);
        let filters = dropout::forward(&on.tensor("w", [8, 3, 3, 3]), 0.0, key).unwrap();
        let bias = Weight::new(on.tensor("b", [8]));
        let config = conv2d::Conv2d { pad: 1, relu: true };
        assert_unsupported(conv2d::forward(&x, &Weight::new(filters), &bias, config).map(drop), &on.name);
    }
}

/// The same weights serve vectors and images, whose packed copies have different orders.
#[test]
fn a_weight_may_be_read_by_inputs_of_several_forms() {
    for on in every_device() {
        let map = on.tensor("x", [2, 2, 2, 40]);
        let vectors = Tensor::from_slice(&map.to_vec(), [2, 160], &on.device).unwrap();
        let weight = Weight::new(on.tensor("w", [9, 160]));
        let bias = Weight::new(on.tensor("b", [9]));
        let run =
            |x: &Tensor| linear::forward(x, &weight, &bias, linear::Linear { relu: false }).unwrap().to_vec();
        let (first, second, third) = (run(&map), run(&vectors), run(&map));
        assert!(first == third, "{}", on.name);
        on.assert_close(&first, &second, 1e-5, "images and vectors");
    }
}

/// An activation of a device may be in another format than a tensor from host memory.
#[test]
fn concat_takes_activations_and_plain_tensors() {
    let key = dropout::DropoutKey { seed: 1, step: 0, layer: 0, first_sample: 0 };
    for on in every_device() {
        for shape in [[2, 3, 2, 5].as_slice(), &[2, 40]] {
            let shape = vgg_tensor::Shape::from_slice(shape).unwrap();
            let values = TestDevice::values("x", shape.len());
            let plain = Tensor::from_slice(&values, shape, &on.device).unwrap();
            let activation = dropout::forward(&plain, 0.0, key).unwrap();
            for parts in [[plain.clone(), activation.clone()], [activation, plain]] {
                let both = Tensor::concat(&parts).unwrap().to_vec();
                assert!(both == [&values[..], &values].concat(), "{}: {shape}", on.name);
            }
        }
    }
}

/// A CPU in f32 and one in bf16 store activations differently.
#[test]
fn operands_of_a_cpu_in_another_precision_are_rejected() {
    let cpu = Device::cpu(1).unwrap();
    for on in bf16_cpus(1) {
        let x = on.tensor("x", [1, 4, 4, 3]);
        let weight = Weight::new(Tensor::zeros([8, 3, 3, 3], &cpu).unwrap());
        let bias = Weight::new(Tensor::zeros([8], &cpu).unwrap());
        let y = conv2d::forward(&x, &weight, &bias, conv2d::Conv2d { pad: 1, relu: true });
        assert_device(y.map(drop), "weight", &on.name);
        let (pooled, _) = max_pool2d::forward(&x, PoolRounding::Floor).unwrap();
        let x = Tensor::from_slice(&x.to_vec(), [1, 4, 4, 3], &cpu).unwrap();
        let (_, index) = max_pool2d::forward(&x, PoolRounding::Floor).unwrap();
        let grad = max_pool2d::backward(&on.grad_of(pooled), &index);
        assert_device(grad.map(drop), "index", &on.name);
    }
}

#[test]
fn all_reduce_rejects_a_tensor_of_another_device() {
    let group: Arc<dyn ProcessGroup> = Arc::new(SingleProcess);
    let mut all = AllReduce::new(&group, &Device::cpu(1).unwrap()).unwrap();
    for on in gpus() {
        assert_device(all.begin(&mut on.tensor("x", [5])), "a tensor", &on.name);
    }
}

/// Tensors that a graph writes are dropped, and others are allocated; launching the graph must not change
/// them.
#[test]
fn a_graph_keeps_its_memory_until_it_is_dropped() {
    for on in gpus() {
        const SHAPE: [usize; 2] = [64, 64];
        let ones = || Tensor::from_slice(&[1.0; 64 * 64], SHAPE, &on.device).unwrap();
        let zeros = || Tensor::zeros(SHAPE, &on.device).unwrap();
        let (source, mut written) = (ones(), Some(zeros()));
        let mut replay = StepGraph::new();
        let run = |replay: &mut StepGraph, written: &mut Option<Tensor>| {
            replay.run(&on.device, || match written {
                Some(written) => written.copy_from(&source),
                None => panic!("the graph was not launched"),
            })
        };
        for _ in 0..3 {
            run(&mut replay, &mut written).unwrap();
        }
        drop(written.take());
        let others = [zeros(), zeros()];
        run(&mut replay, &mut written).unwrap();
        for other in &others {
            assert!(other.to_vec().iter().all(|v| *v == 0.0), "{}: a graph wrote to another tensor", on.name);
        }
        let before = on.device.memory().peak_bytes;
        drop(replay);
        let _third = zeros();
        assert_eq!(on.device.memory().peak_bytes, before, "{}: the memory is free again", on.name);
    }
}

#[test]
fn captured_work_cannot_read_host_memory() {
    for on in gpus() {
        let mut replay = StepGraph::new();
        let mut run = || replay.run(&on.device, || Tensor::from_slice(&[1.0; 4], [4], &on.device).map(drop));
        run().unwrap();
        let error = run().unwrap_err();
        assert!(matches!(error, Error::Cuda { call: "cuMemcpyHtoD", .. }), "{}: {error}", on.name);
        assert!(on.tensor("x", [4]).to_vec().len() == 4, "{}: the stream works again", on.name);
    }
}
