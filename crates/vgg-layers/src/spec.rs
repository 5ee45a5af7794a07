//! The specification of a network: its layers and their shapes, without any memory.

use serde::{Deserialize, Serialize};
pub use vgg_tensor::ops::lrn::LrnStyle;
pub use vgg_tensor::ops::max_pool2d::PoolRounding;

use crate::{Config, Conv, Error, Result, Stages};

/// Maximum number of outputs of a fully connected layer; parameter counts then fit 64 bits by a wide margin.
const MAX_OUTPUTS: usize = 1 << 20;

/// Maximum side of the crop in pixels.
const MAX_CROP: usize = 1024;

/// The specification of a network: a column of Table 1 or custom stages, and its sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Column of Table 1, or custom stages.
    #[serde(alias = "stages")]
    pub config: Config,
    /// Multiplies the numbers of filters. Unless it is 1, the results are rounded to multiples of 8, at least
    /// 8. Paper: 1.
    pub width: f64,
    /// Number of classes.
    pub classes: usize,
    /// Number of outputs of fc6 and fc7. Paper: 4096 each.
    pub head: [usize; 2],
    /// Side of the training crop in pixels, a multiple of [`NetworkSpec::stride`]. Paper: 224.
    pub crop: usize,
    /// Dropout rate after fc6 and fc7. Paper: 0.5.
    pub dropout: f32,
    /// Formula of the local response normalisation of A-LRN.
    pub lrn_style: LrnStyle,
    /// Rounding of odd sides in pooling. It has no effect on crops; Caffe rounds up.
    pub pool_rounding: PoolRounding,
}

/// A layer with its shapes for one crop.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// The paper's name, such as `conv3_2`, `pool3` or `fc6`.
    pub name: String,
    /// Type of the layer.
    pub kind: LayerKind,
    /// `[H, W, C]` of the input.
    pub input: [usize; 3],
    /// `[H, W, C]` of the output; `[1, 1, C]` for fully connected layers.
    pub output: [usize; 3],
}

/// The type of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// Convolution with stride 1 and padding that keeps the spatial size, then ReLU.
    Conv {
        /// Kernel size.
        kernel: usize,
    },
    /// Local response normalisation across channels.
    Lrn,
    /// 2x2 max pooling with stride 2.
    MaxPool,
    /// Fully connected.
    Linear {
        /// Whether a ReLU follows.
        relu: bool,
    },
    /// Dropout in training.
    Dropout,
}

/// Names of the classes of a network whose file has none: `unnamed0` to `unnamed9`.
pub fn unnamed_classes(count: usize) -> Vec<String> {
    let digits = count.saturating_sub(1).to_string().len();
    (0..count).map(|i| format!("unnamed{i:0digits$}")).collect()
}

impl NetworkSpec {
    /// The paper's network: full width, 1000 classes, crop 224.
    pub fn paper(config: Config) -> NetworkSpec {
        NetworkSpec {
            config,
            width: 1.0,
            classes: 1000,
            head: [4096, 4096],
            crop: 224,
            dropout: 0.5,
            lrn_style: LrnStyle::AlexNet,
            pool_rounding: PoolRounding::Floor,
        }
    }

    /// The layers in order, with shapes for one crop.
    ///
    /// # Errors
    /// [`Error::Spec`] if a value is out of range.
    pub fn layers(&self) -> Result<Vec<LayerSpec>> {
        let mut layers = Layers { list: Vec::new(), at: [self.crop, self.crop, 3] };
        for (stage, convs) in (1..).zip(self.stages()?.iter()) {
            for (i, Conv { filters, kernel }) in (1..).zip(convs) {
                let [h, w, _] = layers.at;
                layers.push(
                    format!("conv{stage}_{i}"),
                    LayerKind::Conv { kernel: *kernel },
                    [h, w, *filters],
                );
                if self.config == Config::ALrn && stage == 1 {
                    layers.push("lrn1".into(), LayerKind::Lrn, layers.at);
                }
            }
            let [h, w, c] = layers.at;
            layers.push(format!("pool{stage}"), LayerKind::MaxPool, [h / 2, w / 2, c]);
        }
        let [fc6, fc7] = self.head;
        layers.push("fc6".into(), LayerKind::Linear { relu: true }, [1, 1, fc6]);
        layers.push("drop6".into(), LayerKind::Dropout, layers.at);
        layers.push("fc7".into(), LayerKind::Linear { relu: true }, [1, 1, fc7]);
        layers.push("drop7".into(), LayerKind::Dropout, layers.at);
        layers.push("fc8".into(), LayerKind::Linear { relu: false }, [1, 1, self.classes]);
        Ok(layers.list)
    }

