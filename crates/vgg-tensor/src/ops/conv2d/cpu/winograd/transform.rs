//! The transforms of Winograd convolution F(M, 3) along one axis.
//!
//! For `M` neighbouring outputs `y` of a filter `g` of three taps over `M + 2` inputs `d`,
//! `y = A^T [(G g) * (B^T d)]` needs `M + 2` products instead of `3 M`. In two dimensions each matrix is applied to the
//! columns and then to the rows. The matrices interpolate at 0, infinity, 1 and -1; F4 also at 2 and -2,
//! and F6 also at 1/2 and -1/2. Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2015,
//! derive the first two.
//!
//! Grad-input is again a convolution; grad-weight is `G^T [(B^T d) * (A dy)]`.

use std::mem::MaybeUninit;

use crate::cpu::Vector;

/// Longest side of a tile.
pub(super) const MAX_SIDE: usize = 8;

/// Values along one side of a tile; values past the transform's length are 0.
pub(super) type Side<V> = [V; MAX_SIDE];

/// The matrices of F(M, R).
pub(super) trait Transform: 'static + Sync + Send {
    /// Outputs along a side of a tile.
    const M: usize;
    /// Taps along a side of the filter.
    const R: usize;
    /// Inputs, and products, along a side of a tile.
    const SIDE: usize = Self::M + Self::R - 1;

    /// `B^T d`: `SIDE` values to `SIDE`.
    fn input<V: Vector>(d: &Side<V>) -> Side<V>;
    /// `A^T m`: `SIDE` values to `M`.
    fn output<V: Vector>(m: &Side<V>) -> Side<V>;
    /// `A y`: `M` values to `SIDE`.
    fn output_gradient<V: Vector>(y: &Side<V>) -> Side<V>;
    /// `G g`: `R` values to `SIDE`.
    fn filter<V: Vector>(g: &[V; 3]) -> Side<V>;
    /// `G^T u`: `SIDE` values to `R`.
    fn filter_gradient<V: Vector>(u: &Side<V>) -> [V; 3];
}

/// 2 x 2 outputs from tiles of 4 x 4.
pub(super) struct F2;
/// 4 x 4 outputs from tiles of 6 x 6.
pub(super) struct F4;
/// 6 x 6 outputs from tiles of 8 x 8.
pub(super) struct F6;
/// A 1 x 1 filter, where every matrix is 1: the convolution is a matrix product over pixels.
pub(super) struct F1;

impl Transform for F1 {
    const M: usize = 1;
    const R: usize = 1;

    #[inline(always)]
    fn input<V: Vector>(d: &Side<V>) -> Side<V> {
        *d
    }

    #[inline(always)]
    fn output<V: Vector>(m: &Side<V>) -> Side<V> {
        *m
    }

    #[inline(always)]
    fn output_gradient<V: Vector>(y: &Side<V>) -> Side<V> {
        *y
    }

    #[inline(always)]
    fn filter<V: Vector>(g: &[V; 3]) -> Side<V> {
        side([g[0]])
    }

    #[inline(always)]
    fn filter_gradient<V: Vector>(u: &Side<V>) -> [V; 3] {
        [u[0], V::splat(0.0), V::splat(0.0)]
    }
}

impl Transform for F2 {
    const M: usize = 2;
    const R: usize = 3;

    #[inline(always)]
    fn input<V: Vector>(d: &Side<V>) -> Side<V> {
        side([d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3])])
    }

    #[inline(always)]
    fn output<V: Vector>(m: &Side<V>) -> Side<V> {
        side([m[0].add(m[1].add(m[2])), m[1].sub(m[2]).sub(m[3])])
    }

    #[inline(always)]
    fn output_gradient<V: Vector>(y: &Side<V>) -> Side<V> {
        side([y[0], y[0].add(y[1]), y[0].sub(y[1]), V::splat(0.0).sub(y[1])])
    }

    #[inline(always)]
    fn filter<V: Vector>(g: &[V; 3]) -> Side<V> {
        let half = V::splat(0.5);
        let (ends, middle) = (g[0].add(g[2]).mul(half), g[1].mul(half));
        side([g[0], ends.add(middle), ends.sub(middle), g[2]])
    }

    #[inline(always)]
    fn filter_gradient<V: Vector>(u: &Side<V>) -> [V; 3] {
        let half = V::splat(0.5);
        let (sum, difference) = (u[1].add(u[2]).mul(half), u[1].sub(u[2]).mul(half));
        [u[0].add(sum), difference, sum.add(u[3])]
    }
}

