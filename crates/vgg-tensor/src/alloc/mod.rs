//! Memory: the arena of a CPU device, and the list of free ranges that a GPU's arena shares.

mod arena;
mod free_list;

pub(crate) use arena::{Arena, CpuBuffer};
#[cfg(feature = "cuda")]
pub(crate) use free_list::{FreeList, FreeRange};
