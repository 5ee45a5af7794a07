//! Whether a gradient overwrites or accumulates.

/// What an operation does with the parameter gradient of earlier micro-batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GradMode {
    /// Replace it.
    Overwrite,
    /// Add to it, as the second and later micro-batches of a step do.
    Accumulate,
}
