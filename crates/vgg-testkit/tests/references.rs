//! The reference loops against hand-computed values, independent sums and finite differences.

use ndarray::{Array1, Array2, Array4, array};
use vgg_testkit::{
    conv2d, conv2d_gradients, finite_difference, linear, lrn, max_pool2d, softmax_cross_entropy, unit,
};

/// Values of the pseudo-random stream `name`.
fn values(name: &str, len: usize) -> Vec<f64> {
    (0..len).map(|i| f64::from(unit(name, i))).collect()
}

fn images(values: &[f64], shape: [usize; 4]) -> Array4<f64> {
    Array4::from_shape_vec(shape, values.to_vec()).unwrap()
}

fn matrix(values: &[f64], rows: usize, columns: usize) -> Array2<f64> {
    Array2::from_shape_vec((rows, columns), values.to_vec()).unwrap()
}

/// Asserts that each value is within `bound` of the expected one.
#[track_caller]
fn assert_near(got: &[f64], expected: &[f64], bound: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= bound, "{what}: value {i} is {got}, not {expected}");
    }
}

fn flat<'a>(values: impl IntoIterator<Item = &'a f64>) -> Vec<f64> {
    values.into_iter().copied().collect()
}

/// Accuracy of finite differences: sums of a few hundred values of order 1 are exact to about 1e-14 and are
/// divided by 2e-5; curvature adds the square of the step, 1e-10.
const DIFFERENCES: f64 = 1e-8;

/// `x0^3 + 2 x0 x1 - x1^2 + 5`.
#[test]
fn finite_difference_of_a_polynomial() {
    let f = |x: &[f64]| x[0].powi(3) + 2.0 * x[0] * x[1] - x[1].powi(2) + 5.0;
    for [a, b] in [[0.5, -0.25], [-1.5, 2.0], [0.0, 0.0]] {
        let expected = [3.0 * a * a + 2.0 * b, 2.0 * a - 2.0 * b];
        // A one-sided difference, or a coordinate that is not restored, would be off by 1e-5.
        assert_near(&finite_difference(&[a, b], f), &expected, 1e-9, "polynomial");
    }
    assert!(finite_difference(&[], |_| 1.0).is_empty());
}

/// An image of 1 to 9 and the same filter, not flipped: the centre is the sum of squares, 285.
#[test]
fn convolution_worked_by_hand() {
    let x = images(&(1..=9).map(f64::from).collect::<Vec<_>>(), [1, 3, 3, 1]);
    let bias = array![0.5];
    let padded = [94.0, 154.0, 106.0, 186.0, 285.0, 186.0, 106.0, 154.0, 94.0].map(|y| y + 0.5);
    assert_eq!(flat(&conv2d(&x, &x, &bias, 1)), padded);
    assert_eq!(flat(&conv2d(&x, &x, &bias, 0)), [285.5]);
    // Three pixels of two channels, and two 1x1 filters.
    let x = images(&[1.0, 10.0, 2.0, 20.0, 3.0, 30.0], [1, 1, 3, 2]);
    let w = images(&[1.0, 2.0, -1.0, 0.5], [2, 1, 1, 2]);
    let y = conv2d(&x, &w, &array![0.0, 100.0], 0);
    assert_eq!(flat(&y), [21.0, 104.0, 42.0, 108.0, 63.0, 112.0]);
}

/// Images, filters and padding of a convolution.
struct Convolution {
    x: [usize; 4],
    w: [usize; 4],
    pad: usize,
}

const CONVOLUTIONS: [Convolution; 7] = [
    Convolution { x: [2, 4, 5, 3], w: [2, 3, 3, 3], pad: 1 },
    Convolution { x: [1, 4, 3, 2], w: [3, 3, 3, 2], pad: 0 },
    Convolution { x: [1, 3, 4, 2], w: [2, 3, 3, 2], pad: 2 },
    Convolution { x: [2, 3, 2, 3], w: [4, 1, 1, 3], pad: 0 },
    Convolution { x: [1, 3, 4, 2], w: [2, 5, 5, 2], pad: 2 },
    Convolution { x: [1, 4, 5, 1], w: [2, 2, 3, 1], pad: 1 },
    Convolution { x: [1, 7, 7, 1], w: [2, 7, 7, 1], pad: 0 },
];

