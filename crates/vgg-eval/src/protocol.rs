//! What a network is shown of an image, and how the answers are put together.

use serde::{Deserialize, Serialize};
use vgg_data::{Filter, MAX_SIDE, Region, View};

use crate::{Error, Result};

/// Which parts of an image are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The central crop, to the classic network.
    Centre,
    /// The whole image, to the fully convolutional network.
    Dense,
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
    pub test_sides: Vec<usize>,
    /// Whether the mirrored image is shown too.
    pub flip: bool,
    /// Interpolation.
    pub filter: Filter,
    /// How a dense map becomes a vector.
    pub dense_pool: DensePool,
}

/// What is done to pixels before the first convolution: `(pixel + offset) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preprocessing {
    /// Minus the mean, 0..255.
    pub offset: [f32; 3],
    /// Factor per channel.
    pub scale: [f32; 3],
}

/// From offset and scale.
impl From<([f32; 3], [f32; 3])> for Preprocessing {
    fn from((offset, scale): ([f32; 3], [f32; 3])) -> Preprocessing {
        Preprocessing { offset, scale }
    }
}

impl Evaluation {
    /// The views of an image, those of one size next to each other.
    ///
    /// # Errors
    /// [`Error::Config`] if there are none or a side is below the crop.
    pub fn views(&self, crop: usize) -> Result<Vec<View>> {
        if self.test_sides.is_empty() {
            return Err(Error::Config("test_sides is empty; give at least one".into()));
        }
        if let Some(side) = self.test_sides.iter().find(|side| **side < crop) {
            return Err(Error::Config(format!(
                "test side {side} is smaller than the network's crop, {crop}"
            )));
        }
        if let Some(side) = self.test_sides.iter().find(|side| **side > MAX_SIDE) {
            return Err(Error::Config(format!("test side {side} is larger than {MAX_SIDE}")));
        }
        let region = match self.protocol {
            Protocol::Centre => Region::Centre(crop),
            Protocol::Dense => Region::Whole,
        };
        let flips: &[bool] = if self.flip { &[false, true] } else { &[false] };
        let view = |test_side: usize| flips.iter().map(move |flip| View { test_side, region, flip: *flip });
        Ok(self.test_sides.iter().flat_map(|side| view(*side)).collect())
    }
}

impl Protocol {
    /// Name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Centre => "centre",
            Protocol::Dense => "dense",
        }
    }
}

impl std::str::FromStr for Protocol {
    type Err = String;
    fn from_str(name: &str) -> std::result::Result<Protocol, String> {
        match name {
            "centre" => Ok(Protocol::Centre),
            "dense" => Ok(Protocol::Dense),
            _ => Err(format!("there is no protocol {name}; it is centre or dense")),
        }
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