    /// The convolutional stages with `width` applied to the numbers of filters.
    ///
    /// # Errors
    /// As [`NetworkSpec::layers`].
    pub fn stages(&self) -> Result<Stages> {
        self.check()?;
        let scaled = |conv: &Conv| Conv { filters: scaled(conv.filters, self.width), ..*conv };
        Stages::new(self.config.stages().iter().map(|convs| convs.iter().map(scaled).collect()).collect())
    }

    /// Names and shapes of the parameters in weights files, each weight before its bias.
    ///
    /// # Errors
    /// As [`NetworkSpec::layers`].
    pub fn file_shapes(&self) -> Result<Vec<(String, Vec<usize>)>> {
        let of = |layer: LayerSpec| {
            let shape = layer.weight_shape()?;
            let filters = shape[0];
            Some([(format!("{}.weight", layer.name), shape), (format!("{}.bias", layer.name), vec![filters])])
        };
        Ok(self.layers()?.into_iter().filter_map(of).flatten().collect())
    }

    /// Number of weights and biases.
    ///
    /// # Errors
    /// As [`NetworkSpec::layers`].
    pub fn parameter_count(&self) -> Result<usize> {
        Ok(self.layers()?.iter().map(LayerSpec::parameter_count).sum())
    }

    /// Total stride of the last pooling layer in pixels: 2 to the power of the number of stages. Paper: 32.
    pub fn stride(&self) -> usize {
        1 << self.config.stages().count()
    }

    fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::Spec(what));
        let stride = self.stride();
        if self.crop == 0 || !self.crop.is_multiple_of(stride) || self.crop > MAX_CROP {
            return bad(format!(
                "crop {} is not a multiple of {stride} between {stride} and {MAX_CROP}",
                self.crop
            ));
        }
        if !(self.width > 0.0 && self.width <= 4.0) {
            return bad(format!("width {:?} must be above 0 and at most 4", self.width));
        }
        let sizes = [self.classes, self.head[0], self.head[1]];
        if sizes.iter().any(|size| !(1..=MAX_OUTPUTS).contains(size)) {
            let (classes, head) = (self.classes, self.head);
            return bad(format!("classes {classes} and head {head:?} must be between 1 and {MAX_OUTPUTS}"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return bad(format!("dropout {} must be in [0, 1)", self.dropout));
        }
        Ok(())
    }
}

impl LayerSpec {
    /// Shape of the weights in weights files: `[K, C, R, S]` or `[out, in]`; `None` if there are no weights.
    pub fn weight_shape(&self) -> Option<Vec<usize>> {
        match self.kind {
            LayerKind::Conv { kernel } => Some(vec![self.output[2], self.input[2], kernel, kernel]),
            LayerKind::Linear { .. } => Some(vec![self.output[2], self.input.iter().product()]),
            _ => None,
        }
    }

    /// Number of weights and biases.
    pub fn parameter_count(&self) -> usize {
        self.weight_shape().map_or(0, |shape| shape.iter().product::<usize>() + shape[0])
    }

    /// Number of inputs of an output, for initialisation.
    pub(crate) fn fan_in(&self) -> usize {
        self.weight_shape().map_or(0, |shape| shape[1..].iter().product())
    }

    /// Number of outputs that an input affects, for initialisation.
    pub(crate) fn fan_out(&self) -> usize {
        self.weight_shape().map_or(0, |shape| shape[0] * shape[2..].iter().product::<usize>())
    }
}

struct Layers {
    list: Vec<LayerSpec>,
    at: [usize; 3],
}

impl Layers {
    fn push(&mut self, name: String, kind: LayerKind, output: [usize; 3]) {
        self.list.push(LayerSpec { name, kind, input: self.at, output });
        self.at = output;
    }
}

/// Number of filters at a width: unchanged at width 1, otherwise the nearest multiple of 8, at least 8.
fn scaled(filters: usize, width: f64) -> usize {
    if width == 1.0 {
        return filters;
    }
    let eighths = (filters as f64 * width / 8.0).round() as usize;
    8 * eighths.max(1)
}