impl Convolution {
    fn output(&self) -> [usize; 4] {
        let side = |i: usize| self.x[i] + 2 * self.pad + 1 - self.w[i];
        [self.x[0], side(1), side(2), self.w[0]]
    }

    fn len(shape: [usize; 4]) -> usize {
        shape.iter().product()
    }
}

/// Each output is a sum over an explicitly zero-padded image.
#[test]
fn convolution_is_a_sum_over_the_padded_image() {
    for case in CONVOLUTIONS {
        let Convolution { x: [n, h, w, c], w: [k, r, s, _], pad } = case;
        let (x, weight, bias) = (values("x", n * h * w * c), values("w", k * r * s * c), values("b", k));
        let (ph, pw) = (h + 2 * pad, w + 2 * pad);
        let mut around = vec![0.0; n * ph * pw * c];
        for (pixel, from) in x.chunks_exact(c).enumerate() {
            let (image, row, column) = (pixel / (h * w), pixel / w % h, pixel % w);
            let to = (image * ph + row + pad) * pw + column + pad;
            around[to * c..(to + 1) * c].copy_from_slice(from);
        }
        let [_, oh, ow, _] = case.output();
        let mut expected = Vec::new();
        for at in 0..n * oh * ow * k {
            let (image, row, column, filter) = (at / k / ow / oh, at / k / ow % oh, at / k % ow, at % k);
            let mut sum = bias[filter];
            for tap in 0..r * s {
                let pixel = (image * ph + row + tap / s) * pw + column + tap % s;
                for channel in 0..c {
                    sum += around[pixel * c + channel] * weight[(filter * r * s + tap) * c + channel];
                }
            }
            expected.push(sum);
        }
        let y = conv2d(&images(&x, case.x), &images(&weight, case.w), &Array1::from(bias), pad);
        assert_eq!(y.shape(), case.output());
        assert_near(&flat(&y), &expected, 1e-12, &format!("{:?} by {:?}, pad {pad}", case.x, case.w));
    }
}

#[test]
fn convolution_gradients_are_those_of_finite_differences() {
    for case in CONVOLUTIONS {
        let what = format!("{:?} by {:?}, pad {}", case.x, case.w, case.pad);
        let x = values("x", Convolution::len(case.x));
        let w = values("w", Convolution::len(case.w));
        let b = values("b", case.w[0]);
        let dy = images(&values("dy", Convolution::len(case.output())), case.output());
        let loss = |x: &[f64], w: &[f64], b: &[f64]| {
            let bias = Array1::from(b.to_vec());
            (conv2d(&images(x, case.x), &images(w, case.w), &bias, case.pad) * &dy).sum()
        };
        let gradients = conv2d_gradients(&images(&x, case.x), &images(&w, case.w), &dy, case.pad);
        assert_eq!(gradients.dx.shape(), case.x, "{what}");
        assert_eq!(gradients.dw.shape(), case.w, "{what}");
        let dx = finite_difference(&x, |x| loss(x, &w, &b));
        assert_near(&flat(&gradients.dx), &dx, DIFFERENCES, &format!("{what}: dx"));
        let dw = finite_difference(&w, |w| loss(&x, w, &b));
        assert_near(&flat(&gradients.dw), &dw, DIFFERENCES, &format!("{what}: dw"));
        let db = finite_difference(&b, |b| loss(&x, &w, b));
        assert_near(&flat(&gradients.db), &db, DIFFERENCES, &format!("{what}: db"));
    }
}

#[test]
fn linear_worked_by_hand() {
    let x = array![[1.0, 2.0, 3.0], [-1.0, 0.0, 0.5]];
    let w = array![[1.0, 0.0, -1.0], [2.0, 4.0, 8.0]];
    let y = linear(&x, &w, &array![10.0, -0.5]);
    assert_eq!(y, array![[8.0, 33.5], [8.5, 1.5]]);
}