impl Transform for F4 {
    const M: usize = 4;
    const R: usize = 3;

    #[inline(always)]
    fn input<V: Vector>(d: &Side<V>) -> Side<V> {
        let (a, b) = (d[2].mul_add_scalar(-4.0, d[4]), d[1].mul_add_scalar(-4.0, d[3]));
        let (e, f) = (d[4].sub(d[2]), d[3].sub(d[1]));
        side([
            d[0].mul_add_scalar(4.0, d[2].mul_add_scalar(-5.0, d[4])),
            a.add(b),
            a.sub(b),
            f.mul_add_scalar(2.0, e),
            f.mul_add_scalar(-2.0, e),
            d[1].mul_add_scalar(4.0, d[3].mul_add_scalar(-5.0, d[5])),
        ])
    }

    #[inline(always)]
    fn output<V: Vector>(m: &Side<V>) -> Side<V> {
        let (p, q) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (s, t) = (m[3].add(m[4]), m[3].sub(m[4]));
        side([
            m[0].add(p.add(s)),
            t.mul_add_scalar(2.0, q),
            s.mul_add_scalar(4.0, p),
            t.mul_add_scalar(8.0, q).add(m[5]),
        ])
    }

    #[inline(always)]
    fn output_gradient<V: Vector>(y: &Side<V>) -> Side<V> {
        let (even, odd) = (y[0].add(y[2]), y[1].add(y[3]));
        let (even2, odd2) = (y[2].mul_add_scalar(4.0, y[0]), y[3].mul_add_scalar(8.0, y[1].add(y[1])));
        side([y[0], even.add(odd), even.sub(odd), even2.add(odd2), even2.sub(odd2), y[3]])
    }

    #[inline(always)]
    fn filter<V: Vector>(g: &[V; 3]) -> Side<V> {
        let (sixth, twelfth) = (V::splat(-1.0 / 6.0), V::splat(1.0 / 12.0));
        let ends = g[0].add(g[2]).mul(sixth);
        let middle = g[1].mul(sixth);
        let ends2 = g[0].mul(V::splat(1.0 / 24.0)).add(g[2].mul(V::splat(1.0 / 6.0)));
        let middle2 = g[1].mul(twelfth);
        side([
            g[0].mul(V::splat(0.25)),
            ends.add(middle),
            ends.sub(middle),
            ends2.add(middle2),
            ends2.sub(middle2),
            g[2],
        ])
    }

    #[inline(always)]
    fn filter_gradient<V: Vector>(u: &Side<V>) -> [V; 3] {
        let (p, q) = (u[1].add(u[2]), u[1].sub(u[2]));
        let (s, t) = (u[3].add(u[4]), u[3].sub(u[4]));
        let sixth = 1.0 / 6.0;
        [
            p.mul_add_scalar(-sixth, u[0].mul(V::splat(0.25))).add(s.mul(V::splat(1.0 / 24.0))),
            t.mul_add_scalar(1.0 / 12.0, q.mul(V::splat(-sixth))),
            s.sub(p).mul_add_scalar(sixth, u[5]),
        ]
    }
}

impl Transform for F6 {
    const M: usize = 6;
    const R: usize = 3;

