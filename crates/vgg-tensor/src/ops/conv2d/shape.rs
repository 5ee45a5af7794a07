//! The sizes of a convolution, and their limits.

use crate::{Error, Result, Shape};

const OP: &str = "conv2d";
/// Most pixels of an image. One side may exceed 1024 if the other is shorter.
const MAX_PIXELS: usize = 1024 * 1024;
const MAX_IMAGES: usize = 256;

/// Sizes of a convolution: input `[n, h, w, c]`, filters `[k, r, s, c]`, output `[n, oh, ow, k]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvShape {
    pub(crate) n: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) c: usize,
    pub(crate) k: usize,
    pub(crate) r: usize,
    pub(crate) s: usize,
    pub(crate) pad: usize,
    pub(crate) oh: usize,
    pub(crate) ow: usize,
}

impl ConvShape {
    /// The sizes of a convolution, from the shapes of its operands.
    pub(crate) fn of(x: Shape, weight: Shape, pad: usize) -> Result<ConvShape> {
        let &[n, h, w, c] = x.dims() else {
            return Err(Error::Rank { op: OP, operand: "x", expected: "[N, H, W, C]", got: x });
        };
        let &[k, r, s, wc] = weight.dims() else {
            return Err(Error::Rank { op: OP, operand: "weight", expected: "[K, R, S, C]", got: weight });
        };
        if wc != c {
            let expected = Shape::from([k, r, s, c]);
            return Err(Error::Shape { op: OP, operand: "weight", expected, got: weight });
        }
        let unsupported = |reason| Err(Error::Unsupported { op: OP, reason });
        if x.is_empty() || weight.is_empty() {
            return unsupported(format!("x {x} or weight {weight} is empty"));
        }
        if n > MAX_IMAGES || h.saturating_mul(w) > MAX_PIXELS {
            return unsupported(format!(
                "x has {n} images of {h}x{w}; at most {MAX_IMAGES} images and {MAX_PIXELS} pixels per image are \
                 allowed; split the batch or shrink the images"
            ));
        }
        if r != s {
            return unsupported(format!("the {r}x{s} filter must be square"));
        }
        if pad >= r {
            return unsupported(format!("padding {pad} must be smaller than the {r}x{s} filter"));
        }
        if h + 2 * pad < r || w + 2 * pad < s {
            return unsupported(format!(
                "a {h}x{w} image padded by {pad} is smaller than the {r}x{s} filter"
            ));
        }
        let (oh, ow) = (h + 2 * pad - r + 1, w + 2 * pad - s + 1);
        Ok(ConvShape { n, h, w, c, k, r, s, pad, oh, ow })
    }

    pub(crate) fn input(&self) -> Shape {
        Shape::from([self.n, self.h, self.w, self.c])
    }

    pub(crate) fn output(&self) -> Shape {
        Shape::from([self.n, self.oh, self.ow, self.k])
    }

    /// Number of values in a filter.
    pub(crate) fn depth(&self) -> usize {
        self.r * self.s * self.c
    }

    /// The convolution with rotated filters that computes grad-input: from `[n, oh, ow, k]` back to `[n, h,
    /// w, c]`. Filters are square, so one padding applies to both axes.
    pub(crate) fn mirrored(&self) -> ConvShape {
        ConvShape {
            h: self.oh,
            w: self.ow,
            c: self.k,
            k: self.c,
            pad: self.r - 1 - self.pad,
            oh: self.h,
            ow: self.w,
            ..*self
        }
    }
}
