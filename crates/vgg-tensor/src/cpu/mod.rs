//! Infrastructure of the CPU kernels: threads, scratch memory, SIMD vectors, matrix products.

mod amx;
mod bf16;
mod epilogue;
mod finite_flag;
mod isa;
mod limits;
mod matrix;
mod parallel;
mod simd;
mod thread_pool;

#[cfg(all(test, feature = "cuda", target_arch = "x86_64", target_os = "linux"))]
pub(crate) use amx::emulator;
pub(crate) use amx::{
    Blocks, Epilogue, Nothing, OutputLines, Place, Product, STEP, Sums, TILE, TileIsa, TileKernel, TileUnit,
    Windows, multiply, tile_width,
};
pub(crate) use bf16::{BLOCK, Line, from_bf16, line_of, to_bf16};
pub(crate) use epilogue::{add_bias, add_rows, relu_backward};
pub(crate) use finite_flag::FiniteFlag;
pub(crate) use isa::Isa;
pub(crate) use limits::measure;
pub(crate) use matrix::{gemm_nn, gemm_nt, gemm_tn};
pub(crate) use parallel::{Cpu, Scratch, SharedMut};
#[cfg(test)]
pub(crate) use simd::Portable;
pub(crate) use simd::{LANES, Vector, VectorKernel, prefetch, prefetch_write};
pub(crate) use thread_pool::ThreadPool;

/// Largest number of pixels of a small feature map. A network may process larger maps a few images at a time.
pub(crate) const SMALL_MAP: usize = 28 * 28;

/// Rows of a tensor per task of an element-wise kernel: about 64 KiB of `f32` for any row length.
pub(crate) fn rows_per_task(row_len: usize) -> usize {
    (16 * 1024 / row_len.max(1)).max(1)
}
