//! What a network is shown of an image, and how the answers are put together.

use serde::{Deserialize, Serialize};
use vgg_data::{GRID, Interpolation, MAX_SIDE, Region, View};
use vgg_layers::PoolRounding;

use crate::{Error, Result};

/// Which parts of an image are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The central crop, to the classic network.
    Centre,
    /// The whole image, to the fully convolutional network.
    Dense,
    /// Crops on a grid of 5 x 5, to the classic network.
    MultiCrop,
    /// The mean of what dense evaluation and multi-crop evaluation say.
    Combined,
}

/// A view and its part in the posterior of the image; the parts of all views add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WeightedView {
    /// What is shown.
    pub view: View,
    /// Its part.
    pub weight: f64,
}

/// How a dense map of class scores becomes one vector. The paper says "spatially averaged (sum-pooled)".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DensePool {
    /// Mean of the scores, then softmax: the literal order, and sane.
    ScoreMean,
    /// Softmax in every cell, then the mean.
    ProbMean,
    /// Sum of the scores, then softmax: sharper.
    ScoreSum,
}

/// A protocol with everything that it leaves open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Which parts.
    pub protocol: Protocol,
    /// Smallest sides; posteriors are averaged over them.
    pub test_scales: Vec<usize>,
    /// Whether the mirrored image is shown too.
    pub flip: bool,
    /// Interpolation.
    pub interpolation: Interpolation,
    /// How a dense map becomes a vector.
    pub dense_pool: DensePool,
    /// How the dense network's pooling rounds odd sides, if not as the network says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_rounding: Option<PoolRounding>,
}

/// What is done to pixels before the first convolution: `(pixel + offset) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preprocessing {
    /// Minus the mean, 0..255.
    pub offset: [f32; 3],
    /// Factor per channel.
    pub scale: [f32; 3],
}

impl Evaluation {
    /// The views of an image, those of one size next to each other.
    ///
    /// # Errors
    /// [`Error::Config`] if there are none or a side is below the crop.
    pub fn views(&self, crop: usize) -> Result<Vec<WeightedView>> {
        if self.test_scales.is_empty() {
            return Err(Error::Config("test_scales is empty; give at least one".into()));
        }
        if let Some(side) = self.test_scales.iter().find(|side| **side < crop) {
            return Err(Error::Config(format!(
                "test side {side} is smaller than the network's crop, {crop}"
            )));
        }
        if let Some(side) = self.test_scales.iter().find(|side| **side > MAX_SIDE) {
            return Err(Error::Config(format!("test side {side} is larger than {MAX_SIDE}")));
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

    /// These regions at every test side, mirrored too if the protocol says so; `part` is divided among them evenly.
    fn of_regions(&self, regions: &[Region], part: f64) -> Vec<WeightedView> {
        let flips: &[bool] = if self.flip { &[false, true] } else { &[false] };
        let mut views = Vec::new();
        for test_scale in self.test_scales.iter().copied() {
            for region in regions.iter().copied() {
                views.extend(flips.iter().map(|flip| View { test_scale, region, flip: *flip }));
            }
        }
        let weight = part / views.len() as f64;
        views.into_iter().map(|view| WeightedView { view, weight }).collect()
    }
}

impl Protocol {
    /// All of them, the cheapest first.
    pub const ALL: [Protocol; 4] =
        [Protocol::Centre, Protocol::Dense, Protocol::MultiCrop, Protocol::Combined];

    /// Name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Centre => "centre",
            Protocol::Dense => "dense",
            Protocol::MultiCrop => "multi-crop",
            Protocol::Combined => "combined",
        }
    }

    /// Whether mirrored views are shown too unless it is said otherwise: a single central crop is not.
    pub fn flips(self) -> bool {
        self != Protocol::Centre
    }
}

impl std::str::FromStr for Protocol {
    type Err = String;
    fn from_str(name: &str) -> std::result::Result<Protocol, String> {
        let names = Protocol::ALL.map(Protocol::name).join(", ");
        let found = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name);
        found.ok_or_else(|| format!("there is no protocol {name}; it is one of {names}"))
    }
}

impl std::str::FromStr for DensePool {
    type Err = String;
    fn from_str(name: &str) -> std::result::Result<DensePool, String> {
        match name {
            "score-mean" => Ok(DensePool::ScoreMean),
            "prob-mean" => Ok(DensePool::ProbMean),
            "score-sum" => Ok(DensePool::ScoreSum),
            _ => Err(format!("there is no pooling {name}; it is score-mean, prob-mean or score-sum")),
        }
    }
}
