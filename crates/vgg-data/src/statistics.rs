//! Mean and covariance of the RGB pixels of a training set, from exact integer sums.

use serde::{Deserialize, Serialize};

use crate::Image;

/// Exact integer sums over pixels of 0..255, so the result does not depend on order or number of threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PixelStatistics {
    /// Number of pixels.
    pub pixels: u64,
    /// Sum of each channel: red, green, blue.
    pub sums: [u64; 3],
    /// Sums of products of two channels: red-red, red-green, red-blue, green-green, green-blue, blue-blue.
    pub products: [u64; 6],
}

/// The pairs of channels, in the order of [`PixelStatistics::products`].
const PAIRS: [(usize, usize); 6] = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)];

impl PixelStatistics {
    /// Adds the pixels of an image.
    pub fn add(&mut self, image: &Image) {
        for row in image.rows() {
            let p = [0, 1, 2].map(|c| u64::from(row[c]));
            self.pixels += 1;
            self.sums.iter_mut().zip(p).for_each(|(sum, p)| *sum += p);
            for (sum, (a, b)) in self.products.iter_mut().zip(PAIRS) {
                *sum += p[a] * p[b];
            }
        }
    }

    /// Adds the sums of `other`.
    pub fn merge(&mut self, other: &PixelStatistics) {
        self.pixels += other.pixels;
        self.sums.iter_mut().zip(other.sums).for_each(|(a, b)| *a += b);
        self.products.iter_mut().zip(other.products).for_each(|(a, b)| *a += b);
    }

    /// Mean of each channel, 0..255.
    pub fn mean(&self) -> [f64; 3] {
        self.sums.map(|s| s as f64 / self.pixels.max(1) as f64)
    }

    /// Covariance matrix of the channels of 0..255. The divisor is the number of pixels, not one fewer.
    pub fn covariance(&self) -> [[f64; 3]; 3] {
        let n = self.pixels.max(1) as f64;
        let mean = self.mean();
        let mut covariance = [[0.0; 3]; 3];
        for (sum, (a, b)) in self.products.iter().zip(PAIRS) {
            let value = *sum as f64 / n - mean[a] * mean[b];
            covariance[a][b] = value;
            covariance[b][a] = value;
        }
        covariance
    }

    /// Factor that scales pixels to unit variance: one over the root of the mean variance of the channels; 1
    /// if that variance is zero.
    pub fn unit_variance_scale(&self) -> f64 {
        let c = self.covariance();
        let variance = (c[0][0] + c[1][1] + c[2][2]) / 3.0;
        if variance > 0.0 { 1.0 / variance.sqrt() } else { 1.0 }
    }
}
