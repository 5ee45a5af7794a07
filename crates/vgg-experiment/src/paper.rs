//! The paper's results, as fractions.

use crate::{Error, Result};

/// A row of the paper's Table 3: one test scale, dense evaluation with flips, validation set of ILSVRC-2012.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaperRow {
    /// Network and training scale, such as `C/256` or `C/jitter`.
    pub name: &'static str,
    /// Smallest side in training: one value, or the two ends of scale jitter.
    pub train_side: &'static [usize],
    /// Smallest side in the test.
    pub test_sides: &'static [usize],
    /// Share of wrong first answers.
    pub top1_error: f64,
    /// Share of images whose class is not among the first five answers.
    pub top5_error: f64,
}

/// Table 3.
pub const TABLE_3: [PaperRow; 12] = [
    row("A/256", &[256], &[256], 0.296, 0.104),
    row("A-LRN/256", &[256], &[256], 0.297, 0.105),
    row("B/256", &[256], &[256], 0.287, 0.099),
    row("C/256", &[256], &[256], 0.281, 0.094),
    row("C/384", &[384], &[384], 0.281, 0.093),
    row("C/jitter", &[256, 512], &[384], 0.273, 0.088),
    row("D/256", &[256], &[256], 0.270, 0.088),
    row("D/384", &[384], &[384], 0.268, 0.087),
    row("D/jitter", &[256, 512], &[384], 0.256, 0.081),
    row("E/256", &[256], &[256], 0.273, 0.090),
    row("E/384", &[384], &[384], 0.269, 0.087),
    row("E/jitter", &[256, 512], &[384], 0.255, 0.080),
];

/// Table 2: millions of parameters, as printed.
pub const TABLE_2: [(&str, u32); 6] =
    [("A", 133), ("A-LRN", 133), ("B", 133), ("C", 134), ("D", 138), ("E", 144)];

/// The row of Table 3 of this name.
///
/// # Errors
/// [`Error::Plan`] if there is none.
pub fn table3_row(name: &str) -> Result<&'static PaperRow> {
    TABLE_3.iter().find(|row| row.name == name).ok_or_else(|| {
        let known = TABLE_3.map(|row| row.name).join(", ");
        Error::Plan(format!("the paper's Table 3 has no row {name}; its rows are {known}"))
    })
}

const fn row(
    name: &'static str,
    train_side: &'static [usize],
    test_sides: &'static [usize],
    top1_error: f64,
    top5_error: f64,
) -> PaperRow {
    PaperRow { name, train_side, test_sides, top1_error, top5_error }
}
