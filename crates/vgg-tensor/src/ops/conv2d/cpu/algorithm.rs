//! The choice of algorithm. It affects rounding, so it depends on the shape and on whether there is one
//! image, never on timing or threads.

use super::winograd::{POINTWISE, WINOGRAD2, WINOGRAD4, WINOGRAD6};
use super::{ConvKernel, ConvShape, direct, gather};
use crate::ConvAlgorithm;
use crate::cpu::SMALL_MAP;

/// Cost of reading one transformed filter value from memory.
const FROM_MEMORY: f64 = 2.5;

/// Cost of an algorithm, in units of one vector multiply-add on a core.
struct Cost {
    /// Outputs along a side of a tile.
    m: usize,
    /// Vector operations of the transforms per tile and eight channels, of inputs and outputs.
    input: f64,
    output: f64,
    algorithm: &'static dyn ConvKernel,
}

fn costs() -> [Cost; 3] {
    [
        Cost { m: 2, input: 80.0, output: 60.0, algorithm: WINOGRAD2 },
        Cost { m: 4, input: 220.0, output: 160.0, algorithm: WINOGRAD4 },
        Cost { m: 6, input: 500.0, output: 380.0, algorithm: WINOGRAD6 },
    ]
}

/// The algorithm for all passes of the convolution `s`.
pub(super) fn choose(choice: ConvAlgorithm, s: &ConvShape) -> &'static dyn ConvKernel {
    match (s.r, choice) {
        (_, ConvAlgorithm::Direct) => &direct::Direct,
        (3, _) if s.c < 8 => &direct::Direct,
        (3, ConvAlgorithm::Winograd2) => WINOGRAD2,
        (3, ConvAlgorithm::Winograd4) => WINOGRAD4,
        (3, ConvAlgorithm::Winograd6) => WINOGRAD6,
        (3, ConvAlgorithm::Auto) => cheapest(s),
        (1, _) if s.pad == 0 => POINTWISE,
        _ if s.pad == 0 => &gather::Gather,
        _ => &direct::Direct,
    }
}

/// The cheapest tile size. The number of images counts only for a single image with a small map, where
/// reading the filters takes most of the time; otherwise the results of an image would depend on its batch.
fn cheapest(s: &ConvShape) -> &'static dyn ConvKernel {
    let images = if s.n == 1 && s.h * s.w <= SMALL_MAP { 1 } else { 16 };
    let (c, k) = (s.c.div_ceil(16) as f64 * 2.0, s.k.div_ceil(16) as f64 * 2.0);
    let cost = |cost: &Cost| {
        let elements = ((cost.m + 2) * (cost.m + 2)) as f64;
        let tiles = (images * s.oh.div_ceil(cost.m) * s.ow.div_ceil(cost.m)) as f64;
        let products = tiles * elements * c * k * 8.0;
        let transforms = tiles * (cost.input * c + cost.output * k);
        let filters = elements * c * k * 64.0 * FROM_MEMORY;
        products + transforms + filters
    };
    let best = costs().into_iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
    best.map_or(&direct::Direct as &dyn ConvKernel, |best| best.algorithm)
}
