//! Products of rows of pixels by packed filters, in blocks of two rows of up to 16 pixels by 32 filters.
//!
//! A tile of A is a run of neighbouring pixels of a row, so a window's tap is an offset in memory and no im2col matrix
//! is needed. The two tiles of a block are of two rows, one below the other: their windows overlap, and 2x2 pooling
//! needs exactly these.

use std::ops::Range;

use super::super::bf16::{BLOCK, Line};
use super::super::{Cpu, SharedMut};
use super::{Nothing, Overlap, Product, STEP, Sums, TILE, TileKernel, TileUnit};

/// Bytes of A that the tasks of all filters share: they stay in a cache of 2 MB beside a panel of filters.
const TASK_BYTES: usize = 512 << 10;
/// Fewest tasks into which a product is split if it has enough filters.
const TASKS: usize = 16;

/// Windows of A for the pixels of an output of `images` maps of `rows x columns`. Strides are in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Windows<'a> {
    pub(crate) images: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Starts at the first line of the window of the first pixel.
    pub(crate) lines: &'a [Line],
    pub(crate) image_stride: usize,
    /// From the window of a pixel to that of the pixel below.
    pub(crate) pixel_row_stride: usize,
    /// From the window of a pixel to that of the next pixel.
    pub(crate) pixel_stride: usize,
    /// Blocks of channels, and from one to the next.
    pub(crate) blocks: usize,
    pub(crate) block_stride: usize,
    pub(crate) window_rows: usize,
    pub(crate) window_row_stride: usize,
    pub(crate) window_columns: usize,
    /// Whether the last tile of a row must end with the row, and so overlap the tile before it: where the window after
    /// the last pixel may lie outside of the lines.
    pub(crate) overlap: bool,
}

impl Windows<'_> {
    /// Pairs of rows of all images; the last pair of an image may have one row.
    pub(crate) fn pairs(&self) -> usize {
        self.images * self.rows.div_ceil(2)
    }

    /// Steps of a product.
    pub(crate) fn steps(&self) -> usize {
        self.blocks * self.window_rows * self.window_columns
    }

    /// Bytes that the windows of a pair of rows span.
    fn pair_bytes(&self) -> usize {
        let rows = self.rows.min(2) + self.window_rows - 1;
        self.blocks * rows * self.columns * size_of::<Line>()
    }

    /// The product of the pixels of a pair of rows from column `x`. A missing second row repeats the first.
    #[inline(always)]
    fn product(&self, pair: usize, x: usize, filters: *const u16) -> Product {
        let per_image = self.rows.div_ceil(2);
        let (image, y) = (pair / per_image, pair % per_image * 2);
        let second = (y + 1).min(self.rows - 1);
        let at = |y: usize| {
            let bytes = image * self.image_stride + y * self.pixel_row_stride + x * self.pixel_stride;
            self.lines.as_ptr().wrapping_byte_add(bytes).cast::<u16>()
        };
        Product {
            a: [at(y), at(second)],
            a_pitch: self.pixel_stride,
            outer: self.blocks,
            outer_stride: self.block_stride,
            window_rows: self.window_rows,
            row_stride: self.window_row_stride,
            window_columns: self.window_columns,
            b: filters,
        }
    }
}

/// The pixels of a block: from column `x` of a pair of rows, and a panel of 32 filters.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) pair: usize,
    pub(crate) x: usize,
    pub(crate) panel: usize,
}

/// What becomes of the sums of a block, part by part.
pub(crate) trait Epilogue: Sync {
    /// Whether a part has two pixels of both rows, for 2x2 pooling, and not one. Tiles are then an even number of pixels
    /// wide.
    const POOLS: bool = false;

    /// Where the results of a block belong.
    type At: Copy;

    /// Begins a block.
    fn begin(&self, place: Place) -> Self::At;

    /// Processes the pixel in this row and column of a block. With [`Epilogue::POOLS`], processes the 2x2 pixels whose
    /// first column is `column`; `row` is 0. Pixels may lie outside of the output. Implementors mark it as
    /// `#[inline(always)]`.
    fn part<U: TileUnit>(&self, unit: U, at: &Self::At, row: usize, column: usize, sums: &Sums);
}

/// Width of tiles that divide `columns` pixels evenly.
pub(crate) fn tile_width(columns: usize, even: bool) -> usize {
    let width = columns.div_ceil(columns.div_ceil(TILE));
    if even { width.next_multiple_of(2) } else { width }
}

/// Multiplies the windows of all pixels by `panels` panels of 32 filters.
pub(crate) fn multiply<E: Epilogue>(
    cpu: Cpu,
    windows: &Windows,
    filters: &[u16],
    panels: usize,
    epilogue: &E,
) {
    let pairs = windows.pairs();
    let pairs_per_task = (TASK_BYTES / windows.pair_bytes().max(1)).clamp(1, pairs);
    let chunks = pairs.div_ceil(pairs_per_task);
    let panels_per_task = panels.div_ceil(TASKS.div_ceil(chunks).min(panels));
    let groups = panels.div_ceil(panels_per_task);
    let width = tile_width(windows.columns, E::POOLS);
    cpu.for_each(chunks * groups, |task| {
        let (chunk, group) = (task / groups, task % groups);
        let part =
            |index: usize, per_task: usize, all: usize| index * per_task..((index + 1) * per_task).min(all);
        let pairs = part(chunk, pairs_per_task, pairs);
        let panels = part(group, panels_per_task, panels);
        cpu.tiles().run(width, Task { windows, pairs, panels, filters, epilogue, width });
    });
}