    #[inline(always)]
    fn input<V: Vector>(d: &Side<V>) -> Side<V> {
        let a = d[4].mul_add_scalar(-4.25, d[2].add(d[6]));
        let b = d[3].mul_add_scalar(-4.25, d[1].add(d[5]));
        let c = d[2].mul_add_scalar(0.25, d[4].mul_add_scalar(-1.25, d[6]));
        let e = d[1].mul_add_scalar(0.5, d[3].mul_add_scalar(-2.5, d[5].add(d[5])));
        let f = d[2].mul_add_scalar(4.0, d[4].mul_add_scalar(-5.0, d[6]));
        let g = d[1].mul_add_scalar(2.0, d[3].mul_add_scalar(-2.5, d[5].mul(V::splat(0.5))));
        [
            d[4].sub(d[2]).mul_add_scalar(5.25, d[0].sub(d[6])),
            a.add(b),
            a.sub(b),
            c.add(e),
            c.sub(e),
            f.add(g),
            f.sub(g),
            d[3].sub(d[5]).mul_add_scalar(5.25, d[7].sub(d[1])),
        ]
    }

    #[inline(always)]
    fn output<V: Vector>(m: &Side<V>) -> Side<V> {
        let (p, q) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (s, t) = (m[3].add(m[4]), m[3].sub(m[4]));
        let (u, v) = (m[5].add(m[6]), m[5].sub(m[6]));
        side([
            m[0].add(p).add(s.add(u)),
            t.mul_add_scalar(2.0, v.mul_add_scalar(0.5, q)),
            s.mul_add_scalar(4.0, u.mul_add_scalar(0.25, p)),
            t.mul_add_scalar(8.0, v.mul_add_scalar(0.125, q)),
            s.mul_add_scalar(16.0, u.mul_add_scalar(0.0625, p)),
            t.mul_add_scalar(32.0, v.mul_add_scalar(0.03125, q)).add(m[7]),
        ])
    }

    #[inline(always)]
    fn output_gradient<V: Vector>(y: &Side<V>) -> Side<V> {
        let even = y[0].add(y[2]).add(y[4]);
        let odd = y[1].add(y[3]).add(y[5]);
        let even2 = y[4].mul_add_scalar(16.0, y[2].mul_add_scalar(4.0, y[0]));
        let odd2 = y[5].mul_add_scalar(32.0, y[3].mul_add_scalar(8.0, y[1].add(y[1])));
        let even_half = y[4].mul_add_scalar(0.0625, y[2].mul_add_scalar(0.25, y[0]));
        let odd_half = y[5].mul_add_scalar(0.03125, y[3].mul_add_scalar(0.125, y[1].mul(V::splat(0.5))));
        [
            y[0],
            even.add(odd),
            even.sub(odd),
            even2.add(odd2),
            even2.sub(odd2),
            even_half.add(odd_half),
            even_half.sub(odd_half),
            y[5],
        ]
    }

    #[inline(always)]
    fn filter<V: Vector>(g: &[V; 3]) -> Side<V> {
        let at = |ends: V, middle: V| (ends.add(middle), ends.sub(middle));
        let ninths = V::splat(-2.0 / 9.0);
        let (one, minus_one) = at(g[0].add(g[2]).mul(ninths), g[1].mul(ninths));
        let two = g[2].mul_add_scalar(4.0, g[0]).mul(V::splat(1.0 / 90.0));
        let (two, minus_two) = at(two, g[1].mul(V::splat(1.0 / 45.0)));
        let half = g[0].mul_add_scalar(4.0, g[2]).mul(V::splat(8.0 / 45.0));
        let (half, minus_half) = at(half, g[1].mul(V::splat(16.0 / 45.0)));
        [g[0], one, minus_one, two, minus_two, half, minus_half, g[2]]
    }

