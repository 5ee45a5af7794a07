//! A table trained with several seeds: the means of its rows, their spread, and intervals.

use crate::{Row, TablePlan};

/// Most seeds of a table.
pub const MAX_SEEDS: usize = 30;

impl TablePlan {
    /// The same table with `offset` added to the seed of every run.
    pub fn with_seed_offset(mut self, offset: u64) -> TablePlan {
        for run in &mut self.runs {
            run.run.seed = run.run.seed.wrapping_add(offset);
        }
        self
    }
}

/// Combines the rows of a table that was made once for each seed. Errors become means over the seeds. The intervals
/// cover the seeds and the test images; with one seed, the rows are unchanged.
pub fn combine_seeds(tables: Vec<Vec<Row>>) -> Vec<Row> {
    let mut tables = tables.into_iter();
    let mut rows: Vec<Vec<Row>> =
        tables.next().unwrap_or_default().into_iter().map(|row| vec![row]).collect();
    for table in tables {
        rows.iter_mut().zip(table).for_each(|(rows, row)| rows.push(row));
    }
    rows.into_iter().filter_map(combine).collect()
}

/// Combines the rows of the same network with several seeds.
fn combine(rows: Vec<Row>) -> Option<Row> {
    let mut all = rows.first()?.clone();
    if rows.len() == 1 {
        return Some(all);
    }
    let errors = |of: fn(&Row) -> Option<f64>| rows.iter().map(of).collect::<Option<Vec<f64>>>();
    let (top1, top5) = (errors(|row| row.top1_error), errors(|row| row.top5_error));
    all.top1_error = top1.as_deref().map(mean);
    all.top5_error = top5.as_deref().map(mean);
    all.top1_std = top1.as_deref().and_then(sample_std);
    all.top1_ci = top1.as_deref().and_then(|errors| interval_of_error(errors, all.n));
    all.top5_ci = top5.as_deref().and_then(|errors| interval_of_error(errors, all.n));
    all.epochs = rows.iter().map(|row| row.epochs).max()?;
    all.skipped = rows.iter().map(|row| row.skipped).max()?;
    all.by_seed = rows.iter().flat_map(|row| row.by_seed.clone()).collect();
    all.members = rows.iter().flat_map(|row| row.members.clone()).collect();
    let with_note = rows.iter().find(|row| row.note.is_some() && !row.by_seed.is_empty());
    all.note = match with_note.and_then(|row| row.note.as_ref().map(|note| (row.seed, note))) {
        Some((seed, note)) => Some(format!("seed {seed}: {note}")),
        None => all.note,
    };
    Some(all)
}

/// 95 % interval of a mean error over seeds on `n` test images. The seeds vary as a t-distribution says; the images vary
/// alike for all seeds, as a binomial distribution says; both variances are added.
fn interval_of_error(errors: &[f64], n: usize) -> Option<[f64; 2]> {
    let error = mean(errors);
    let of_seeds = half_interval(errors)?;
    let of_images = Z * (error * (1.0 - error) / n.max(1) as f64).sqrt();
    let half = of_seeds.hypot(of_images);
    Some([(error - half).max(0.0), (error + half).min(1.0)])
}

/// The two-sided 95 % quantile of the normal distribution.
const Z: f64 = 1.959_964;

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample standard deviation; `None` of fewer than two values.
fn sample_std(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// Half the length of the 95 % t-interval of the mean; `None` of fewer than two values or more than [`MAX_SEEDS`].
pub(crate) fn half_interval(values: &[f64]) -> Option<f64> {
    let quantile = T_QUANTILES.get(values.len().checked_sub(2)?)?;
    Some(quantile * sample_std(values)? / (values.len() as f64).sqrt())
}

/// The two-sided 95 % quantiles of the t-distribution with 1 to 29 degrees of freedom.
const T_QUANTILES: [f64; MAX_SEEDS - 1] = [
    12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814, 2.20099,
    2.17881, 2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302, 2.08596, 2.07961, 2.07387,
    2.06866, 2.06390, 2.05954, 2.05553, 2.05183, 2.04841, 2.04523,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_of_a_mean_is_students() {
        // Gosset's sleep data, differences of the two drugs: mean 1.58, t.test gives 0.70 to 2.46.
        let sleep = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4];
        let half = half_interval(&sleep).unwrap();
        assert!((mean(&sleep) - 1.58).abs() < 1e-9 && (sample_std(&sleep).unwrap() - 1.229_995).abs() < 1e-6);
        assert!(
            (mean(&sleep) - half - 0.700_114).abs() < 1e-4 && (mean(&sleep) + half - 2.459_886).abs() < 1e-4
        );
        assert_eq!(
            (half_interval(&[1.0]), half_interval(&[]), half_interval(&[0.0; 31])),
            (None, None, None)
        );
    }

    #[test]
    fn interval_of_an_error_covers_seeds_and_images() {
        // Equal errors: the images alone. Many images: the seeds alone.
        let [low, high] = interval_of_error(&[0.2, 0.2, 0.2], 400).unwrap();
        assert!((low - 0.1608).abs() < 1e-4 && (high - 0.2392).abs() < 1e-4, "{low} {high}");
        let [low, high] = interval_of_error(&[0.10, 0.11, 0.12], 1 << 40).unwrap();
        // 4.30265 * 0.01 / sqrt(3)
        assert!((high - low - 2.0 * 0.024_841).abs() < 1e-5, "{low} {high}");
        assert_eq!(interval_of_error(&[0.2], 400), None);
    }
}
