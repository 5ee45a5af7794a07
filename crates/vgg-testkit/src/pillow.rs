//! Bitwise reproduction of Pillow's resampling: rows first, rounded to 8 bits, then columns, in fixed point
//! with 22 fractional bits.

use std::f64::consts::PI;

/// Fractional bits of a weight.
const PLACES: u32 = 22;

/// Resizes `pixels [h, w, 3]` to `[to.0, to.1, 3]` with Pillow's filter `bilinear`, `bicubic`, `lanczos` or
/// `nearest`.
///
/// If `filter` is unknown.
/// If there is no filter of that name.
pub fn pillow_resize(pixels: &[u8], h: usize, w: usize, to: (usize, usize), filter: &str) -> Vec<u8> {
    let (down, across) = (taps(h, to.0, filter), taps(w, to.1, filter));
    let mut narrow = Vec::with_capacity(h * to.1 * 3);
    for row in pixels.chunks_exact(w * 3) {
        for tap in &across {
            narrow.extend((0..3).map(|c| sum(tap, |x| row[x * 3 + c])));
        }
    }
    let width = to.1 * 3;
    down.iter()
        .flat_map(|tap| (0..width).map(|i| sum(tap, |y| narrow[y * width + i])).collect::<Vec<_>>())
        .collect()
}

/// The first source pixel of a target pixel, and the weights from there on.
type Tap = (usize, Vec<i32>);

fn sum(tap: &Tap, value: impl Fn(usize) -> u8) -> u8 {
    let (start, weights) = tap;
    let products = weights.iter().zip(*start..).map(|(weight, at)| i32::from(value(at)) * weight);
    ((products.sum::<i32>() + (1 << (PLACES - 1))) >> PLACES).clamp(0, 255) as u8
}

fn taps(side: usize, whole: usize, filter: &str) -> Vec<Tap> {
    let scale = side as f64 / whole as f64;
    if filter == "nearest" {
        // Accumulated as in Pillow. A product would be more exact, but differs where a centre falls on a
        // pixel edge.
        let centres = std::iter::successors(Some(0.5 * scale), |centre| Some(centre + scale));
        return centres.take(whole).map(|at| ((at as usize).min(side - 1), vec![1 << PLACES])).collect();
    }
    let support = match filter {
        "bilinear" => 1.0,
        "bicubic" => 2.0,
        "lanczos" => 3.0,
        _ => panic!("there is no filter {filter}"),
    };
    let widened = scale.max(1.0);
    let tap = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let start = (centre - support * widened + 0.5).max(0.0) as usize;
        let end = ((centre + support * widened + 0.5) as usize).min(side);
        let exact = (start..end).map(|x| weight(filter, (x as f64 - centre + 0.5) * (1.0 / widened)));
        let exact: Vec<f64> = exact.collect();
        let total: f64 = exact.iter().sum();
        let fixed = exact.into_iter().map(|weight| {
            let fixed = weight / total * f64::from(1 << PLACES);
            (fixed + 0.5_f64.copysign(fixed)) as i32
        });
        (start, fixed.collect())
    };
    (0..whole).map(tap).collect()
}

/// Value of a filter at a distance in pixels of the coarser grid.
fn weight(filter: &str, x: f64) -> f64 {
    let x = x.abs();
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
    match filter {
        "bilinear" => (1.0 - x).max(0.0),
        "bicubic" if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        "bicubic" if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
        "lanczos" if x < 3.0 => sinc(x) * sinc(x / 3.0),
        _ => 0.0,
    }
}
