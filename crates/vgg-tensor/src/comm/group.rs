//! Process groups: the collectives that a transport, which another crate implements, must provide.

use crate::{Error, Result};

/// Bytes of one value of an all-gather.
const WORD: usize = size_of::<f64>();
/// Bytes that each rank sends at a time to the root.
const PART: usize = 1 << 20;
/// Longest contribution of a rank to an all-gather, and to a gather. A longer one is a mistake or an attack.
const MAX_ALL_GATHER_BYTES: f64 = (64_u64 << 20) as f64;
const MAX_GATHER_BYTES: f64 = (1_u64 << 40) as f64;

/// A group of processes, each with a rank. All ranks must make the same calls in the same order.
pub trait ProcessGroup: Send + Sync {
    /// Rank of this process, from 0.
    fn rank(&self) -> usize;

    /// World size.
    fn size(&self) -> usize;

    /// All-reduce: replaces the values by their sums over all ranks. Values are added in rank order, so the
    /// sums are reproducible and bitwise identical on all ranks.
    ///
    /// # Errors
    /// [`crate::Error::Group`] if the transport fails.
    fn all_reduce(&self, values: &mut [f32]) -> Result<()>;

    /// All-gather: the values of all ranks in rank order. All ranks must pass the same number of values.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`].
    fn all_gather(&self, values: &[f64]) -> Result<Vec<f64>>;

    /// All-gather of bytes in rank order, at most 64 MiB each; the lengths may differ between ranks.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`]; [`crate::Error::Group`] if a rank has more bytes.
    fn all_gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = lengths_of_all(self, bytes, MAX_ALL_GATHER_BYTES)?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let words = longest.div_ceil(WORD);
        // Each f64 carries eight bytes; a transport copies its bits unchanged.
        let word = |at: usize| {
            let mut word = [0; WORD];
            let part = bytes.get(at * WORD..).unwrap_or_default();
            word.iter_mut().zip(part).for_each(|(to, byte)| *to = *byte);
            f64::from_bits(u64::from_le_bytes(word))
        };
        let all = self.all_gather(&(0..words).map(word).collect::<Vec<f64>>())?;
        let of_rank = |(rank, length): (usize, &usize)| {
            let own = &all[rank * words..][..words];
            own.iter().flat_map(|word| word.to_bits().to_le_bytes()).take(*length).collect()
        };
        Ok(lengths.iter().enumerate().map(of_rank).collect())
    }

    /// Gather: the bytes of all ranks in rank order on rank 0, and an empty vector on the others. Large data
    /// are sent in pieces.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`].
    fn gather_bytes_to_root(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = lengths_of_all(self, bytes, MAX_GATHER_BYTES)?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let first = self.rank() == 0;
        let mut all: Vec<Vec<u8>> = if first { vec![Vec::new(); self.size()] } else { Vec::new() };
        // In pieces, so that only rank 0 holds much more than its own bytes.
        for start in (0..longest).step_by(PART) {
            let end = (start + PART).min(bytes.len());
            let parts = self.all_gather_bytes(bytes.get(start..end).unwrap_or_default())?;
            all.iter_mut().zip(parts).for_each(|(all, part)| all.extend(part));
        }
        Ok(all)
    }

    /// Ends the processes of all ranks after a failure on this rank for which the others would wait forever.
    fn abort(&self, code: i32) -> !;

    /// Waits until all ranks have called it.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`].
    fn barrier(&self) -> Result<()> {
        self.all_gather(&[]).map(drop)
    }
}

/// The number of bytes of each rank.
///
/// # Errors
/// As [`ProcessGroup::all_reduce`]; [`Error::Group`] if a number is invalid or larger than `most`.
fn lengths_of_all<G: ProcessGroup + ?Sized>(group: &G, bytes: &[u8], most: f64) -> Result<Vec<usize>> {
    let check = |(rank, length): (usize, f64)| match length {
        _ if (0.0..=most).contains(&length) && length.fract() == 0.0 => Ok(length as usize),
        _ => Err(Error::Group {
            reason: format!("rank {rank} has {length} bytes; at most {most} are allowed"),
        }),
    };
    group.all_gather(&[bytes.len() as f64])?.into_iter().enumerate().map(check).collect()
}

/// The process group of a single process.
#[derive(Debug, Clone, Copy, Default)]
pub struct SingleProcess;

impl ProcessGroup for SingleProcess {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _values: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn all_gather(&self, values: &[f64]) -> Result<Vec<f64>> {
        Ok(values.to_vec())
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}
