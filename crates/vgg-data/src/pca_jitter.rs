//! PCA colour jitter of Krizhevsky et al. 2012 (AlexNet): a random shift along the principal components of
//! the RGB pixels.

use serde::{Deserialize, Serialize};

use crate::{KeyedRng, PixelStatistics};

/// Principal components of the training pixels, and the standard deviation of the shift along them.
///
/// The shift `sum over i of p_i * a_i * l_i` is added to every pixel of an image, where `p_i` is an
/// eigenvector, `l_i` its eigenvalue and `a_i` a normal variable with standard deviation `std` (the paper:
/// 0.1), drawn once per use of an image.
///
/// In Krizhevsky et al., `l_i` is an eigenvalue of the covariance of pixels of 0..1. Here pixels are 0..255,
/// so `l_i` is an eigenvalue of their covariance divided by 255, and the shift is in units of 0..255.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PcaJitter {
    /// Standard deviation of the factors `a_i`.
    pub std: f64,
    /// Unit eigenvectors; `eigenvectors[i]` belongs to `eigenvalues[i]`.
    pub eigenvectors: [[f64; 3]; 3],
    /// Eigenvalues of the covariance of pixels of 0..1, times 255, largest first.
    pub eigenvalues: [f64; 3],
}

impl PcaJitter {
    /// Computes the principal components from the statistics of a training set.
    pub fn new(statistics: &PixelStatistics, std: f64) -> PcaJitter {
        let (values, eigenvectors) = eigenvectors(statistics.covariance());
        PcaJitter { std, eigenvectors, eigenvalues: values.map(|v| v / 255.0) }
    }

    /// Draws a shift of R, G and B in units of 0..255.
    pub(crate) fn draw(&self, stream: &mut KeyedRng) -> [f32; 3] {
        let factors = self.eigenvalues.map(|l| l * self.std * stream.normal());
        [0, 1, 2].map(|c| (0..3).map(|i| self.eigenvectors[i][c] * factors[i]).sum::<f64>() as f32)
    }
}

/// Eigenvalues, largest first, and unit eigenvectors of a symmetric matrix, by Jacobi rotations.
///
/// The component of largest magnitude of each eigenvector is positive, which makes the sign unique.
pub fn eigenvectors(mut m: [[f64; 3]; 3]) -> ([f64; 3], [[f64; 3]; 3]) {
    let mut v = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    for _ in 0..30 {
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            if m[p][q] == 0.0 {
                continue;
            }
            let theta = (m[q][q] - m[p][p]) / (2.0 * m[p][q]);
            let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
            let cos = 1.0 / (t * t + 1.0).sqrt();
            let sin = t * cos;
            for row in &mut m {
                (row[p], row[q]) = (cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]);
            }
            let (a, b) = (m[p], m[q]);
            for k in 0..3 {
                m[p][k] = cos * a[k] - sin * b[k];
                m[q][k] = sin * a[k] + cos * b[k];
            }
            for row in &mut v {
                (row[p], row[q]) = (cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]);
            }
        }
    }
    let mut order = [0, 1, 2];
    order.sort_by(|a, b| m[*b][*b].total_cmp(&m[*a][*a]));
    let vector = |i: usize| {
        let column = [v[0][i], v[1][i], v[2][i]];
        let largest = column.into_iter().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
        column.map(|x| if largest < 0.0 { -x } else { x })
    };
    (order.map(|i| m[i][i]), order.map(vector))
}
