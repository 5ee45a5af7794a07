//! What a network is, before it has any memory: its layers with their shapes.

use serde::{Deserialize, Serialize};
pub use vgg_tensor::ops::lrn::LrnStyle;
pub use vgg_tensor::ops::max_pool2d::PoolRounding;

use crate::{Config, Conv, Error, Result, Stages};

/// Outputs of a fully connected layer at most: numbers of parameters then fit 64 bits many times over.
const MAX_OUTPUTS: usize = 1 << 20;

/// Side of the crop at most.
const MAX_CROP: usize = 1024;

/// A network: a column of Table 1 or a custom one, and how it is scaled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Column of Table 1, or custom stages.
    #[serde(alias = "stages")]
    pub config: Config,
    /// Factor on the numbers of filters, which are then rounded to multiples of 8; the paper: 1.
    pub width: f64,
    /// Number of classes.
    pub classes: usize,
    /// Outputs of fc6 and fc7; the paper: 4096 each.
    pub head: [usize; 2],
    /// Side of the training crop in pixels, a multiple of [`NetworkSpec::stride`], 32 in the paper; the paper: 224.
    pub crop: usize,
    /// Rate of dropout after fc6 and fc7; the paper: 0.5.
    pub dropout: f32,
    /// How the normalisation of A-LRN is meant.
    pub lrn_style: LrnStyle,
    /// How pooling rounds odd sides. Without effect on crops; Caffe rounds up.
    pub pool_rounding: PoolRounding,
}

/// A layer with its shapes for one crop.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// The paper's name, such as `conv3_2`, `pool3` or `fc6`.
    pub name: String,
    /// What it does.
    pub kind: LayerKind,
    /// `[H, W, C]` of its input.
    pub input: [usize; 3],
    /// `[H, W, C]` of its output; fully connected layers have one cell.
    pub output: [usize; 3],
}

/// What a layer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// Convolution at stride 1 that keeps the size, with ReLU.
    Conv {
        /// Side of the filters.
        kernel: usize,
    },
    /// Local response normalisation across channels.
    Lrn,
    /// Max-pooling 2x2 at stride 2.
    MaxPool,
    /// Fully connected.
    Linear {
        /// Whether a ReLU follows.
        relu: bool,
    },
    /// Dropout in training.
    Dropout,
}

impl NetworkSpec {
    /// The network as in the paper: full width, 1000 classes, crop 224.
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
    /// [`Error::Spec`] if a size makes no network.
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

    /// The convolutions with `width` applied to their numbers of filters.
    ///
    /// # Errors
    /// As [`NetworkSpec::layers`].
    pub fn stages(&self) -> Result<Stages> {
        self.check()?;
        let scaled = |conv: &Conv| Conv { filters: scaled(conv.filters, self.width), ..*conv };
        Stages::new(self.config.stages().iter().map(|convs| convs.iter().map(scaled).collect()).collect())
    }

    /// Names and shapes of the parameters as files have them, each weight before its bias.
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

    /// Total stride in pixels of the last pooling layer: 2 to the power of the number of stages; 32 in the paper.
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
            return bad(format!("width {} is not above 0 and at most 4", self.width));
        }
        let sizes = [self.classes, self.head[0], self.head[1]];
        if sizes.iter().any(|size| !(1..=MAX_OUTPUTS).contains(size)) {
            let (classes, head) = (self.classes, self.head);
            return bad(format!("classes {classes} and head {head:?} must be between 1 and {MAX_OUTPUTS}"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return bad(format!("dropout {} is not in [0, 1)", self.dropout));
        }
        Ok(())
    }
}

impl LayerSpec {
    /// Shape of the weights as files have it: `[K, C, R, S]` or `[out, in]`; `None` for a layer without.
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

    /// Inputs of one output, for initialisation.
    pub(crate) fn fan_in(&self) -> usize {
        self.weight_shape().map_or(0, |shape| shape[1..].iter().product())
    }

    /// Outputs that one input reaches, for initialisation.
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
