//! Processes that compute together. The transport is another crate's; here is what it must do.

use crate::Result;

/// Bytes of a number on its way.
const WORD: usize = size_of::<f64>();
/// Bytes of a rank that travel at once.
const PART: usize = 1 << 20;

/// A number of processes, each with a rank. All must make the same calls in the same order.
pub trait ProcessGroup: Send + Sync {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Replaces the values by their sums over all ranks: added in the order of ranks, so that all get the same bits, each time.
    ///
    /// # Errors
    /// [`crate::Error::Group`] if the transport fails.
    fn all_reduce(&self, values: &mut [f32]) -> Result<()>;

    /// The values of all ranks, which give as many each, in their order.
    ///
    /// # Errors
    /// As [`ProcessGroup::sum`].
    fn all_gather(&self, values: &[f64]) -> Result<Vec<f64>>;

    /// The bytes of all ranks, in their order; each may give another number of them.
    ///
    /// # Errors
    /// As [`ProcessGroup::sum`].
    fn all_gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = self.all_gather(&[bytes.len() as f64])?;
        let longest = lengths.iter().fold(0.0_f64, |a, b| a.max(*b)) as usize;
        let words = longest.div_ceil(WORD);
        // Eight bytes travel as one number, whose bits nobody looks at on the way.
        let word = |at: usize| {
            let mut word = [0; WORD];
            let part = bytes.get(at * WORD..).unwrap_or_default();
            word.iter_mut().zip(part).for_each(|(to, byte)| *to = *byte);
            f64::from_bits(u64::from_le_bytes(word))
        };
        let all = self.all_gather(&(0..words).map(word).collect::<Vec<f64>>())?;
        let of_rank = |(rank, length): (usize, &f64)| {
            let own = &all[rank * words..][..words];
            own.iter().flat_map(|word| word.to_bits().to_le_bytes()).take(*length as usize).collect()
        };
        Ok(lengths.iter().enumerate().map(of_rank).collect())
    }

    /// The bytes of all ranks, in their order, on the first; nothing on the others. They may be many.
    ///
    /// # Errors
    /// As [`ProcessGroup::sum`].
    fn gather_bytes_to_root(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = self.all_gather(&[bytes.len() as f64])?;
        let longest = lengths.iter().fold(0.0_f64, |a, b| a.max(*b)) as usize;
        let first = self.rank() == 0;
        let mut all: Vec<Vec<u8>> = if first { vec![Vec::new(); self.size()] } else { Vec::new() };
        // By and by: no rank holds much more than its own, but for the first.
        for start in (0..longest).step_by(PART) {
            let end = (start + PART).min(bytes.len());
            let parts = self.all_gather_bytes(bytes.get(start..end).unwrap_or_default())?;
            all.iter_mut().zip(parts).for_each(|(all, part)| all.extend(part));
        }
        Ok(all)
    }

    /// Ends all processes, after something went wrong in this one that the others would wait for without end.
    fn abort(&self, code: i32) -> !;

    /// Waits until all are here.
    ///
    /// # Errors
    /// As [`ProcessGroup::sum`].
    fn barrier(&self) -> Result<()> {
        self.all_gather(&[]).map(drop)
    }
}

/// A process on its own.
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