/// `dx = g W`, `dW = g^T x`, and the bias gradient is the sum over rows.
#[test]
fn linear_gradients_are_those_of_finite_differences() {
    let [n, inputs, outputs] = [3, 5, 4];
    let (x, w) = (values("x", n * inputs), values("w", outputs * inputs));
    let b = values("b", outputs);
    let g = matrix(&values("g", n * outputs), n, outputs);
    let loss = |x: &[f64], w: &[f64], b: &[f64]| {
        let bias = Array1::from(b.to_vec());
        (linear(&matrix(x, n, inputs), &matrix(w, outputs, inputs), &bias) * &g).sum()
    };
    let dx = g.dot(&matrix(&w, outputs, inputs));
    assert_near(&finite_difference(&x, |x| loss(x, &w, &b)), &flat(&dx), DIFFERENCES, "dx");
    let dw = g.t().dot(&matrix(&x, n, inputs));
    assert_near(&finite_difference(&w, |w| loss(&x, w, &b)), &flat(&dw), DIFFERENCES, "dw");
    let db = g.sum_axis(ndarray::Axis(0));
    assert_near(&finite_difference(&b, |b| loss(&x, &w, b)), &flat(&db), DIFFERENCES, "db");
}

#[test]
fn max_pooling_worked_by_hand() {
    let x = images(&[1.0, 5.0, -3.0, 4.0, 2.0, -4.0, -7.0, -9.0, -6.0], [1, 3, 3, 1]);
    assert_eq!(max_pool2d(&x, false), images(&[5.0], [1, 1, 1, 1]));
    // Truncated windows are not padded with zeros.
    assert_eq!(max_pool2d(&x, true), images(&[5.0, -3.0, -7.0, -6.0], [1, 2, 2, 1]));
    let one = images(&[-2.0, -8.0], [1, 1, 1, 2]);
    assert_eq!(max_pool2d(&one, true), one);
    assert!(max_pool2d(&one, false).is_empty());
    // Two images of two rows of four pixels of two channels.
    let first = [0.0, 7.0, 14.0, 21.0, 28.0, 3.0, 10.0, 17.0, 24.0, 31.0, 6.0, 13.0, 20.0, 27.0, 2.0, 9.0];
    let second = [16.0, 23.0, 30.0, 5.0, 12.0, 19.0, 26.0, 1.0, 8.0, 15.0, 22.0, 29.0, 4.0, 11.0, 18.0, 25.0];
    let x = images(&[first, second].concat(), [2, 2, 4, 2]);
    let expected = [24.0, 31.0, 28.0, 27.0, 30.0, 29.0, 26.0, 25.0];
    assert_eq!(max_pool2d(&x, false), images(&expected, [2, 1, 2, 2]));
}

/// The gradient goes to the largest value of each window.
#[test]
fn max_pooling_gradient_is_that_of_finite_differences() {
    for (ceil, pooled) in [(false, 1), (true, 2)] {
        let x = values("x", 27);
        let dy = values("dy", pooled * pooled * 3);
        let mut expected = vec![0.0; 27];
        for (at, dy) in dy.iter().enumerate() {
            let (row, column, channel) = (at / 3 / pooled, at / 3 % pooled, at % 3);
            let inside = |i: &usize| {
                (2 * row..2 * row + 2).contains(&(i / 9))
                    && (2 * column..2 * column + 2).contains(&(i / 3 % 3))
                    && i % 3 == channel
            };
            let best = (0..27).filter(inside).max_by(|a, b| x[*a].total_cmp(&x[*b])).unwrap();
            expected[best] = *dy;
        }
        let loss = |x: &[f64]| -> f64 {
            max_pool2d(&images(x, [1, 3, 3, 3]), ceil).iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        };
        assert_near(&finite_difference(&x, loss), &expected, DIFFERENCES, "max pooling");
    }
}

