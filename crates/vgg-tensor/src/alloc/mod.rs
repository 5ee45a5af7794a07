//! Memory: the arena of a CPU device, and the free list that the arena of a GPU (`cuda/buffer.rs`) shares.

mod arena;
mod free_list;

pub(crate) use arena::{Arena, CpuBuffer, or_out_of_memory};
#[cfg(feature = "cuda")]
pub(crate) use free_list::{FreeList, FreeRange};
