//! Process groups, and the all-reduce of tensors over their ranks.

mod all_reduce;
mod group;
#[cfg(feature = "cuda")]
mod nccl;
mod thread_ranks;

pub use all_reduce::AllReduce;
pub use group::{ProcessGroup, SingleProcess};
pub use thread_ranks::on_thread_ranks;