/// Sums of squares in windows of three channels: 5, 14 and 13; of one: 1, 4 and 9; of five: 14.
#[test]
fn lrn_worked_by_hand() {
    let x = images(&[1.0, 2.0, 3.0], [1, 1, 1, 3]);
    let expected = [1.0 / 3.5, 2.0 / 8.0, 3.0 / 7.5];
    assert_near(&flat(&lrn(&x, 3, 0.5, 1.0, 1.0)), &expected, 1e-15, "window of three");
    let expected = [1.0 / 1.5, 2.0 / 3.0, 3.0 / 5.5];
    assert_near(&flat(&lrn(&x, 1, 0.5, 1.0, 1.0)), &expected, 1e-15, "window of one");
    // (2 + 14)^(3/4) is 8.
    let expected = [1.0 / 8.0, 2.0 / 8.0, 3.0 / 8.0];
    assert_near(&flat(&lrn(&x, 5, 1.0, 0.75, 2.0)), &expected, 1e-15, "window of five");
    // Pixels are independent.
    let pixels = images(&[2.0, 0.0, 0.0, -2.0], [2, 1, 2, 1]);
    assert_near(&flat(&lrn(&pixels, 5, 3.5, 0.75, 2.0)), &[0.25, 0.0, 0.0, -0.25], 1e-15, "pixels");
}

/// `g_i b_i^-beta - 2 a beta x_i * sum over the window of g_j x_j b_j^(-beta-1)`.
#[test]
fn lrn_gradient_is_that_of_finite_differences() {
    for (size, a, beta, k) in
        [(1, 0.5, 0.75, 2.0), (3, 0.5, 1.5, 1.0), (5, 0.2, 0.75, 2.0), (9, 0.5, 0.5, 1.0)]
    {
        let c = 7;
        let (x, g) = (values("x", c), values("g", c));
        let near = |i: usize, j: &usize| i.abs_diff(*j) <= size / 2;
        let base = |i: usize| k + a * (0..c).filter(|j| near(i, j)).map(|j| x[j] * x[j]).sum::<f64>();
        let by = |i: usize| {
            let terms = (0..c).filter(|j| near(i, j)).map(|j| g[j] * x[j] * base(j).powf(-beta - 1.0));
            g[i] * base(i).powf(-beta) - 2.0 * a * beta * x[i] * terms.sum::<f64>()
        };
        let expected: Vec<f64> = (0..c).map(by).collect();
        let loss = |x: &[f64]| -> f64 {
            let y = lrn(&images(x, [1, 1, 1, c]), size, a, beta, k);
            y.iter().zip(&g).map(|(y, g)| y * g).sum()
        };
        assert_near(&finite_difference(&x, loss), &expected, DIFFERENCES, &format!("window of {size}"));
    }
}

/// The exponentials are 1, 2 and 5, with sum 8.
#[test]
fn cross_entropy_worked_by_hand() {
    let row = [0.0, 2f64.ln(), 5f64.ln()];
    let x = matrix(&row.repeat(3), 3, 3);
    let expected = [8f64.ln(), 4f64.ln(), 1.6f64.ln()];
    assert_near(&softmax_cross_entropy(&x, &[0, 1, 2]), &expected, 1e-14, "losses");
    // A shift of all logits does not change the loss.
    let losses = softmax_cross_entropy(&(x + 1e4), &[0, 1, 2]);
    assert_near(&losses, &expected, 1e-11, "far from zero");
    let x = array![[1000.0, 0.0], [1000.0, 0.0], [-1000.0, -1000.0]];
    let losses = softmax_cross_entropy(&x, &[0, 1, 1]);
    assert_near(&losses, &[0.0, 1000.0, 2f64.ln()], 1e-12, "large logits");
    let x = array![[f64::NEG_INFINITY, 3.0]];
    assert_eq!(softmax_cross_entropy(&x, &[1]), [0.0]);
    assert_eq!(softmax_cross_entropy(&array![[7.0]], &[0]), [0.0]);
}

/// The gradient is the posterior, minus one at the target.
#[test]
fn cross_entropy_gradient_is_that_of_finite_differences() {
    let targets = [4, 0, 2];
    let x = values("x", 15);
    let mut expected = Vec::new();
    for (row, target) in x.chunks_exact(5).zip(targets) {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        let gradient = |class: usize| row[class].exp() / sum - f64::from(class as u32 == target);
        expected.extend((0..5).map(gradient));
    }
    let loss = |x: &[f64]| softmax_cross_entropy(&matrix(x, 3, 5), &targets).iter().sum();
    assert_near(&finite_difference(&x, loss), &expected, DIFFERENCES, "cross-entropy");
}