    #[inline(always)]
    fn filter_gradient<V: Vector>(u: &Side<V>) -> [V; 3] {
        let (p, q) = (u[1].add(u[2]), u[1].sub(u[2]));
        let (s, t) = (u[3].add(u[4]), u[3].sub(u[4]));
        let (h, k) = (u[5].add(u[6]), u[5].sub(u[6]));
        let ninths = -2.0 / 9.0;
        [
            h.mul_add_scalar(32.0 / 45.0, s.mul_add_scalar(1.0 / 90.0, p.mul_add_scalar(ninths, u[0]))),
            k.mul_add_scalar(16.0 / 45.0, t.mul_add_scalar(1.0 / 45.0, q.mul(V::splat(ninths)))),
            h.mul_add_scalar(8.0 / 45.0, s.mul_add_scalar(2.0 / 45.0, p.mul_add_scalar(ninths, u[7]))),
        ]
    }
}

/// A tile whose columns are transformed, to be read by rows.
///
/// The array starts uninitialised, because clearing it takes a good part of the time of a transform.
/// (Closures are avoided here and in other inner loops: the compiler may not inline them, and then they lose
/// the instruction set.)
pub(super) struct Columns<V> {
    columns: [MaybeUninit<Side<V>>; MAX_SIDE],
    count: usize,
}

impl<V: Vector> Columns<V> {
    #[inline(always)]
    pub(super) fn new() -> Columns<V> {
        Columns { columns: [const { MaybeUninit::uninit() }; MAX_SIDE], count: 0 }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, column: Side<V>) {
        self.columns[self.count].write(column);
        self.count += 1;
    }

    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> Side<V> {
        let mut row = [V::splat(0.0); MAX_SIDE];
        for (value, column) in row.iter_mut().zip(&self.columns).take(self.count) {
            // SAFETY: the first `count` columns were written.
            *value = unsafe { column.assume_init_ref() }[i];
        }
        row
    }
}

#[inline(always)]
fn side<V: Vector, const N: usize>(values: [V; N]) -> Side<V> {
    let mut side = [V::splat(0.0); MAX_SIDE];
    side[..N].copy_from_slice(&values);
    side
}

#[cfg(test)]
mod tests {
    use super::*;
    type Portable = crate::cpu::Portable<8>;

    /// Small integers, so that only the constants round.
    fn some(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7 + seed * 5) % 11) as f32 - 5.0).collect()
    }

    fn vectors<const N: usize>(values: &[f32]) -> [Portable; N] {
        std::array::from_fn(|i| Portable::splat(values.get(i).copied().unwrap_or(0.0)))
    }

    fn value(v: Portable) -> f32 {
        v.sum() / Portable::LANES as f32
    }

    fn check<T: Transform>() {
        let (d, g, y) = (some(T::SIDE, 1), some(T::R, 2), some(T::M, 3));
        let (v, u) = (T::input(&vectors(&d)), T::filter(&vectors(&g)));
        let m: Side<Portable> = std::array::from_fn(|i| v[i].mul(u[i]));
        let out = T::output(&m);
        for i in 0..T::M {
            let expected: f32 = (0..T::R).map(|r| d[i + r] * g[r]).sum();
            assert!((value(out[i]) - expected).abs() < 1e-4, "F{}: output {i}", T::M);
        }
        // <A^T m, y> = <m, A y>, and <G g, u> = <g, G^T u>.
        let spread = T::output_gradient(&vectors(&y));
        let left: f32 = (0..T::M).map(|i| value(out[i]) * y[i]).sum();
        let right: f32 = (0..T::SIDE).map(|i| value(m[i]) * value(spread[i])).sum();
        assert!((left - right).abs() < 1e-3, "F{}: {left} {right}", T::M);
        let taps = T::filter_gradient(&m);
        let left: f32 = (0..T::SIDE).map(|i| value(u[i]) * value(m[i])).sum();
        let right: f32 = (0..T::R).map(|i| g[i] * value(taps[i])).sum();
        assert!((left - right).abs() < 1e-2, "F{}: {left} {right}", T::M);
    }

    #[test]
    fn transforms_convolve_and_gradients_are_adjoint() {
        check::<F1>();
        check::<F2>();
        check::<F4>();
        check::<F6>();
    }
}
