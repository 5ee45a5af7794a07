//! A convolution with its fused bias and ReLU as a cuDNN operation graph.

use cudarc::cudnn::sys;
use cudarc::cudnn::sys::{cudnnDataType_t as DataType, cudnnPointwiseMode_t as Pointwise};

use super::descriptor::{Descriptor, Kind, Name};
use crate::Result;
use crate::cuda::{ConvolutionKey, ConvolutionPass, Element};

/// Unique IDs of the tensors that have memory.
pub(super) const X: i64 = 1;
pub(super) const W: i64 = 2;
pub(super) const Y: i64 = 3;
pub(super) const BIAS: i64 = 4;

impl ConvolutionKey {
    /// The operation graph, finalised for `handle`, or without a device for `None`.
    pub(super) fn graph(&self, element: Element, handle: Option<sys::cudnnHandle_t>) -> Result<Descriptor> {
        let [n, h, w, c, k, r, pad] =
            [self.n, self.h, self.w, self.c, self.k, self.r, self.pad].map(|size| size as i64);
        let [oh, ow] = [h + 2 * pad - r + 1, w + 2 * pad - r + 1];
        let tensor = |number, size| Tensor { number, size, element: Some(element) }.descriptor();
        let x = tensor(X, [n, c, h, w])?;
        let filters = tensor(W, [k, c, r, r])?;
        let convolution = convolution(pad)?;
        let operations = match self.pass {
            ConvolutionPass::Forward { relu } => {
                let (size, bias) = ([n, k, oh, ow], tensor(BIAS, [1, k, 1, 1])?);
                let inner = |number| Tensor { number, size, element: None }.descriptor();
                let (products, sums) = (inner(10)?, inner(11)?);
                let y = tensor(Y, size)?;
                let first = Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)?
                    .part(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, &convolution)?
                    .part(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, &x)?
                    .part(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, &filters)?
                    .part(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, &products)?
                    .set(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, &[1f32])?
                    .set(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, &[0f32])?
                    .finish()?;
                let biased = if relu { &sums } else { &y };
                let add = pointwise(Pointwise::CUDNN_POINTWISE_ADD, &products, Some(&bias), biased)?;
                let mut operations = vec![first, add];
                if relu {
                    operations.push(pointwise(Pointwise::CUDNN_POINTWISE_RELU_FWD, &sums, None, &y)?);
                }
                operations
            }
            ConvolutionPass::GradInput => {
                let dy = tensor(Y, [n, k, oh, ow])?;
                let only =
                    Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR)?
                        .part(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, &convolution)?
                        .part(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, &filters)?
                        .part(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, &dy)?
                        .part(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, &x)?
                        .set(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, &[1f32])?
                        .set(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, &[0f32])?
                        .finish()?;
                vec![only]
            }
            ConvolutionPass::GradWeight => {
                let dy = tensor(Y, [n, k, oh, ow])?;
                let only =
                    Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR)?
                        .part(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, &convolution)?
                        .part(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, &x)?
                        .part(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, &dy)?
                        .part(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, &filters)?
                        .set(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, &[1f32])?
                        .set(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, &[0f32])?
                        .finish()?;
                vec![only]
            }
        };
        let mut graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
        if let Some(handle) = handle {
            graph = graph.handle(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, &handle)?;
        }
        graph.parts(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &operations)?.finish()
    }
}

/// A tensor of a graph, with size `[n, c, h, w]`. Without an element type it is virtual: only in registers,
/// in float.
struct Tensor {
    number: i64,
    size: [i64; 4],
    element: Option<Element>,
}

impl Tensor {
    fn descriptor(&self) -> Result<Descriptor> {
        let [_, c, h, w] = self.size;
        let data_type = match self.element {
            Some(Element::Bf16) => DataType::CUDNN_DATA_BFLOAT16,
            Some(Element::F32) | None => DataType::CUDNN_DATA_FLOAT,
        };
        Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, &[data_type])?
            .integers(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, &self.size)?
            // Channels last (NHWC).
            .integers(Name::CUDNN_ATTR_TENSOR_STRIDES, &[c * h * w, 1, c * w, c])?
            .integers(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[self.number])?
            .integers(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[16])?
            .set(Name::CUDNN_ATTR_TENSOR_IS_VIRTUAL, &[self.element.is_none()])?
            .finish()
    }
}

/// Cross-correlation with stride 1, accumulated in float.
fn convolution(pad: i64) -> Result<Descriptor> {
    let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
    let float = DataType::CUDNN_DATA_FLOAT;
    Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, &[float])?
        .set(Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE, &[mode])?
        .integers(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2])?
        .integers(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &[pad, pad])?
        .integers(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &[pad, pad])?
        .integers(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &[1, 1])?
        .integers(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, &[1, 1])?
        .finish()
}

/// `y = mode(x, b)`.
fn pointwise(mode: Pointwise, x: &Descriptor, b: Option<&Descriptor>, y: &Descriptor) -> Result<Descriptor> {
    let float = DataType::CUDNN_DATA_FLOAT;
    let what = Descriptor::new(Kind::CUDNN_BACKEND_POINTWISE_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_POINTWISE_MODE, &[mode])?
        .set(Name::CUDNN_ATTR_POINTWISE_MATH_PREC, &[float])?
        .finish()?;
    let mut operation = Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)?
        .part(Name::CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &what)?
        .part(Name::CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x)?
        .part(Name::CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y)?;
    if let Some(b) = b {
        operation = operation.part(Name::CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b)?;
    }
    operation.finish()
}
