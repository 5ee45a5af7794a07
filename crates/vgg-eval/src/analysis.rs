//! Analysis of posteriors: errors per class, confusion matrix, mistakes, and a paired comparison.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::fusion::same_origin;
use crate::metrics::{ErrorRate, is_wrong};
use crate::{Error, Posteriors, Result};

/// Maximum number of classes in a confusion matrix.
const MOST_CLASSES: usize = 10_000;

/// Errors of the images of one class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassErrors {
    /// Top-1 error.
    pub top1: ErrorRate,
    /// Top-5 error.
    pub top5: ErrorRate,
}

/// A wrong top-1 prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mistake {
    /// Index of the image.
    pub image: usize,
    /// The predicted class.
    pub predicted: usize,
    /// Posterior of the predicted class.
    pub posterior: f32,
}

/// Comparison of two networks on the same images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Number of images.
    pub n: usize,
    /// Number of images on which only the first network is wrong.
    pub only_first_wrong: usize,
    /// Number of images on which only the second network is wrong.
    pub only_second_wrong: usize,
    /// Error of the first network minus error of the second.
    pub difference: f64,
    /// 95% confidence interval of the difference: Wald's interval for paired proportions with one image added
    /// to each discordant count (Bonett & Price), so that the width is positive without discordant images.
    pub interval: [f64; 2],
    /// p-value of McNemar's exact test: probability of at least this difference if both are equally good.
    pub p_value: f64,
}

impl Posteriors {
    /// The top-1 prediction for each image; the first class of a tie.
    pub fn predictions(&self) -> Vec<usize> {
        let best = |row: ndarray::ArrayView1<f32>| {
            // Skip NaN, which error rates count as wrong.
            let better =
                |best: usize, i: usize| if row[i] > row[best] || row[best].is_nan() { i } else { best };
            (0..row.len()).fold(0, better)
        };
        self.values.rows().into_iter().map(best).collect()
    }

    /// Errors of each class.
    pub fn class_errors(&self) -> Vec<ClassErrors> {
        let none = ErrorRate { wrong: 0, n: 0 };
        let mut errors = vec![ClassErrors { top1: none, top5: none }; self.values.ncols()];
        for (row, label) in self.values.rows().into_iter().zip(&self.labels) {
            let of = &mut errors[*label as usize];
            for (rate, k) in [(&mut of.top1, 1), (&mut of.top5, 5)] {
                rate.n += 1;
                rate.wrong += usize::from(is_wrong(row, *label, k));
            }
        }
        errors
    }

    /// Confusion matrix: numbers of images by true class (rows) and predicted class (columns).
    ///
    /// # Errors
    /// [`Error::Config`] if there are more than 10,000 classes.
    pub fn confusion(&self) -> Result<Array2<u32>> {
        let classes = self.values.ncols();
        if classes > MOST_CLASSES {
            let what =
                format!("a confusion matrix of {classes} classes is too large; at most {MOST_CLASSES}");
            return Err(Error::Config(what));
        }
        let mut counts = Array2::zeros((classes, classes));
        for (label, predicted) in self.labels.iter().zip(self.predictions()) {
            counts[[*label as usize, predicted]] += 1;
        }
        Ok(counts)
    }

