//! The paper's results. Errors are fractions.

use crate::{Error, Result, TableName};

/// A row of the paper's Tables 3 to 7. Errors are on the ILSVRC-2012 validation set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaperRow {
    /// Such as `C/256` or `C/jitter`; in Table 7 a description.
    pub name: &'static str,
    /// Training scale: one value, or the two ends of scale jitter; empty for several networks.
    pub train_scale: &'static [usize],
    /// Test scales.
    pub test_scales: &'static [usize],
    /// Top-1 error.
    pub top1_error: Option<f64>,
    /// Top-5 error.
    pub top5_error: Option<f64>,
    /// Top-5 error on the test set, whose labels only the challenge's server has.
    pub test_top5_error: Option<f64>,
}

const JITTER: &[usize] = &[256, 512];
const AROUND_256: &[usize] = &[224, 256, 288];
const AROUND_384: &[usize] = &[352, 384, 416];
const THREE: &[usize] = &[256, 384, 512];

/// Single test scale, dense evaluation with flips.
const TABLE_3: [PaperRow; 12] = [
    row("A/256", &[256], &[256], 0.296, 0.104),
    row("A-LRN/256", &[256], &[256], 0.297, 0.105),
    row("B/256", &[256], &[256], 0.287, 0.099),
    row("C/256", &[256], &[256], 0.281, 0.094),
    row("C/384", &[384], &[384], 0.281, 0.093),
    row("C/jitter", JITTER, &[384], 0.273, 0.088),
    row("D/256", &[256], &[256], 0.270, 0.088),
    row("D/384", &[384], &[384], 0.268, 0.087),
    row("D/jitter", JITTER, &[384], 0.256, 0.081),
    row("E/256", &[256], &[256], 0.273, 0.090),
    row("E/384", &[384], &[384], 0.269, 0.087),
    row("E/jitter", JITTER, &[384], 0.255, 0.080),
];

/// Multiple test scales.
const TABLE_4: [PaperRow; 10] = [
    row("B/256", &[256], AROUND_256, 0.282, 0.096),
    row("C/256", &[256], AROUND_256, 0.277, 0.092),
    row("C/384", &[384], AROUND_384, 0.278, 0.092),
    row("C/jitter", JITTER, THREE, 0.263, 0.082),
    row("D/256", &[256], AROUND_256, 0.266, 0.086),
    row("D/384", &[384], AROUND_384, 0.265, 0.086),
    row("D/jitter", JITTER, THREE, 0.248, 0.075),
    row("E/256", &[256], AROUND_256, 0.269, 0.087),
    row("E/384", &[384], AROUND_384, 0.267, 0.086),
    row("E/jitter", JITTER, THREE, 0.248, 0.075),
];

/// Dense evaluation, multi-crop, and both combined.
const TABLE_5: [PaperRow; 6] = [
    row("D/dense", JITTER, THREE, 0.248, 0.075),
    row("D/multi-crop", JITTER, THREE, 0.246, 0.075),
    row("D/combined", JITTER, THREE, 0.244, 0.072),
    row("E/dense", JITTER, THREE, 0.248, 0.075),
    row("E/multi-crop", JITTER, THREE, 0.246, 0.074),
    row("E/combined", JITTER, THREE, 0.244, 0.071),
];

/// Fusion of networks.
const TABLE_6: [PaperRow; 4] = [
    tested(row("submission", &[], &[], 0.247, 0.075), 0.073),
    tested(row("D+E/dense", JITTER, THREE, 0.240, 0.071), 0.070),
    row("D+E/multi-crop", JITTER, THREE, 0.239, 0.072),
    tested(row("D+E/combined", JITTER, THREE, 0.237, 0.068), 0.068),
];

/// The authors' rows of the comparison with the state of the art.
const TABLE_7: [PaperRow; 3] = [
    tested(row("2 networks", JITTER, THREE, 0.237, 0.068), 0.068),
    tested(row("1 network", JITTER, THREE, 0.244, 0.071), 0.070),
    tested(row("submission", &[], &[], 0.247, 0.075), 0.073),
];

/// Other authors' results, as quoted in the paper's Table 7; the last one is quoted in its text.
pub const TABLE_7_OTHERS: [PaperRow; 13] = [
    other("GoogLeNet, 1 network", None, Some(0.079), Some(0.079)),
    other("GoogLeNet, 7 networks", None, Some(0.067), Some(0.067)),
    other("MSRA, 11 networks", None, None, Some(0.081)),
    other("MSRA, 1 network", Some(0.279), Some(0.091), Some(0.091)),
    other("Clarifai, several networks", None, None, Some(0.117)),
    other("Clarifai, 1 network", None, None, Some(0.125)),
    other("Zeiler & Fergus, 6 networks", Some(0.360), Some(0.147), Some(0.148)),
    other("Zeiler & Fergus, 1 network", Some(0.375), Some(0.160), Some(0.161)),
    other("OverFeat, 7 networks", Some(0.340), Some(0.132), Some(0.136)),
    other("OverFeat, 1 network", Some(0.357), Some(0.142), None),
    other("Krizhevsky et al., 5 networks", Some(0.381), Some(0.164), Some(0.164)),
    other("Krizhevsky et al., 1 network", Some(0.407), Some(0.182), None),
    other("Clarifai, with further data", None, None, Some(0.112)),
];

/// Section 4.1: five 5x5 convolutions instead of B's ten 3x3. The paper says only that the top-1 error on a
/// centre crop is 7 points higher.
pub const SHALLOW_TOP1_DIFFERENCE: f64 = 0.07;

/// Table 2: millions of parameters, as printed.
pub const TABLE_2: [(&str, u32); 6] =
    [("A", 133), ("A-LRN", 133), ("B", 133), ("C", 134), ("D", 138), ("E", 144)];

/// The paper's rows of a table; empty if the paper prints no numbers for it.
pub fn rows(table: &TableName) -> &'static [PaperRow] {
    match table {
        TableName::Table3 => &TABLE_3,
        TableName::Table4 => &TABLE_4,
        TableName::Table5 => &TABLE_5,
        TableName::Table6 => &TABLE_6,
        TableName::Table7 => &TABLE_7,
        _ => &[],
    }
}

/// The row with this name; `None` for a table without printed numbers.
///
/// # Errors
/// [`Error::Plan`] if the table has printed numbers, but no such row.
pub fn row_of(table: &TableName, name: &str) -> Result<Option<&'static PaperRow>> {
    let rows = rows(table);
    let found = rows.iter().find(|row| row.name == name);
    if found.is_none() && !rows.is_empty() {
        let known = rows.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        return Err(Error::Plan(format!("the paper's {table} has no row {name}; its rows are {known}")));
    }
    Ok(found)
}

const fn row(
    name: &'static str,
    train_scale: &'static [usize],
    test_scales: &'static [usize],
    top1_error: f64,
    top5_error: f64,
) -> PaperRow {
    let (top1_error, top5_error) = (Some(top1_error), Some(top5_error));
    PaperRow { name, train_scale, test_scales, top1_error, top5_error, test_top5_error: None }
}

const fn tested(row: PaperRow, test_top5_error: f64) -> PaperRow {
    PaperRow { test_top5_error: Some(test_top5_error), ..row }
}

const fn other(
    name: &'static str,
    top1_error: Option<f64>,
    top5_error: Option<f64>,
    test_top5_error: Option<f64>,
) -> PaperRow {
    PaperRow { name, train_scale: &[], test_scales: &[], top1_error, top5_error, test_top5_error }
}