struct Task<'a, E> {
    windows: &'a Windows<'a>,
    pairs: Range<usize>,
    panels: Range<usize>,
    filters: &'a [u16],
    epilogue: &'a E,
    width: usize,
}

impl<E: Epilogue> TileKernel for Task<'_, E> {
    #[inline(always)]
    fn run<U: TileUnit>(self, unit: U) {
        let steps = self.windows.steps();
        let mut blocks = Blocks::new(unit, self.epilogue, self.width, steps);
        for panel in self.panels.clone() {
            let filters = &self.filters[panel * steps * STEP..][..steps * STEP];
            for pair in self.pairs.clone() {
                for x in (0..self.windows.columns).step_by(self.width) {
                    let x = if self.windows.overlap { x.min(self.windows.columns - self.width) } else { x };
                    let product = self.windows.product(pair, x, filters.as_ptr());
                    // SAFETY: windows lie within the lines, which have room for a whole tile after the last window.
                    unsafe { blocks.add(&product, Place { pair, x, panel }) };
                }
            }
        }
        blocks.finish();
    }
}

/// The blocks of a task. The epilogue of a block runs between the steps of the next one, so that the tile unit does not
/// wait for it.
pub(crate) struct Blocks<'a, U, E> {
    unit: U,
    epilogue: &'a E,
    width: usize,
    parts_per_step: usize,
    sums: AlignedSums,
    /// Which sums the next block writes.
    current: usize,
    last: Option<Place>,
}

#[repr(align(64))]
struct AlignedSums([Sums; 2]);

impl<'a, U: TileUnit, E: Epilogue> Blocks<'a, U, E> {
    #[inline(always)]
    pub(crate) fn new(unit: U, epilogue: &'a E, width: usize, steps: usize) -> Self {
        let parts = if E::POOLS { width / 2 } else { 2 * width };
        let sums = AlignedSums([[[[0.0; BLOCK]; TILE]; 2]; 2]);
        Blocks { unit, epilogue, width, parts_per_step: parts.div_ceil(steps), sums, current: 0, last: None }
    }

    /// Multiplies a block.
    ///
    /// # Safety
    /// As [`TileUnit::multiply`].
    #[inline(always)]
    pub(crate) unsafe fn add(&mut self, product: &Product, place: Place) {
        let [even, odd] = &mut self.sums.0;
        let (sums, last_sums) = if self.current == 0 { (even, odd) } else { (odd, even) };
        let (unit, epilogue, width) = (self.unit, self.epilogue, self.width);
        match self.last {
            // SAFETY: by the caller's promise.
            None => unsafe { unit.multiply(product, sums, false, &mut Nothing) },
            Some(last) => {
                let mut parts = Parts::new(unit, epilogue, width, last, last_sums, self.parts_per_step);
                // SAFETY: by the caller's promise.
                unsafe { unit.multiply(product, sums, false, &mut parts) };
            }
        }
        self.current = 1 - self.current;
        self.last = Some(place);
    }

    /// Completes the last block.
    #[inline(always)]
    pub(crate) fn finish(self) {
        if let Some(last) = self.last {
            let sums = &self.sums.0[1 - self.current];
            Parts::new(self.unit, self.epilogue, self.width, last, sums, usize::MAX).step();
        }
    }
}

/// The parts of a block's epilogue that are left.
struct Parts<'a, U, E: Epilogue> {
    unit: U,
    epilogue: &'a E,
    at: E::At,
    width: usize,
    sums: &'a Sums,
    per_step: usize,
    row: usize,
    column: usize,
}

impl<'a, U: TileUnit, E: Epilogue> Parts<'a, U, E> {
    #[inline(always)]
    fn new(unit: U, epilogue: &'a E, width: usize, place: Place, sums: &'a Sums, per_step: usize) -> Self {
        let at = epilogue.begin(place);
        Parts { unit, epilogue, at, width, sums, per_step, row: 0, column: 0 }
    }
}

impl<U: TileUnit, E: Epilogue> Overlap for Parts<'_, U, E> {
    #[inline(always)]
    fn step(&mut self) {
        let rows = if E::POOLS { 1 } else { 2 };
        for _ in 0..self.per_step {
            if self.row == rows {
                return;
            }
            self.epilogue.part(self.unit, &self.at, self.row, self.column, self.sums);
            self.column += if E::POOLS { 2 } else { 1 };
            if self.column >= self.width {
                self.column = 0;
                self.row += 1;
            }
        }
    }
}

/// Lines of an output that the tasks of [`multiply`] write, each once.
pub(crate) struct OutputLines<'a>(SharedMut<'a, Line>);

impl<'a> OutputLines<'a> {
    pub(crate) fn new(lines: &'a mut [Line]) -> Self {
        OutputLines(SharedMut::new(lines))
    }

    /// # Safety
    /// No two threads may use a line at the same time.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the caller keeps the lines disjoint")]
    pub(crate) unsafe fn line(&self, index: usize) -> &mut Line {
        // SAFETY: by the caller's promise.
        unsafe { &mut self.0.slice(index, 1)[0] }
    }
}
