//! Histogram of the smallest sides of a split's source images.

use super::SplitManifest;

/// Lower ends of the rows in pixels. All are multiples of 32, the width of the manifest's bins.
const ROWS: [u32; 12] = [0, 64, 128, 192, 256, 320, 384, 448, 512, 768, 1024, 2048];

/// Number of source images with smallest side from `start` to below `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeRow {
    /// Smallest side in pixels, inclusive.
    pub start: u32,
    /// Upper end in pixels, exclusive; `None` for the last row.
    pub end: Option<u32>,
    /// Number of images.
    pub images: u64,
}

impl SplitManifest {
    /// Histogram of the smallest sides, from the first non-empty row to the last.
    pub fn size_histogram(&self) -> Vec<SizeRow> {
        let row = |i: usize| {
            let end = ROWS.get(i + 1).copied();
            let range = self.smallest_sides.range(ROWS[i]..end.unwrap_or(u32::MAX));
            SizeRow { start: ROWS[i], end, images: range.map(|(_, count)| count).sum() }
        };
        let rows: Vec<SizeRow> = (0..ROWS.len()).map(row).collect();
        let first = rows.iter().position(|row| row.images > 0).unwrap_or(0);
        let last = rows.iter().rposition(|row| row.images > 0).map_or(0, |last| last + 1);
        rows[first..last].to_vec()
    }
}
