//! Inference on images that are too large to be computed at once: in overlapping tiles, whose outputs are put together.
//! The overlap covers the receptive field, so the result is that of the whole image, up to the rounding of the
//! convolution algorithm, which depends on the size of its input.

use std::ops::Range;

use ndarray::{Array4, ArrayView4, s};
use vgg_tensor::Tensor;

use crate::{Error, LayerKind, LayerSpec, Network, PoolRounding, Result};

/// Default of the largest number of pixels that are computed at once: the largest image of a convolution.
pub(crate) const MOST_PIXELS: usize = 1024 * 1024;

/// What determines the outputs of a chain of layers along one axis.
struct Window {
    /// Distance of neighbouring outputs in the input.
    stride: usize,
    /// Number of input pixels that an output depends on.
    size: usize,
    /// Number of these before `stride` times the index of the output.
    before: usize,
}

/// A tile along one axis: a range of the input, and the range of the outputs that it provides.
struct Span {
    input: Range<usize>,
    outputs: Range<usize>,
}

impl Network {
    /// Activations `[N, h, w, C]` after the first `layers` layers, for images `[N, H, W, 3]` of any size.
    pub(crate) fn infer_in_tiles(
        &self,
        x: &Tensor,
        rounding: PoolRounding,
        layers: usize,
        most_pixels: usize,
    ) -> Result<Tensor> {
        let &[n, h, w, _] = x.shape().dims() else { return self.infer_images(x, rounding, layers) };
        if h * w <= most_pixels {
            return self.infer_images(x, rounding, layers);
        }
        let chain: Vec<&LayerSpec> = self.layers[..layers].iter().map(|layer| &layer.spec).collect();
        let window = Window::of(&chain);
        let side = most_pixels.isqrt();
        let lengths = if h <= side {
            [h, most_pixels / h]
        } else if w <= side {
            [most_pixels / w, w]
        } else {
            [side; 2]
        };
        let outputs = [h, w].map(|length| outputs(&chain, length, rounding));
        let spans = |axis: usize| window.spans([h, w][axis], outputs[axis], lengths[axis]);
        let (rows, columns) = (spans(0), spans(1));
        let images = x.to_array();
        let images = images.view().into_dimensionality::<ndarray::Ix4>();
        let images: ArrayView4<f32> = images.map_err(|e| Error::Internal(format!("tiles: {e}")))?;
        let channels = self.layers[layers - 1].spec.output[2];
        let mut whole = Array4::<f32>::zeros((n, outputs[0], outputs[1], channels));
        for row in &rows {
            for column in &columns {
                let tile = images.slice(s![.., row.input.clone(), column.input.clone(), ..]);
                let tile = Tensor::from_array(tile.as_standard_layout().view(), x.device())?;
                let y = self.infer_images(&tile, rounding, layers)?.to_array();
                let [own_rows, own_columns] = [row, column].map(|span| span.own(window.stride));
                whole
                    .slice_mut(s![.., row.outputs.clone(), column.outputs.clone(), ..])
                    .assign(&y.slice(s![.., own_rows, own_columns, ..]));
            }
        }
        Ok(Tensor::from_array(whole.view(), x.device())?)
    }
}

/// Number of outputs of a chain of layers for an input of this length.
fn outputs(chain: &[&LayerSpec], length: usize, rounding: PoolRounding) -> usize {
    chain.iter().fold(length, |length, layer| match layer.kind {
        LayerKind::MaxPool if rounding == PoolRounding::Ceil => length.div_ceil(2),
        LayerKind::MaxPool => length / 2,
        LayerKind::Linear { .. } => (length + 1).saturating_sub(layer.input[0]),
        _ => length,
    })
}

impl Window {
    fn of(chain: &[&LayerSpec]) -> Window {
        let mut window = Window { stride: 1, size: 1, before: 0 };
        for layer in chain {
            match layer.kind {
                LayerKind::Conv { kernel } => {
                    window.size += (kernel - 1) * window.stride;
                    window.before += kernel / 2 * window.stride;
                }
                LayerKind::MaxPool => {
                    window.size += window.stride;
                    window.stride *= 2;
                }
                LayerKind::Linear { .. } => window.size += (layer.input[0] - 1) * window.stride,
                _ => {}
            }
        }
        window
    }

    /// Divides an axis of `length` pixels and `outputs` outputs into tiles of at most about `most` pixels.
    fn spans(&self, length: usize, outputs: usize, most: usize) -> Vec<Span> {
        if length <= most {
            return vec![Span { input: 0..length, outputs: 0..outputs }];
        }
        // A tile starts at a multiple of the stride, so that its outputs are those of the whole image.
        let each = (most.saturating_sub(self.size + self.stride) / self.stride).max(1);
        (0..outputs)
            .step_by(each)
            .map(|first| {
                let end = (first + each).min(outputs);
                let start = (first * self.stride).saturating_sub(self.before) / self.stride * self.stride;
                let last = ((end - 1) * self.stride + self.size).saturating_sub(self.before);
                // The last tile reaches to the end, where pooling may round.
                let stop =
                    if end == outputs { length } else { last.next_multiple_of(self.stride).min(length) };
                Span { input: start..stop, outputs: first..end }
            })
            .collect()
    }
}

impl Span {
    /// The outputs among those of the tile.
    fn own(&self, stride: usize) -> Range<usize> {
        let skipped = self.input.start / stride;
        self.outputs.start - skipped..self.outputs.end - skipped
    }
}
