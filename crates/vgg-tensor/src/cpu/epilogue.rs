//! What follows a product while its result is still in cache.

/// Adds `bias` to every row of `bias.len()` values, and clamps at zero if `relu`.
pub(crate) fn add_bias(rows: &mut [f32], bias: &[f32], relu: bool) {
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    for row in rows.chunks_exact_mut(bias.len()) {
        for (y, b) in row.iter_mut().zip(bias) {
            let z = *y + b;
            // Not `max`, which would turn a NaN into the floor and hide it.
            *y = if z < floor { floor } else { z };
        }
    }
}

/// Takes gradients back through an activation: `dx = scale * dx` where its output `y` is positive, else 0; adds
/// every row of `sums.len()` values to `sums`.
pub(crate) fn gate(dx: &mut [f32], y: &[f32], scale: f32, sums: &mut [f32]) {
    for (dx, y) in dx.chunks_exact_mut(sums.len()).zip(y.chunks_exact(sums.len())) {
        for ((dx, y), sum) in dx.iter_mut().zip(y).zip(sums.iter_mut()) {
            *dx = if *y > 0.0 { *dx * scale } else { 0.0 };
            *sum += *dx;
        }
    }
}

/// As [`gate`] where there is no activation: only the sums.
pub(crate) fn add_rows(rows: &[f32], sums: &mut [f32]) {
    for row in rows.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
}
