//! A network in the form that a protocol needs, and what it says of views.

use ndarray::{Array2, Array4, Axis};
use vgg_data::Image;
use vgg_layers::{DenseNetwork, Network, NetworkSpec};
use vgg_tensor::{Device, Tensor, ops};

use crate::protocol::WeightedView;
use crate::{DensePool, Evaluation, Preprocessing, Protocol, Result};

/// Pixels of the views of one size that go through the network together, at most: 50 crops of 224 x 224.
const GROUP_PIXELS: usize = 4 << 20;
/// Views that go through together, at most: what an operation takes.
const GROUP_VIEWS: usize = 256;

/// A network in the form that a protocol needs.
pub enum Model<'a> {
    /// For crops.
    Classic(&'a Network),
    /// For whole images, and for crops as well.
    Dense(&'a DenseNetwork),
}

/// A network that was turned into the form that a protocol needs.
pub enum Prepared {
    /// For crops.
    Classic(Box<Network>),
    /// For whole images, and for crops as well.
    Dense(Box<DenseNetwork>),
}

impl Evaluation {
    /// The form of a network that this protocol needs.
    ///
    /// # Errors
    /// [`crate::Error::Network`] if the network cannot be turned into it.
    pub fn prepare(&self, network: Network) -> Result<Prepared> {
        Ok(match self.protocol {
            Protocol::Centre | Protocol::MultiCrop => Prepared::Classic(Box::new(network)),
            Protocol::Dense | Protocol::Combined => {
                let mut dense = network.into_fully_convolutional()?;
                if let Some(rounding) = self.pool_rounding {
                    dense.set_pool_rounding(rounding);
                }
                Prepared::Dense(Box::new(dense))
            }
        })
    }
}

impl Prepared {
    /// To be used by [`crate::evaluate`] and [`crate::classify`].
    pub fn model(&self) -> Model<'_> {
        match self {
            Prepared::Classic(n) => Model::Classic(n),
            Prepared::Dense(n) => Model::Dense(n),
        }
    }
}

impl Model<'_> {
    /// The network's specification.
    pub fn spec(&self) -> &NetworkSpec {
        match self {
            Model::Classic(n) => n.spec(),
            Model::Dense(n) => n.spec(),
        }
    }

    fn device(&self) -> &Device {
        match self {
            Model::Classic(n) => n.device(),
            Model::Dense(n) => n.device(),
        }
    }

    /// Posteriors `[N, K]` of a batch of views of one size.
    fn posterior(&self, x: &Tensor, pool: DensePool) -> Result<Tensor> {
        let network = match self {
            Model::Classic(n) => return Ok(ops::softmax(&n.infer(x)?)?),
            Model::Dense(n) => n,
        };
        let map = network.score_map(x)?;
        Ok(match pool {
            DensePool::ScoreMean => ops::softmax(&ops::spatial_mean(&map)?)?,
            DensePool::ProbMean => ops::spatial_mean(&ops::softmax(&map)?)?,
            DensePool::ScoreSum => {
                let cells = (map.shape().dims()[1] * map.shape().dims()[2]) as f32;
                let sums = ops::spatial_mean(&map)?.to_array().mapv(|mean| mean * cells);
                ops::softmax(&Tensor::from_array(sums.view(), self.device())?)?
            }
        })
    }

    /// Posteriors `[images, classes]` of images with views of the same sizes: the weighted mean over each image's views.
    /// Neighbouring views of one size and test side, such as the crops of a scale, go through the network together.
    pub(crate) fn posteriors(
        &self,
        group: &[Vec<Image>],
        views: &[WeightedView],
        pool: DensePool,
        preprocessing: Preprocessing,
    ) -> Result<Array2<f32>> {
        let classes = self.spec().classes;
        let mut sum = Array2::<f64>::zeros((group.len(), classes));
        let mut first = 0;
        while first < views.len() && !group.is_empty() {
            let same = run_length(&group[0], views, first);
            let x = self.upload(group, first..first + same, preprocessing)?;
            let y = self.posterior(&x, pool)?.to_vec();
            for (i, row) in y.chunks_exact(classes).enumerate() {
                let weight = views[first + i % same].weight;
                let to = sum.row_mut(i / same);
                to.into_iter().zip(row).for_each(|(s, v)| *s += weight * f64::from(*v));
            }
            first += same;
        }
        Ok(sum.mapv(|s| s as f32))
    }

    /// Some views of every image as one batch, which are of one size, image by image.
    pub(crate) fn upload(
        &self,
        group: &[Vec<Image>],
        views: std::ops::Range<usize>,
        p: Preprocessing,
    ) -> Result<Tensor> {
        let (h, w, _) = group[0][views.start].dim();
        let n = group.len() * views.len();
        let mut pixels = Array4::zeros((n, h, w, 3));
        let shown = group.iter().flat_map(|image| &image[views.clone()]);
        pixels.axis_iter_mut(Axis(0)).zip(shown).for_each(|(mut to, view)| to.assign(view));
        let offset = Array2::from_shape_fn((n, 3), |(_, c)| p.offset[c]);
        Ok(ops::from_pixels(pixels.view(), offset.view(), p.scale, self.device())?)
    }
}

/// How many views from `first` on have its size and test side, and go through the network together.
pub(crate) fn run_length(shown: &[Image], views: &[WeightedView], first: usize) -> usize {
    let (size, side) = (shown[first].dim(), views[first].view.test_side);
    let same = shown[first..].iter().zip(&views[first..]);
    same.take_while(|(image, view)| image.dim() == size && view.view.test_side == side).count()
}

/// How many images with such views go through together, `most` at most.
pub(crate) fn images_together(shown: &[Image], views: &[WeightedView], most: usize) -> usize {
    let (mut first, mut together) = (0, most);
    while first < views.len() {
        let same = run_length(shown, views, first);
        together = together.min(GROUP_PIXELS / (same * shown[first].len() / 3)).min(GROUP_VIEWS / same);
        first += same;
    }
    together.max(1)
}
