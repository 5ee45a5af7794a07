//! Epilogues: bias, ReLU and their gradients, applied to a result while it is in cache.

/// Adds `bias` to every row of `bias.len()` values, then applies ReLU if `relu`.
pub(crate) fn add_bias(rows: &mut [f32], bias: &[f32], relu: bool) {
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    for row in rows.chunks_exact_mut(bias.len()) {
        for (y, b) in row.iter_mut().zip(bias) {
            let z = *y + b;
            // Not `f32::max`, which would replace a NaN with the floor.
            *y = if z < floor { floor } else { z };
        }
    }
}

/// Backward pass of ReLU and dropout: `dx = scale * dx` where the output `y` is positive, else 0. Adds every
/// row of `sums.len()` values of the result to `sums`.
pub(crate) fn relu_backward(dx: &mut [f32], y: &[f32], scale: f32, sums: &mut [f32]) {
    for (dx, y) in dx.chunks_exact_mut(sums.len()).zip(y.chunks_exact(sums.len())) {
        for ((dx, y), sum) in dx.iter_mut().zip(y).zip(sums.iter_mut()) {
            *dx = if *y > 0.0 { *dx * scale } else { 0.0 };
            *sum += *dx;
        }
    }
}

/// As [`relu_backward`] without an activation: adds every row of `sums.len()` values to `sums`.
pub(crate) fn add_rows(rows: &[f32], sums: &mut [f32]) {
    for row in rows.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
}
