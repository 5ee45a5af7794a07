//! From the axes of other libraries to ours.

use crate::naming::Library;
use crate::source::Entry;

/// Added to variances by batch normalisation in torch.
const EPSILON: f64 = 1e-5;

/// Parts of a batch normalisation: factor, offset, and statistics.
pub(crate) const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// `y = gamma (w x + b - mean) / sqrt(variance + epsilon) + beta` as one convolution.
pub(crate) fn fold((weight, bias): (&mut [f32], &mut [f32]), [gamma, beta, mean, variance]: [&[f32]; 4]) {
    let per_filter = weight.len() / bias.len().max(1);
    for (k, filter) in weight.chunks_exact_mut(per_filter.max(1)).enumerate() {
        let factor = f64::from(gamma[k]) / (f64::from(variance[k]) + EPSILON).sqrt();
        filter.iter_mut().for_each(|w| *w = (f64::from(*w) * factor) as f32);
        bias[k] = ((f64::from(bias[k]) - f64::from(mean[k])) * factor + f64::from(beta[k])) as f32;
    }
}

/// `[R, S, C, K]` to `[K, C, R, S]`, whose shape is given.
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

/// `[in, out]` with inputs in the order H, W, C to `[out, in]` with inputs in the order C, H, W.
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

/// `[K, 3, R, S]` with the channels in the opposite order.
pub(crate) fn reversed_channels(weight: &[f32], shape: &[usize]) -> Vec<f32> {
    let plane = shape[2] * shape[3];
    weight
        .chunks_exact(3 * plane)
        .flat_map(|f| [&f[2 * plane..], &f[plane..2 * plane], &f[..plane]].concat())
        .collect()
}

/// Shape of a weight in our layout: `[K, C, R, S]` or `[out, in]`.
pub(crate) fn shape_of(entries: &[Entry], name: &str, library: Library) -> Option<Vec<usize>> {
    let shape = &entries.iter().find(|e| e.name == name)?.shape;
    let is_filter = shape.len() == 4 && !(shape[0] == 1 && shape[1] == 1);
    let fully_connected = layer_is_fully_connected(name);
    Some(match shape.as_slice() {
        [r, s, c, k] if library.channels_last() => vec![*k, *c, *r, *s],
        [inputs, outputs] if library.channels_last() => vec![*outputs, *inputs],
        // As a convolution of the whole map, which timm has, or as a blob of four axes, which old Caffe has.
        [k, rest @ ..] if is_filter && fully_connected => vec![*k, rest.iter().product()],
        [1, 1, k, inputs] => vec![*k, *inputs],
        other => other.to_vec(),
    })
}

fn layer_is_fully_connected(name: &str) -> bool {
    ["fc", "classifier"].iter().any(|part| name.contains(part))
}

/// A vector's shape without sides of 1.
pub(crate) fn flat(shape: &[usize]) -> Vec<usize> {
    vec![shape.iter().product()]
}
