//! Dropout: which values Philox4x32-10 drops, and how the others are scaled.

mod common;
mod instruction_sets;

use vgg_tensor::ops::dropout::{self, DropoutKey};
use vgg_tensor::{Error, StepGraph, StepState, Tensor};

use common::{TestDevice, every_device};
use instruction_sets::{assert_within, in_poisoned_memory, is_gpu};

const RATES: [f32; 5] = [0.1, 0.3, 0.5, 0.9, 0.0];

/// Philox4x32-10 as defined by Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut state = counter;
    for round in 0..10u32 {
        let round_key = [
            key[0].wrapping_add(round.wrapping_mul(0x9e37_79b9)),
            key[1].wrapping_add(round.wrapping_mul(0xbb67_ae85)),
        ];
        let left = u64::from(state[0]) * 0xd251_1f53;
        let right = u64::from(state[2]) * 0xcd9e_8d57;
        let high = |product: u64| (product >> 32) as u32;
        let low = |product: u64| (product & 0xffff_ffff) as u32;
        state = [
            high(right) ^ state[1] ^ round_key[0],
            low(right),
            high(left) ^ state[3] ^ round_key[1],
            low(left),
        ];
    }
    state
}

/// The known answers in `kat_vectors` of Random123, the authors' library.
#[test]
fn reference_philox_has_the_known_answers() {
    let expected = [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
    assert_eq!(philox4x32_10([0; 4], [0; 2]), expected);
    let expected = [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd];
    assert_eq!(philox4x32_10([u32::MAX; 4], [u32::MAX; 2]), expected);
    let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    let expected = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
    assert_eq!(philox4x32_10(counter, [0xa409_3822, 0x299f_31d0]), expected);
}

/// Whether element `at` of a sample of `len` values is dropped. Each sample uses whole blocks of four words.
/// The counter holds the block number in 40 bits, the layer in 24 and the step in 64; the key is the seed.
fn is_dropped(key: DropoutKey, rate: f32, sample: usize, len: usize, at: usize) -> bool {
    let block = (key.first_sample + sample) as u64 * len.div_ceil(4) as u64 + at as u64 / 4;
    let counter =
        [block as u32, (block >> 32) as u32 | key.layer << 8, key.step as u32, (key.step >> 32) as u32];
    let words = philox4x32_10(counter, [key.seed as u32, (key.seed >> 32) as u32]);
    f64::from(words[at % 4]) < f64::from(rate) * 4_294_967_296.0
}

const KEY: DropoutKey = DropoutKey { seed: 7, step: 3, layer: 1, first_sample: 0 };

/// Keys that differ from [`KEY`] in one field each, in low or in high bits.
fn other_keys() -> Vec<DropoutKey> {
    vec![
        DropoutKey { seed: 8, ..KEY },
        DropoutKey { seed: 7 + (1 << 32), ..KEY },
        DropoutKey { step: 4, ..KEY },
        DropoutKey { step: 3 + (1 << 32), ..KEY },
        DropoutKey { layer: 0, ..KEY },
        DropoutKey { layer: 2, ..KEY },
        DropoutKey { layer: (1 << 24) - 1, ..KEY },
        DropoutKey { first_sample: 1 << 31, ..KEY },
    ]
}

/// Whether each of `[samples, len]` ones is dropped.
fn mask(on: &TestDevice, key: DropoutKey, rate: f32, samples: usize, len: usize) -> Vec<bool> {
    let x = Tensor::from_slice(&vec![1.0; samples * len], [samples, len], &on.device).unwrap();
    let y = dropout::forward(&x, rate, key).unwrap().to_vec();
    assert_eq!(y.len(), samples * len);
    y.into_iter().map(|y| y == 0.0).collect()
}

#[test]
fn dropped_values_agree_with_the_reference_philox() {
    for on in every_device() {
        let keys = other_keys().into_iter().chain([KEY, DropoutKey { first_sample: 5, ..KEY }]);
        for key in keys {
            for rate in RATES {
                for [n, h, w, c] in [[3, 1, 1, 17], [2, 1, 1, 16], [3, 2, 3, 5], [2, 2, 1, 8], [1, 1, 1, 1]] {
                    let len = h * w * c;
                    let what = format!("{}: {key:?}, rate {rate}, [{n}, {h}, {w}, {c}]", on.name);
                    let values: Vec<f32> =
                        TestDevice::values("x", n * len).iter().map(|x| x.abs() + 0.5).collect();
                    let values: Vec<f32> = values.iter().map(|x| (x * 64.0).floor() / 64.0).collect();
                    let x = Tensor::from_slice(&values, [n, h, w, c], &on.device).unwrap();
                    let run = || dropout::forward(&x, rate, key).unwrap().to_vec();
                    let y = if is_gpu(&on) { run() } else { in_poisoned_memory(&on, run) };
                    let expected = |i: usize| {
                        let dropped = is_dropped(key, rate, i / len, len, i % len);
                        if dropped { 0.0 } else { f64::from(values[i]) / (1.0 - f64::from(rate)) }
                    };
                    let expected: Vec<f64> = (0..n * len).map(expected).collect();
                    // Values up to 15; `1 - rate`, its reciprocal and the product round once each.
                    assert_within(&y, &expected, 15.0 * on.rounding.max(2f64.powi(-22)), &what);
                    let none_else = y.iter().zip(&expected).all(|(y, e)| (*y == 0.0) == (*e == 0.0));
                    assert!(none_else, "{what}: exactly the dropped values are 0");
                }
            }
        }
    }
}

#[test]
fn samples_of_any_length_have_their_own_random_numbers() {
    for on in every_device() {
        for len in (1..=17).chain([31, 33]) {
            let got = mask(&on, KEY, 0.5, 5, len);
            let expected: Vec<bool> =
                (0..5 * len).map(|i| is_dropped(KEY, 0.5, i / len, len, i % len)).collect();
            assert_eq!(got, expected, "{}: samples of {len}", on.name);
            // A sample's numbers do not depend on how the batch is split.
            let rest = mask(&on, DropoutKey { first_sample: 2, ..KEY }, 0.5, 3, len);
            assert_eq!(rest, expected[2 * len..], "{}: samples of {len} from the third on", on.name);
        }
    }
}

/// Kept values are multiplied by `1 / (1 - rate)`, so that the mean does not change.
#[test]
fn kept_values_are_scaled() {
    for on in every_device() {
        for (rate, scale) in [(0.5, 2.0), (0.75, 4.0), (0.875, 8.0), (0.0, 1.0)] {
            let values = TestDevice::values("x", 1000);
            let x = Tensor::from_slice(&values, [10, 100], &on.device).unwrap();
            let y = dropout::forward(&x, rate, KEY).unwrap().to_vec();
            let kept = y.iter().zip(&values).filter(|pair| *pair.0 != 0.0);
            // Multiplication by a power of two is exact.
            assert!(kept.clone().all(|(y, x)| *y == scale * x), "{}: rate {rate}", on.name);
            assert!(kept.count() > 50, "{}: rate {rate}", on.name);
        }
        for rate in [0.1f32, 0.3, 0.9] {
            let x = Tensor::from_slice(&[1.0; 1000], [10, 100], &on.device).unwrap();
            let y = dropout::forward(&x, rate, KEY).unwrap().to_vec();
            // The reciprocal, rounded to the device's precision.
            let expected = 1.0 / (1.0 - rate);
            let bound = f64::from(expected) * on.rounding;
            let close = |y: &f32| *y == 0.0 || (f64::from(*y) - f64::from(expected)).abs() <= bound;
            assert!(y.iter().all(close), "{}: rate {rate}", on.name);
        }
    }
}

#[test]
fn dropped_fraction_is_the_rate() {
    const SAMPLES: usize = 50;
    const LEN: usize = 801;
    for on in every_device() {
        for rate in [0.1f32, 0.3, 0.5, 0.9] {
            let dropped = mask(&on, KEY, rate, SAMPLES, LEN);
            let rate = f64::from(rate);
            let within_five_deviations = |dropped: usize, of: usize, what: &str| {
                let deviation = (of as f64 * rate * (1.0 - rate)).sqrt();
                let off = dropped as f64 - of as f64 * rate;
                assert!(off.abs() <= 5.0 * deviation, "{}: {what} of rate {rate}: off by {off}", on.name);
            };
            within_five_deviations(dropped.iter().filter(|d| **d).count(), SAMPLES * LEN, "all");
            // The rate holds for each of the four words of a block and for each lane of a vector.
            for lane in 0..16 {
                let lanes = dropped.chunks_exact(LEN).flat_map(|sample| sample.iter().skip(lane).step_by(16));
                let of = lanes.clone().count();
                within_five_deviations(lanes.filter(|d| **d).count(), of, &format!("lane {lane}"));
            }
        }
    }
}

/// Two independent masks agree with probability `rate^2 + (1 - rate)^2`.
fn assert_independent(a: &[bool], b: &[bool], rate: f64, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    let agree = a.iter().zip(b).filter(|pair| pair.0 == pair.1).count();
    let probability = rate * rate + (1.0 - rate) * (1.0 - rate);
    let deviation = (a.len() as f64 * probability * (1.0 - probability)).sqrt();
    let off = agree as f64 - a.len() as f64 * probability;
    assert!(off.abs() <= 5.0 * deviation, "{what}: {agree} of {} agree", a.len());
}

#[test]
fn seeds_steps_layers_and_samples_are_independent() {
    const SAMPLES: usize = 4;
    const LEN: usize = 4000;
    for on in every_device() {
        for rate in [0.5f32, 0.3] {
            let keys: Vec<DropoutKey> = other_keys().into_iter().chain([KEY]).collect();
            // All samples of all keys.
            let masks: Vec<Vec<bool>> = keys.iter().map(|key| mask(&on, *key, rate, SAMPLES, LEN)).collect();
            let samples: Vec<&[bool]> = masks.iter().flat_map(|mask| mask.chunks_exact(LEN)).collect();
            for (i, a) in samples.iter().enumerate() {
                for (j, b) in samples.iter().enumerate().take(i) {
                    let what = format!("{}: rate {rate}, samples {i} and {j}", on.name);
                    assert_independent(a, b, f64::from(rate), &what);
                }
                // Neighbouring elements are independent, too.
                let what = format!("{}: rate {rate}, neighbours of sample {i}", on.name);
                assert_independent(&a[1..], &a[..LEN - 1], f64::from(rate), &what);
            }
        }
    }
}

#[test]
fn rates_outside_of_zero_to_one_are_errors() {
    for on in every_device() {
        let x = Tensor::from_slice(&[1.0; 8], [2, 4], &on.device).unwrap();
        for rate in [-0.1, 1.0, 1.5, f32::NAN] {
            let error = dropout::forward(&x, rate, KEY).unwrap_err();
            assert!(matches!(error, Error::Unsupported { op: "dropout", .. }), "{}: {error}", on.name);
        }
    }
}

/// A GPU captures the second run as a graph, and launches the graph from then on.
#[test]
fn captured_step_drops_new_values_at_each_launch() {
    const LEN: usize = 40;
    for on in every_device() {
        let state = StepState::new(&on.device).unwrap();
        let x = Tensor::from_slice(&[1.0; 3 * LEN], [3, LEN], &on.device).unwrap();
        let mut y = None;
        let mut replay = StepGraph::new();
        for step in 0..5 {
            state.begin(step, 0.1).unwrap();
            let work = || -> Result<(), Error> {
                y = Some(dropout::forward_in_step(&x, 0.5, KEY, &state)?);
                Ok(())
            };
            replay.run(&on.device, work).unwrap();
            let found: Vec<bool> = y.as_ref().unwrap().to_vec().into_iter().map(|y| y == 0.0).collect();
            let key = DropoutKey { step, ..KEY };
            let expected = (0..3 * LEN).map(|i| is_dropped(key, 0.5, i / LEN, LEN, i % LEN));
            assert!(found.into_iter().eq(expected), "{}, step {step}", on.name);
        }
    }
}
