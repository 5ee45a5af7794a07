//! Reported memory of a step: at least that of parameters, less if frozen, more with larger micro-batches.

use vgg_layers::{Config, Device, NetworkSpec};
use vgg_optim::{Schedule, SgdOptions};
use vgg_train::{Error, TrainConfig, check_step_memory, step_memory_bytes};

fn config(micro_batch: usize) -> TrainConfig {
    let schedule = Schedule::Constant { lr: 1e-3 };
    TrainConfig { micro_batch, sgd: SgdOptions::PAPER, schedule, max_epochs: 1, validate_every: 1, seed: 1 }
}

#[test]
fn step_memory_covers_weights_gradients_velocities_and_activations() {
    let device = Device::cpu(1).unwrap();
    // Fully connected layers have nearly all parameters.
    let spec = NetworkSpec {
        width: 0.125,
        classes: 10,
        head: [2048, 2048],
        crop: 32,
        ..NetworkSpec::paper(Config::A)
    };
    let bytes = |micro_batch, layers: Option<&[String]>| {
        step_memory_bytes(&spec, layers, &config(micro_batch), 16, &device).unwrap()
    };
    let parameters = 4 * spec.parameter_count().unwrap();
    // H * W * C of the outputs of A's convolutions and max pooling at an eighth of the width.
    let activations =
        4 * (32 * 32 * 8 + 16 * 16 * (8 + 16) + 8 * 8 * (16 + 64) + 4 * 4 * (32 + 128) + 2 * 2 * 192 + 64);
    let (few, many) = (bytes(2, None), bytes(16, None));
    assert!(few > 3 * parameters + 2 * activations && few < 5 * parameters, "{few}, parameters {parameters}");
    assert!(
        many > 3 * parameters + 16 * activations,
        "{many}, parameters {parameters}, an image {activations}"
    );
    // At most 8 times the activations of 14 more images: gradients reuse the memory of activations. With two images
    // the peak is in a layer whose scratch memory is larger than their activations.
    let growth = many - few;
    assert!(
        (14 * activations / 2..8 * 14 * activations).contains(&growth),
        "{growth}, an image {activations}"
    );
    // Only fc8 is trainable: the other layers have neither gradients nor velocities.
    let frozen = bytes(2, Some(&["fc8".to_owned()]));
    let learning = 4 * (2048 * 10 + 10);
    assert!(frozen + 2 * (parameters - learning) < few + parameters / 8, "{frozen} frozen, {few} not");

    assert_eq!(check_step_memory(&spec, None, &config(2), 16, &device).unwrap(), few);
    assert_eq!(check_step_memory(&spec, None, &config(16), 16, &device).unwrap(), many);
}

#[test]
fn memory_error_has_gib_and_a_micro_batch_that_fits() {
    let error = |fitting| {
        let (needed_bytes, free_bytes) = (11 << 28, 5 << 28);
        Error::Memory { micro_batch: 64, needed_bytes, free_bytes, fitting }.to_string()
    };
    assert!(
        error(16).contains("micro_batch = 64 needs 2.75 GiB, but the GPU has 1.25 GiB free"),
        "{}",
        error(16)
    );
    assert!(error(16).contains("16") && !error(0).contains("16"), "{}", error(0));
}
