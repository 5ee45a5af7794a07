//! Whether a gradient replaces the one before.

/// What to do with a parameter gradient that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GradMode {
    /// Replace it.
    Overwrite,
    /// Add to it, as the second and later micro-batches of a step do.
    Accumulate,
}
