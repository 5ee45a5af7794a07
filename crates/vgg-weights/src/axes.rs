//! Conversion of weights from the axis orders of other libraries to `[K, C, R, S]` and `[out, in]`.

use crate::naming::Library;
use crate::source::Entry;

/// PyTorch's `eps` of batch normalisation, which is added to the variance.
const EPSILON: f64 = 1e-5;

/// Tensors of a batch normalisation: scale, shift and running statistics.
pub(crate) const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// Folds batch normalisation into the convolution before it:
/// `y = gamma (w x + b - mean) / sqrt(variance + epsilon) + beta`.
pub(crate) fn fold(weight: &mut [f32], bias: &mut [f32], norm: [&[f32]; 4]) {
    let [gamma, beta, mean, variance] = norm;
    let per_filter = weight.len() / bias.len().max(1);
    for (k, filter) in weight.chunks_exact_mut(per_filter.max(1)).enumerate() {
        let factor = f64::from(gamma[k]) / (f64::from(variance[k]) + EPSILON).sqrt();
        filter.iter_mut().for_each(|w| *w = (f64::from(*w) * factor) as f32);
        bias[k] = ((f64::from(bias[k]) - f64::from(mean[k])) * factor + f64::from(beta[k])) as f32;
    }
}

/// Permutes `[R, S, C, K]` to `[K, C, R, S]`, whose shape is `shape`.
pub(crate) fn from_rsck(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let [k, c, r, s] = [shape[0], shape[1], shape[2], shape[3]];
    let mut out = Vec::with_capacity(values.len());
    for filter in 0..k {
        for channel in 0..c {
            out.extend((0..r * s).map(|place| values[(place * c + channel) * k + filter]));
        }
    }
    out
}

/// Transposes `[in, out]` with inputs in the order H, W, C to `[out, in]`, whose shape is `shape`, with
/// inputs in the order C, H, W.
pub(crate) fn transposed(values: &[f32], shape: &[usize], [h, w, c]: [usize; 3]) -> Vec<f32> {
    let outputs = shape[0];
    let mut out = Vec::with_capacity(values.len());
    for output in 0..outputs {
        for channel in 0..c {
            out.extend((0..h * w).map(|place| values[(place * c + channel) * outputs + output]));
        }
    }
    out
}

/// Reverses the channels of `[K, 3, R, S]`: BGR to RGB, or RGB to BGR.
pub(crate) fn reversed_channels(weight: &[f32], shape: &[usize]) -> Vec<f32> {
    let plane = shape[2] * shape[3];
    weight
        .chunks_exact(3 * plane)
        .flat_map(|f| [&f[2 * plane..], &f[plane..2 * plane], &f[..plane]].concat())
        .collect()
}

/// Shape of a weight in the native layout, `[K, C, R, S]` or `[out, in]`; `None` if there is no such tensor.
pub(crate) fn shape_of(entries: &[Entry], name: &str, library: Library) -> Option<Vec<usize>> {
    let shape = &entries.iter().find(|e| e.name == name)?.shape;
    let is_filter = shape.len() == 4 && !(shape[0] == 1 && shape[1] == 1);
    let fully_connected = layer_is_fully_connected(name);
    Some(match shape.as_slice() {
        [r, s, c, k] if library.channels_last() => vec![*k, *c, *r, *s],
        [inputs, outputs] if library.channels_last() => vec![*outputs, *inputs],
        // timm stores fully connected layers as convolutions.
        [k, rest @ ..] if is_filter && fully_connected => vec![*k, rest.iter().product()],
        // Caffe's V1 schema stores matrices as blobs of four axes.
        [1, 1, k, inputs] => vec![*k, *inputs],
        other => other.to_vec(),
    })
}

fn layer_is_fully_connected(name: &str) -> bool {
    ["fc", "classifier"].iter().any(|part| name.contains(part))
}

