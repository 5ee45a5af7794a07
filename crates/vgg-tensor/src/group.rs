//! Processes that compute together. The transport is another crate's; here is what it must do.

use crate::Result;

/// A number of processes, each with a rank. All must make the same calls in the same order.
pub trait RankGroup: Send + Sync {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Replaces the values by their sums over all ranks: added in the order of ranks, so that all get the same bits, each time.
    ///
    /// # Errors
    /// [`crate::Error::Group`] if the transport fails.
    fn sum(&self, values: &mut [f32]) -> Result<()>;

    /// The values of all ranks, which give as many each, in their order.
    ///
    /// # Errors
    /// As [`RankGroup::sum`].
    fn gather(&self, values: &[f64]) -> Result<Vec<f64>>;

    /// Ends all processes, after something went wrong in this one that the others would wait for without end.
    fn abort(&self, code: i32) -> !;

    /// Waits until all are here.
    ///
    /// # Errors
    /// As [`RankGroup::sum`].
    fn barrier(&self) -> Result<()> {
        self.gather(&[]).map(drop)
    }
}

/// A process on its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl RankGroup for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _values: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn gather(&self, values: &[f64]) -> Result<Vec<f64>> {
        Ok(values.to_vec())
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}
