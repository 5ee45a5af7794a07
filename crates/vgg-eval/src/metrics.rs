//! Error rates and their confidence intervals.

use ndarray::{ArrayView1, ArrayView2};
use serde::{Deserialize, Serialize};

/// Error rate, as counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ErrorRate {
    /// Number of wrong predictions.
    pub wrong: usize,
    /// Number of predictions.
    pub n: usize,
}

impl ErrorRate {
    /// The rate, from 0 to 1; 0 if there are no predictions.
    pub fn rate(&self) -> f64 {
        if self.n == 0 { 0.0 } else { self.wrong as f64 / self.n as f64 }
    }

    /// Wilson's 95% confidence interval; `[0, 1]` if there are no predictions.
    pub fn interval(&self) -> [f64; 2] {
        if self.n == 0 {
            return [0.0, 1.0];
        }
        let (n, p, z) = (self.n as f64, self.rate(), 1.959_964);
        let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
        let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        [(centre - half).max(0.0), (centre + half).min(1.0)]
    }
}

/// Top-k error: an image is wrong unless its label is among the `k` largest scores. Ties count against the
/// label: it is right only if fewer than `k` other classes score at least as high, so constant scores are
/// wrong. NaN is wrong.
pub fn top_k_error(scores: ArrayView2<f32>, labels: &[u32], k: usize) -> ErrorRate {
    let wrong =
        scores.rows().into_iter().zip(labels).filter(|(row, label)| is_wrong(*row, **label, k)).count();
    ErrorRate { wrong, n: labels.len() }
}

/// Whether one image is wrong, by the rule of [`top_k_error`].
pub(crate) fn is_wrong(scores: ArrayView1<f32>, label: u32, k: usize) -> bool {
    let own = scores[label as usize];
    let others = scores.iter().enumerate().filter(|(i, s)| *i != label as usize && **s >= own).count();
    others >= k || own.is_nan()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn top_k_counts_the_label_among_the_best() {
        let scores = array![[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]];
        let labels = [1, 1, 0, 0];
        assert_eq!(top_k_error(scores.view(), &labels, 1).wrong, 3, "a tie is wrong");
        assert_eq!(top_k_error(scores.view(), &labels, 2).wrong, 1);
        assert_eq!(top_k_error(scores.view(), &labels, 3).rate(), 0.0);
    }

    #[test]
    fn wilson_intervals_match_statsmodels() {
        // statsmodels.stats.proportion.proportion_confint(30, 100, method="wilson")
        let [low, high] = ErrorRate { wrong: 30, n: 100 }.interval();
        assert!((low - 0.218_95).abs() < 1e-4 && (high - 0.395_85).abs() < 1e-4, "{low} {high}");
        assert_eq!(ErrorRate { wrong: 0, n: 10 }.interval()[0], 0.0);
    }
}
