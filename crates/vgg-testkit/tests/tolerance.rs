//! Tests of `relative_error` and `assert_close`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use vgg_testkit::{assert_close, relative_error};

/// The panic message, if the assertion fails.
fn failure(a: &[f32], b: &[f32], tolerance: f64) -> Option<String> {
    let result = catch_unwind(AssertUnwindSafe(|| assert_close(a, b, tolerance, "some values")));
    result.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
}

#[test]
fn error_is_the_largest_difference_over_the_largest_reference() {
    // Powers of two, so that nothing rounds.
    assert_eq!(relative_error(&[1.25, 2.0], &[1.0, 2.0]), 0.125);
    assert_eq!(relative_error(&[0.75, 2.0], &[1.0, 2.0]), 0.125);
    assert_eq!(relative_error(&[1.0, -2.5], &[1.0, -2.0]), 0.25);
    assert_eq!(relative_error(&[-1.0], &[1.0]), 2.0);
    // Relative to the largest value of the second slice.
    assert_eq!(relative_error(&[4.0], &[2.0]), 1.0);
    assert_eq!(relative_error(&[2.0], &[4.0]), 0.5);
    assert_eq!(relative_error(&[0.5, 8.0], &[0.25, 8.0]), 0.03125);
    assert_eq!(relative_error(&[3.0, -7.0], &[3.0, -7.0]), 0.0);
}

#[test]
fn each_value_counts() {
    let reference = [1.0; 19];
    for i in 0..19 {
        for sign in [-1.0, 1.0] {
            let mut values = reference;
            values[i] += sign * 0.5;
            assert_eq!(relative_error(&values, &reference), 0.5, "value {i}");
        }
    }
}

#[test]
fn nan_has_infinite_error() {
    for i in 0..3 {
        let mut bad = [1.0, 2.0, 3.0];
        bad[i] = f32::NAN;
        let good = [1.0, 2.0, 3.0];
        assert_eq!(relative_error(&bad, &good), f64::INFINITY);
        assert_eq!(relative_error(&good, &bad), f64::INFINITY);
        // Also if both are NaN.
        assert_eq!(relative_error(&bad, &bad), f64::INFINITY);
        assert!(failure(&bad, &good, 1e9).is_some());
        assert!(failure(&good, &bad, 1e9).is_some());
        assert!(failure(&bad, &bad, 1e9).is_some());
    }
}

#[test]
fn infinities_are_never_close() {
    for infinity in [f32::INFINITY, f32::NEG_INFINITY] {
        for (a, b) in
            [([infinity, 1.0], [1.0, 1.0]), ([1.0, 1.0], [infinity, 1.0]), ([infinity; 2], [infinity; 2])]
        {
            assert_eq!(relative_error(&a, &b), f64::INFINITY, "{a:?} {b:?}");
            assert!(failure(&a, &b, f64::MAX).is_some(), "{a:?} {b:?}");
        }
    }
}

#[test]
fn lengths_must_agree() {
    // Empty slices are not close: comparing no values would test nothing.
    for (a, b) in [(3, 2), (2, 3), (1, 0), (0, 1), (0, 0)] {
        let ones = [1.0; 3];
        assert_eq!(relative_error(&ones[..a], &ones[..b]), f64::INFINITY, "{a} and {b} values");
        let message = failure(&ones[..a], &ones[..b], 1e9);
        let message = message.unwrap_or_else(|| panic!("{a} and {b} values pass"));
        assert!(message.contains(&format!("({a}, {b})")), "{message}");
    }
}

#[test]
fn zero_reference_allows_zeros_alone() {
    assert_eq!(relative_error(&[0.0, -0.0], &[0.0, 0.0]), 0.0);
    assert_eq!(relative_error(&[0.0, 1e-30], &[0.0, 0.0]), f64::INFINITY);
    assert!(failure(&[0.0, 1e-30], &[0.0, 0.0], 1e9).is_some());
}

#[test]
fn error_equal_to_the_tolerance_passes() {
    assert_eq!(failure(&[1.25, 2.0], &[1.0, 2.0], 0.125), None);
    let message = failure(&[1.25, 2.0], &[1.0, 2.0], 0.124);
    assert!(message.is_some_and(|text| text.contains("some values") && text.contains("1.250e-1")));
    assert_eq!(failure(&[1.0, 2.0], &[1.0, 2.0], 0.0), None);
}
