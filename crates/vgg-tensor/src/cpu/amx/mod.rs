//! Matrix products of bf16 tiles: the AMX unit of x86-64 processors, and a software model of it.
//!
//! A tile is a matrix of up to 16 rows of 64 bytes: 32 bf16 values, or 16 f32 sums. One instruction multiplies a tile
//! of 16 x 32 values by one of 32 x 16 and adds the product to 16 x 16 sums. A kernel is written once over
//! [`TileUnit`] and checked on the model, which rounds as the hardware does.

mod blocks;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod emulator;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod hardware;
mod model;

pub(crate) use blocks::{Blocks, Epilogue, OutputLines, Place, Windows, multiply, tile_width};

use super::bf16::{BLOCK, Line};

/// Rows of a tile, and the number of sums in a row.
pub(crate) const TILE: usize = 16;

/// Values of the two B tiles of a step: 16 pairs of rows by 32 columns.
pub(crate) const STEP: usize = 2 * TILE * TILE * 2;

/// Sums of a block of two by two tiles.
pub(crate) type Sums = [[[f32; BLOCK]; TILE]; 2];

/// A product of two tiles of A by two tiles of B, summed over steps. Offsets are in bytes.
///
/// Step `(o, r, s)`, in row-major order, multiplies the A tiles that start at
/// `a[i] + o * outer_stride + r * row_stride + s * 64` by the next 2 KiB of B.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub(crate) a: [*const u16; 2],
    /// From one row of an A tile to the next.
    pub(crate) a_pitch: usize,
    pub(crate) outer: usize,
    pub(crate) outer_stride: usize,
    pub(crate) window_rows: usize,
    pub(crate) row_stride: usize,
    pub(crate) window_columns: usize,
    /// Two tiles per step: `[2][16 pairs of rows][16 columns][2]`.
    pub(crate) b: *const u16,
}

/// Work that the processor can overlap with products.
pub(crate) trait Overlap {
    /// Does a part of it. Called after each step of a product; implementors mark it as `#[inline(always)]`.
    fn step(&mut self);
}

/// No work.
pub(crate) struct Nothing;

impl Overlap for Nothing {
    #[inline(always)]
    fn step(&mut self) {}
}

/// A unit that multiplies tiles. [`TileIsa::run`] passes it to kernels.
pub(crate) trait TileUnit: Copy {
    /// Configures the tiles of this thread: `rows` rows of A and of sums. With 0 rows nothing is configured, and only
    /// the vector instructions may be used.
    fn begin(rows: usize) -> Self;

    /// Releases the tiles of this thread, if `rows` are configured.
    fn end(self, rows: usize);

    /// Writes the sums of a product to the first rows of `sums`, or adds the product to them. Does a part of `overlap`
    /// after each step.
    ///
    /// # Safety
    /// The A tiles of all steps, as many rows as the unit has, and the B tiles must be readable.
    unsafe fn multiply(self, product: &Product, sums: &mut Sums, add: bool, overlap: &mut impl Overlap);

    /// Rounds 32 sums to bf16.
    fn round(self, sums: &[f32; BLOCK], to: &mut Line);
}

/// A kernel that is generic over the tile unit; implementors mark `run` as `#[inline(always)]`.
pub(crate) trait TileKernel {
    /// Runs on one unit.
    fn run<U: TileUnit>(self, unit: U);
}

/// The unit that multiplies bf16 tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TileIsa {
    /// AMX of x86-64.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
    /// The software model.
    Model,
}

impl TileIsa {
    /// AMX, if the processor has it and the system permits its use to this process.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn detect() -> Result<TileIsa, String> {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        return hardware::detect().map(|()| TileIsa::Amx);
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        Err("a CPU needs AMX, which is used on x86-64 under Linux only".into())
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            TileIsa::Amx => "AMX",
            TileIsa::Model => "software model of AMX",
        }
    }

    /// Runs a kernel that multiplies no tiles, with the vector instructions of the unit's processor.
    pub(crate) fn run_vectors<K: TileKernel>(self, kernel: K) {
        self.run(0, kernel);
    }

    /// Runs a kernel with tiles of `rows` rows, at most [`TILE`].
    pub(crate) fn run<K: TileKernel>(self, rows: usize, kernel: K) {
        debug_assert!(rows <= TILE);
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            // SAFETY: this value exists only where `detect`, or in tests the emulator, found the vector instructions.
            TileIsa::Amx => unsafe { run_amx(rows, kernel) },
            TileIsa::Model => run_on::<model::Model, K>(rows, kernel),
        }
    }
}

/// Compiles a kernel with the vector instructions that every processor with AMX has.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
fn run_amx<K: TileKernel>(rows: usize, kernel: K) {
    run_on::<hardware::Amx, K>(rows, kernel);
}

#[inline(always)]
fn run_on<U: TileUnit, K: TileKernel>(rows: usize, kernel: K) {
    let unit = U::begin(rows);
    kernel.run(unit);
    unit.end(rows);
}
