//! Reference operations as plain f64 loops.

use ndarray::{Array1, Array2, Array4};

/// Cross-correlation with bias, without activation. `x [N,H,W,C]`, `w [K,R,S,C]`.
pub fn conv2d(x: &Array4<f64>, w: &Array4<f64>, bias: &Array1<f64>, pad: usize) -> Array4<f64> {
    let ((n, h, wd, _), (k, r, s, _)) = (x.dim(), w.dim());
    let (oh, ow) = (h + 2 * pad - r + 1, wd + 2 * pad - s + 1);
    let mut y = Array4::from_shape_fn((n, oh, ow, k), |(.., f)| bias[f]);
    for_each_tap(x, w, pad, [oh, ow], |[i, y0, x0, f], at, filter, _| y[[i, y0, x0, f]] += x[at] * w[filter]);
    y
}

/// Gradients of a convolution.
#[derive(Debug)]
pub struct ConvGradients {
    /// Grad-input.
    pub dx: Array4<f64>,
    /// Grad-weight.
    pub dw: Array4<f64>,
    /// Gradient of the bias.
    pub db: Array1<f64>,
}

/// Gradients of [`conv2d`] for the output gradient `dy`.
pub fn conv2d_gradients(x: &Array4<f64>, w: &Array4<f64>, dy: &Array4<f64>, pad: usize) -> ConvGradients {
    let (_, oh, ow, k) = dy.dim();
    let (mut dx, mut dw) = (Array4::zeros(x.dim()), Array4::zeros(w.dim()));
    for_each_tap(x, w, pad, [oh, ow], |out, at, filter, _| {
        dx[at] += dy[out] * w[filter];
        dw[filter] += dy[out] * x[at];
    });
    let db = (0..k).map(|f| dy.index_axis(ndarray::Axis(3), f).sum()).collect();
    ConvGradients { dx, dw, db }
}

/// Calls `f(output index, input index, filter index, channel)` for every product of a convolution.
fn for_each_tap(
    x: &Array4<f64>,
    w: &Array4<f64>,
    pad: usize,
    output: [usize; 2],
    mut f: impl FnMut([usize; 4], [usize; 4], [usize; 4], usize),
) {
    let ((n, h, wd, c), (k, r, s, _)) = (x.dim(), w.dim());
    let [oh, ow] = output;
    for i in 0..n {
        for y in 0..oh {
            for q in 0..ow {
                for (a, b) in (0..r).flat_map(|a| (0..s).map(move |b| (a, b))) {
                    let (yy, xx) = ((y + a).wrapping_sub(pad), (q + b).wrapping_sub(pad));
                    if yy >= h || xx >= wd {
                        continue;
                    }
                    for filter in 0..k {
                        for channel in 0..c {
                            f([i, y, q, filter], [i, yy, xx, channel], [filter, a, b, channel], channel);
                        }
                    }
                }
            }
        }
    }
}

/// `x w^T + bias`.
pub fn linear(x: &Array2<f64>, w: &Array2<f64>, bias: &Array1<f64>) -> Array2<f64> {
    Array2::from_shape_fn((x.nrows(), w.nrows()), |(n, o)| {
        bias[o] + x.row(n).iter().zip(w.row(o)).map(|(x, w)| x * w).sum::<f64>()
    })
}

/// 2x2 max-pooling at stride 2; `ceil` keeps an odd last row and column.
pub fn max_pool2d(x: &Array4<f64>, ceil: bool) -> Array4<f64> {
    let (n, h, w, c) = x.dim();
    let pooled = |side: usize| if ceil { side.div_ceil(2) } else { side / 2 };
    Array4::from_shape_fn((n, pooled(h), pooled(w), c), |(i, y, q, k)| {
        let window =
            (2 * y..(2 * y + 2).min(h)).flat_map(|yy| (2 * q..(2 * q + 2).min(w)).map(move |xx| (yy, xx)));
        window.map(|(yy, xx)| x[[i, yy, xx, k]]).fold(f64::NEG_INFINITY, f64::max)
    })
}

/// Local response normalisation, `x / (k + a * sum of squares)^beta`; `a` is not divided by `size`.
pub fn lrn(x: &Array4<f64>, size: usize, a: f64, beta: f64, k: f64) -> Array4<f64> {
    let c = x.dim().3;
    Array4::from_shape_fn(x.dim(), |(i, y, q, channel)| {
        let window = channel.saturating_sub(size / 2)..(channel + size / 2 + 1).min(c);
        let squares: f64 = window.map(|j| x[[i, y, q, j]].powi(2)).sum();
        x[[i, y, q, channel]] / (k + a * squares).powf(beta)
    })
}

/// Cross-entropy losses `-ln softmax(x)[target]` per row.
pub fn softmax_cross_entropy(x: &Array2<f64>, targets: &[u32]) -> Vec<f64> {
    let loss = |(row, target): (ndarray::ArrayView1<f64>, &u32)| {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x - largest).exp()).sum();
        largest + sum.ln() - row[*target as usize]
    };
    x.rows().into_iter().zip(targets).map(loss).collect()
}

/// Central differences of `f` with respect to each of `x`, with step 1e-5.
pub fn finite_difference(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-5;
    let mut at = x.to_vec();
    (0..x.len())
        .map(|i| {
            at[i] = x[i] + step;
            let above = f(&at);
            at[i] = x[i] - step;
            let below = f(&at);
            at[i] = x[i];
            (above - below) / (2.0 * step)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn convolution_gradients_are_those_of_finite_differences() {
        let unit = |name: &str, n: usize| (0..n).map(|i| f64::from(crate::unit(name, i))).collect::<Vec<_>>();
        let shape = |v: Vec<f64>, dims| Array4::from_shape_vec(dims, v).unwrap();
        let (xd, wd) = ((2, 4, 5, 3), (2, 3, 3, 3));
        let (x, w) = (unit("x", 120), unit("w", 54));
        let bias = Array1::from(unit("b", 2));
        let dy = shape(unit("dy", 80), (2, 4, 5, 2));
        let loss = |x: &[f64], w: &[f64]| {
            (conv2d(&shape(x.to_vec(), xd), &shape(w.to_vec(), wd), &bias, 1) * &dy).sum()
        };
        let g = conv2d_gradients(&shape(x.clone(), xd), &shape(w.clone(), wd), &dy, 1);
        let near = |a: &Array4<f64>, b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-8);
        assert!(near(&g.dx, &finite_difference(&x, |x| loss(x, &w))));
        assert!(near(&g.dw, &finite_difference(&w, |w| loss(&x, w))));
        assert!((g.db[1] - dy.index_axis(ndarray::Axis(3), 1).sum()).abs() < 1e-12);
    }
}
