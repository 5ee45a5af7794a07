//! Protocols: the views of an image that a network evaluates, and how their posteriors are combined.

use serde::{Deserialize, Serialize};
use vgg_data::{GRID, Geometry, Interpolation, MAX_SIDE, Region, View};
use vgg_layers::PoolRounding;

use crate::{Error, Result};

/// Which views of an image are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The central crop, with the network that takes crops.
    Centre,
    /// The whole image, with the fully convolutional network.
    Dense,
    /// Crops on a 5 x 5 grid, with the network that takes crops.
    MultiCrop,
    /// The mean of the posteriors of dense and multi-crop evaluation.
    Combined,
}

/// A view and its weight in the image's posterior; the weights of all views sum to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WeightedView {
    /// The view.
    pub view: View,
    /// Its weight.
    pub weight: f64,
}

/// How a dense score map is pooled to a posterior. The paper says "spatially averaged (sum-pooled)".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DensePool {
    /// Mean of the scores, then softmax: the paper's literal order.
    ScoreMean,
    /// Softmax in every cell, then the mean.
    ProbMean,
    /// Sum of the scores, then softmax: sharper posteriors.
    ScoreSum,
}

/// A protocol with all its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Which views are evaluated.
    pub protocol: Protocol,
    /// Test scales; posteriors are averaged over them.
    pub test_scales: Vec<usize>,
    /// Whether horizontally flipped views are evaluated too.
    pub flip: bool,
    /// Interpolation for rescaling.
    pub interpolation: Interpolation,
    /// How images are rescaled, and where a centre crop lies.
    #[serde(default, skip_serializing_if = "Geometry::is_paper")]
    pub geometry: Geometry,
    /// How a dense score map is pooled.
    pub dense_pool: DensePool,
    /// How the dense network's max pooling rounds odd sides; `None` keeps the network's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_rounding: Option<PoolRounding>,
}

/// Preprocessing of pixels before the first convolution: `(pixel + offset) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preprocessing {
    /// Negated mean per channel, for pixels of 0..255.
    pub offset: [f32; 3],
    /// Factor per channel.
    pub scale: [f32; 3],
}

impl Evaluation {
    /// The views of an image, ordered so that views of one size are adjacent.
    ///
    /// # Errors
    /// [`Error::Config`] if there are no test scales, or one is below the crop or above [`MAX_SIDE`].
    pub fn views(&self, crop: usize) -> Result<Vec<WeightedView>> {
        if self.test_scales.is_empty() {
            return Err(Error::Config("test_scales is empty; give at least one".into()));
        }
        if let Some(side) = self.test_scales.iter().find(|side| **side < crop) {
            return Err(Error::Config(format!(
                "test scale {side} is smaller than the network's crop, {crop}"
            )));
        }
        if let Some(side) = self.test_scales.iter().find(|side| **side > MAX_SIDE) {
            return Err(Error::Config(format!("test scale {side} is larger than {MAX_SIDE}")));
        }
        let grid = || {
            (0..GRID * GRID)
                .map(|i| Region::Grid { crop, row: i / GRID, column: i % GRID })
                .collect::<Vec<_>>()
        };
        Ok(match self.protocol {
            Protocol::Centre => self.of_regions(&[Region::Centre(crop)], 1.0),
            Protocol::Dense => self.of_regions(&[Region::Whole], 1.0),
            Protocol::MultiCrop => self.of_regions(&grid(), 1.0),
            Protocol::Combined => {
                let whole = self.of_regions(&[Region::Whole], 0.5);
                [whole, self.of_regions(&grid(), 0.5)].concat()
            }
        })
    }

    /// Views of these regions at all test scales, and flipped if `flip`; they share the weight `part` evenly.
    fn of_regions(&self, regions: &[Region], part: f64) -> Vec<WeightedView> {
        let flips: &[bool] = if self.flip { &[false, true] } else { &[false] };
        let mut views = Vec::new();
        for test_scale in self.test_scales.iter().copied() {
            for region in regions.iter().copied() {
                views.extend(flips.iter().map(|flip| View {
                    test_scale,
                    geometry: self.geometry,
                    region,
                    flip: *flip,
                }));
            }
        }
        let weight = part / views.len() as f64;
        views.into_iter().map(|view| WeightedView { view, weight }).collect()
    }
}

impl Protocol {
    /// All protocols, the cheapest first.
    pub const ALL: [Protocol; 4] =
        [Protocol::Centre, Protocol::Dense, Protocol::MultiCrop, Protocol::Combined];

    /// Name in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Centre => "centre",
            Protocol::Dense => "dense",
            Protocol::MultiCrop => "multi-crop",
            Protocol::Combined => "combined",
        }
    }

    /// Default of [`Evaluation::flip`]: false for [`Protocol::Centre`], true for the others.
    pub fn flips(self) -> bool {
        self != Protocol::Centre
    }
}

impl std::str::FromStr for Protocol {
    type Err = String;
    fn from_str(name: &str) -> std::result::Result<Protocol, String> {
        let names = Protocol::ALL.map(Protocol::name).join(", ");
        let found = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name);
        found.ok_or_else(|| format!("unknown protocol {name}; expected one of {names}"))
    }
}

impl std::str::FromStr for DensePool {
    type Err = String;
    fn from_str(name: &str) -> std::result::Result<DensePool, String> {
        match name {
            "score-mean" => Ok(DensePool::ScoreMean),
            "prob-mean" => Ok(DensePool::ProbMean),
            "score-sum" => Ok(DensePool::ScoreSum),
            _ => Err(format!("unknown pooling {name}; expected score-mean, prob-mean or score-sum")),
        }
    }
}
