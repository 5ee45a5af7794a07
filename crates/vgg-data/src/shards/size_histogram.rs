//! How large the images of a split were before they were prepared.

use super::SplitManifest;

/// Lower ends of the rows in pixels; all are ends of the manifest's bins.
const ROWS: [u32; 12] = [0, 64, 128, 192, 256, 320, 384, 448, 512, 768, 1024, 2048];

/// Images whose smallest side was at least `start` and below `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeRow {
    /// Smallest side from here, in pixels.
    pub start: u32,
    /// To below here; `None` for the last row.
    pub end: Option<u32>,
    /// Images.
    pub images: u64,
}

impl SplitManifest {
    /// Images by their smallest side, from the first row that has some to the last.
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