/// Shape of a vector, such as `[1, 1, 1, n]`, as one axis.
pub(crate) fn flat(shape: &[usize]) -> Vec<usize> {
    vec![shape.iter().product()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that encode their index: 123.0 is at `[1, 2, 3]`.
    fn digits(shape: &[usize]) -> Vec<f32> {
        let digit =
            |place: usize, axis: usize| place / shape[axis + 1..].iter().product::<usize>() % shape[axis];
        let value = |place| (0..shape.len()).fold(0, |value, axis| 10 * value + digit(place, axis));
        (0..shape.iter().product()).map(|place| value(place) as f32).collect()
    }

    #[test]
    fn filters_are_transposed_from_rsck_to_kcrs() {
        // R 2, S 3, C 4, K 5.
        let mut expected = Vec::new();
        for k in 0..5 {
            for c in 0..4 {
                for r in 0..2 {
                    for s in 0..3 {
                        expected.push((r * 1000 + s * 100 + c * 10 + k) as f32);
                    }
                }
            }
        }
        assert_eq!(from_rsck(&digits(&[2, 3, 4, 5]), &[5, 4, 2, 3]), expected);
    }

    #[test]
    fn matrices_are_transposed_and_their_inputs_permuted_from_hwc_to_chw() {
        // H 2, W 3, C 4, and 5 outputs.
        let mut expected = Vec::new();
        for output in 0..5 {
            for c in 0..4 {
                for h in 0..2 {
                    for w in 0..3 {
                        expected.push((h * 1000 + w * 100 + c * 10 + output) as f32);
                    }
                }
            }
        }
        assert_eq!(transposed(&digits(&[2, 3, 4, 5]), &[5, 24], [2, 3, 4]), expected);
    }

    #[test]
    fn reversed_channels_swaps_the_first_and_the_last() {
        let reversed = reversed_channels(&digits(&[2, 3, 1, 2]), &[2, 3, 1, 2]);
        let expected = [200., 201., 100., 101., 0., 1., 1200., 1201., 1100., 1101., 1000., 1001.];
        assert_eq!(reversed, expected);
    }

    #[test]
    fn batch_normalisation_is_folded_with_torchs_epsilon() {
        let (mut weight, mut bias) = (vec![1.0, -2.0, 3.0, 0.5], vec![5.0, 0.5]);
        // A variance of 4 - 1e-5 gives the divisor 2, a variance of 0 the factor 1 / sqrt(1e-5) = 316.227766.
        fold(&mut weight, &mut bias, [&[6.0, 2.0], &[10.0, 20.0], &[1.0, 2.0], &[3.99999, 0.0]]);
        let expected = [3.0, -6.0, 1_897.366_6, 316.227_77];
        // (5 - 1) 3 + 10 and (0.5 - 2) 632.455532 + 20.
        let offsets = [22.0, -928.683_3];
        for (value, expected) in weight.iter().chain(&bias).zip(expected.iter().chain(&offsets)) {
            // One rounding to f32; the variance of 3.99999 is rounded as well.
            assert!((value - expected).abs() <= 2e-7 * expected.abs(), "{weight:?} {bias:?}");
        }
    }

    #[test]
    fn shapes_of_every_library_are_converted_to_kcrs_or_out_in() {
        let shape = |name: &str, shape: &[usize], library| {
            let entries = [Entry { name: name.into(), shape: shape.to_vec() }];
            shape_of(&entries, name, library)
        };
        for (name, library, file, ours) in [
            ("block1_conv1/kernel", Library::Keras, vec![3, 5, 7, 64], vec![64, 7, 3, 5]),
            ("conv1_1_W", Library::TensorFlow, vec![3, 5, 7, 64], vec![64, 7, 3, 5]),
            ("fc6_W", Library::TensorFlow, vec![24, 5], vec![5, 24]),
            ("conv1_1_b", Library::TensorFlow, vec![64], vec![64]),
            ("features.0.weight", Library::Torchvision, vec![64, 7, 3, 5], vec![64, 7, 3, 5]),
            ("classifier.0.weight", Library::Torchvision, vec![5, 24], vec![5, 24]),
            ("pre_logits.fc1.weight", Library::Timm, vec![5, 4, 2, 3], vec![5, 24]),
            ("pre_logits.fc2.weight", Library::Timm, vec![7, 5, 1, 1], vec![7, 5]),
            ("classifier.0.weight", Library::Torchvision, vec![5, 4, 2, 3], vec![5, 24]),
            ("fc6.0", Library::Caffe, vec![1, 1, 5, 24], vec![5, 24]),
            ("conv1_1.0", Library::Caffe, vec![64, 7, 3, 5], vec![64, 7, 3, 5]),
            // 1x1 filters, and filters with one output channel, are not matrices.
            ("conv3_3.0", Library::Caffe, vec![8, 1, 1, 1], vec![8, 1, 1, 1]),
            ("conv3_3.0", Library::Caffe, vec![1, 8, 1, 1], vec![1, 8, 1, 1]),
            ("fc6.1", Library::Caffe, vec![1, 1, 1, 5], vec![1, 5]),
        ] {
            assert_eq!(shape(name, &file, library), Some(ours), "{name}");
        }
        assert_eq!(shape_of(&[], "conv1_1.weight", Library::Native), None);
        assert_eq!(flat(&[1, 1, 2, 5]), [10]);
        assert_eq!(flat(&[5]), [5]);
    }
}
