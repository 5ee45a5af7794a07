//! Relative errors: the largest difference over the largest magnitude of a tensor.

/// `max |a - b| / max |b|`; infinite if the lengths differ, if there are no values, or if a value is not
/// finite.
pub fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() || b.is_empty() {
        return f64::INFINITY;
    }
    let mut difference = 0f64;
    let mut largest = 0f64;
    for (a, b) in a.iter().zip(b) {
        let d = (f64::from(*a) - f64::from(*b)).abs();
        if !d.is_finite() {
            return f64::INFINITY;
        }
        difference = difference.max(d);
        largest = largest.max(f64::from(*b).abs());
    }
    if difference == 0.0 { 0.0 } else { difference / largest }
}

/// Asserts that `a` is within `tolerance` of the reference `b`.
///
/// If the error is larger; the message contains `what` and the error.
/// With `what` and the error if it is not.
#[track_caller]
pub fn assert_close(a: &[f32], b: &[f32], tolerance: f64, what: &str) {
    let error = relative_error(a, b);
    let lengths = (a.len(), b.len());
    assert!(
        error <= tolerance,
        "{what}: relative error {error:.3e} is above {tolerance:.1e} (lengths {lengths:?})"
    );
}
