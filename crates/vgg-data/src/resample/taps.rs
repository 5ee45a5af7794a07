//! Which pixels make a pixel, and by what weights.

use std::f64::consts::PI;
use std::ops::Range;

use crate::Filter;

/// Binary places of a weight.
pub(super) const PLACES: u32 = 22;

/// For each pixel of one direction, the pixels that it is made of and their weights.
pub(crate) struct Taps {
    /// First pixel of each, and how many.
    bounds: Vec<(usize, usize)>,
    /// Weights, a stretch of `room` for each.
    weights: Vec<i32>,
    room: usize,
}

impl Taps {
    /// Of the pixels `offset..offset + size` of `side` pixels resized to `whole`.
    pub(crate) fn new(side: usize, whole: usize, offset: usize, size: usize, filter: Filter) -> Taps {
        if filter == Filter::Nearest {
            return Taps::nearest(side, whole, offset, size);
        }
        let scale = side as f64 / whole as f64;
        let widened = scale.max(1.0);
        let support = filter.support() * widened;
        let room = support.ceil() as usize * 2 + 1;
        let mut taps = Taps { bounds: Vec::with_capacity(size), weights: vec![0; size * room], room };
        let mut exact = vec![0.0; room];
        for (i, weights) in taps.weights.chunks_exact_mut(room).enumerate() {
            let centre = ((offset + i) as f64 + 0.5) * scale;
            let start = (centre - support + 0.5).max(0.0) as usize;
            let n = ((centre + support + 0.5) as usize).min(side) - start;
            for (x, weight) in exact[..n].iter_mut().enumerate() {
                *weight = filter.weight(((x + start) as f64 - centre + 0.5) * (1.0 / widened));
            }
            let sum: f64 = exact[..n].iter().sum();
            for (weight, &exact) in weights.iter_mut().zip(&exact[..n]) {
                let fixed = exact / sum * f64::from(1 << PLACES);
                *weight = (fixed + 0.5_f64.copysign(fixed)) as i32;
            }
            taps.bounds.push((start, n));
        }
        taps
    }

    fn nearest(side: usize, whole: usize, offset: usize, size: usize) -> Taps {
        let scale = side as f64 / whole as f64;
        // Added up, as Pillow does it, where a product would be nearer: they differ where a pixel's centre is an edge.
        let centres = std::iter::successors(Some(0.5 * scale), |centre| Some(centre + scale));
        let bounds = centres.skip(offset).take(size).map(|centre| ((centre as usize).min(side - 1), 1));
        Taps { bounds: bounds.collect(), weights: vec![1 << PLACES; size], room: 1 }
    }

    /// Pixels that are made.
    pub(super) fn len(&self) -> usize {
        self.bounds.len()
    }

    /// First pixel that pixel `i` is made of, and the weights of it and its neighbours.
    pub(super) fn at(&self, i: usize) -> (usize, &[i32]) {
        let (start, n) = self.bounds[i];
        (start, &self.weights[i * self.room..][..n])
    }

    /// Most pixels that one is made of.
    pub(super) fn most(&self) -> usize {
        self.bounds.iter().map(|b| b.1).max().unwrap_or(0)
    }

    /// All pixels that any is made of.
    pub(super) fn reach(&self) -> Range<usize> {
        let first = self.bounds.iter().map(|b| b.0).min().unwrap_or(0);
        first..self.bounds.iter().map(|b| b.0 + b.1).max().unwrap_or(first)
    }
}

impl Filter {
    /// Where the filter ends, in pixels of the coarser grid.
    fn support(self) -> f64 {
        match self {
            Filter::Nearest => 0.5,
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    /// The filter at a distance, in pixels of the coarser grid.
    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
        match self {
            Filter::Nearest => 1.0,
            Filter::Bilinear => (1.0 - x).max(0.0),
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Filter::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Filter::Bicubic | Filter::Lanczos => 0.0,
        }
    }
}
