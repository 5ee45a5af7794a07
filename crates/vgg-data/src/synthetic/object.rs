//! The ten classes: outline and texture of each, in object coordinates (the object fits in the unit disc).

use libm::{atan2f, cosf, fabsf, floorf, hypotf, sinf, sqrtf};

/// Names of the classes in sorted order; the position is the class index.
pub const CLASSES: [&str; 10] = [
    "barred-cross",
    "bricked-square",
    "checked-hexagon",
    "dotted-triangle",
    "netted-leaf",
    "ringed-disc",
    "spiral-shell",
    "spoked-wheel",
    "striped-moon",
    "waved-star",
];

/// Signed distance of a point from the outline of a class's shape, negative inside, in units of the object's
/// radius. It is approximate, but accurate enough near the outline for an antialiased edge.
pub(super) fn outline(class: usize, u: f32, v: f32) -> f32 {
    let r = hypotf(u, v);
    match class {
        0 => bar(u, v).min(bar(v, u)),
        1 => fabsf(u).max(fabsf(v)) - 0.7,
        2 => fabsf(u).max(0.5 * fabsf(u) + 0.866 * fabsf(v)) - 0.84,
        3 => (-v).max(0.866 * fabsf(u) + 0.5 * v) - 0.48,
        4 => hypotf(u, v - 0.75).max(hypotf(u, v + 0.75)) - 1.24,
        5 => r - 0.97,
        6 => shell(u, v, r),
        7 => fabsf(r - 0.64) - 0.33,
        8 => (r - 0.97).max(0.78 - hypotf(u - 0.52, v)),
        _ => r - (0.68 + 0.28 * cosf(5.0 * atan2f(v, u))),
    }
}

/// Fraction of the second colour at a point of a class's texture, 0 to 1.
pub(super) fn texture(class: usize, u: f32, v: f32) -> f32 {
    let r = hypotf(u, v);
    soft(match class {
        0 => sinf(11.0 * u),
        1 => bricks(u, v),
        2 => 1.6 * sinf(7.5 * u) * sinf(7.5 * v),
        3 => cosf(10.0 * u) + cosf(10.0 * v) - 0.55,
        4 => fabsf(sinf(5.5 * (u + v))).min(fabsf(sinf(5.5 * (u - v)))) - 0.4,
        5 => sinf(15.0 * r),
        6 => sinf(2.0 * atan2f(v, u) + 11.0 * r),
        7 => sinf(9.0 * atan2f(v, u)),
        8 => sinf(13.0 * v),
        _ => sinf(9.0 * v + 1.8 * sinf(7.0 * u)),
    })
}

fn bar(along: f32, across: f32) -> f32 {
    (fabsf(along) - 0.93).max(fabsf(across) - 0.3)
}

/// A disc whose radius grows with the angle.
fn shell(u: f32, v: f32, r: f32) -> f32 {
    let turn = atan2f(v, u) / std::f32::consts::TAU + 0.5;
    r - (0.55 + 0.42 * sqrtf(turn))
}

fn bricks(u: f32, v: f32) -> f32 {
    let row = floorf(v * 3.2);
    let shifted = u * 1.7 + if row as i32 % 2 == 0 { 0.0 } else { 0.5 };
    let (a, b) = (v * 3.2 - row, shifted - floorf(shifted));
    // Mortar: either coordinate is near the edge of its brick.
    let edge = a.min(1.0 - a).min(1.9 * b.min(1.0 - b));
    5.0 * (edge - 0.17)
}

/// A linear ramp from 0 to 1 around `x` = 0.
fn soft(x: f32) -> f32 {
    (0.5 + 1.6 * x).clamp(0.0, 1.0)
}