    /// The wrong top-1 predictions, by descending posterior.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let answers = self.predictions().into_iter().enumerate();
        let mut mistakes: Vec<Mistake> = answers
            .filter(|(image, predicted)| *predicted != self.labels[*image] as usize)
            .map(|(image, predicted)| Mistake {
                image,
                predicted,
                posterior: self.values[[image, predicted]],
            })
            .collect();
        mistakes.sort_by(|a, b| b.posterior.total_cmp(&a.posterior).then(a.image.cmp(&b.image)));
        mistakes
    }

    /// Compares the top-k errors of two networks on the same images.
    ///
    /// # Errors
    /// [`Error::Fusion`] if images, labels or classes differ.
    pub fn compare(&self, other: &Posteriors, k: usize) -> Result<Comparison> {
        same_origin("the two files", self, other)?;
        if self.paths != other.paths || self.labels != other.labels {
            return Err(Error::Fusion("the two files have different images or labels".into()));
        }
        let (mut first, mut second) = (0, 0);
        let rows = self.values.rows().into_iter().zip(other.values.rows());
        for ((a, b), label) in rows.zip(&self.labels) {
            let (a, b) = (is_wrong(a, *label, k), is_wrong(b, *label, k));
            first += usize::from(a && !b);
            second += usize::from(b && !a);
        }
        Ok(Comparison::of(self.labels.len(), first, second))
    }
}

impl Comparison {
    fn of(n: usize, first: usize, second: usize) -> Comparison {
        let (b, c, total) = (first as f64, second as f64, n.max(1) as f64);
        let difference = (b - c) / total;
        let more = total + 2.0;
        let (only_first, only_second) = ((b + 1.0) / more, (c + 1.0) / more);
        let centre = only_first - only_second;
        let half = 1.959_964 * ((only_first + only_second - centre.powi(2)) / more).sqrt();
        Comparison {
            n,
            only_first_wrong: first,
            only_second_wrong: second,
            difference,
            interval: [(centre - half).max(-1.0), (centre + half).min(1.0)],
            p_value: two_sided(first.min(second), first + second),
        }
    }
}

/// Two-sided binomial test: twice the probability of at most `k` heads in `n` throws of a coin, at most 1.
fn two_sided(k: usize, n: usize) -> f64 {
    let mut log_choose = 0.0f64;
    let log_all = n as f64 * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for i in 0..=k {
        sum += (log_choose - log_all).exp();
        log_choose += ((n - i) as f64).ln() - ((i + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn posteriors(values: Array2<f32>, labels: &[u32]) -> Posteriors {
        let paths = (0..labels.len()).map(|i| i.to_string()).collect();
        Posteriors { values, labels: labels.to_vec(), paths, ..Posteriors::default() }
    }

    #[test]
    fn mcnemar_test_matches_scipy() {
        // scipy.stats.binomtest(k, n, 0.5).pvalue, which is statsmodels' mcnemar(exact=True).
        for (first, second, p) in [
            (3, 12, 0.035_156_25),
            (10, 10, 1.0),
            (0, 5, 0.0625),
            (400, 480, 0.007_707_305_043_3),
            (0, 0, 1.0),
        ] {
            let comparison = Comparison::of(1000, first, second);
            assert!((comparison.p_value - p).abs() < 1e-9, "{first}, {second}: {}", comparison.p_value);
        }
        let comparison = Comparison::of(1000, 30, 10);
        assert!((comparison.difference - 0.02).abs() < 1e-12);
        // By hand: 20 / 1002 - 1.96 * sqrt((31 + 11 - 20^2 / 1002) / 1002^2).
        assert!((comparison.interval[0] - 0.007_344).abs() < 1e-6, "{:?}", comparison.interval);
        let [low, high] = Comparison::of(10, 0, 0).interval;
        assert!(low < -0.1 && high > 0.1, "the interval for ten images is too narrow: {low} to {high}");
    }

    #[test]
    fn classes_confusions_and_mistakes() {
        let p = posteriors(array![[0.7, 0.3], [0.6, 0.4], [0.1, 0.9], [0.05, 0.95]], &[0, 1, 1, 0]);
        assert_eq!(p.confusion().unwrap(), array![[1, 1], [1, 1]]);
        assert_eq!(p.class_errors()[0].top1, ErrorRate { wrong: 1, n: 2 });
        let mistakes: Vec<usize> = p.mistakes().iter().map(|m| m.image).collect();
        assert_eq!(mistakes, [3, 1]);
        assert_eq!(p.mistakes()[0].posterior, 0.95);
    }
}
