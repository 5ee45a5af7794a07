//! A network in the form that a protocol requires, and its posteriors of views.

use ndarray::{Array2, Array4, Axis};
use vgg_data::Image;
use vgg_layers::{DenseNetwork, Network, NetworkSpec};
use vgg_tensor::{Device, Tensor, ops};

use crate::protocol::WeightedView;
use crate::{DensePool, Error, Evaluation, Preprocessing, Protocol, Result};

/// Maximum number of pixels in a batch of views, unless one image has more: enough for 50 crops of 224 x 224.
const BATCH_PIXELS: usize = 4 << 20;
/// Maximum number of views in a batch: the largest batch that the operations of vgg-tensor accept.
const BATCH_VIEWS: usize = 256;

/// A network in the form that a protocol requires, with the preprocessing that it was trained with.
pub struct EvalModel<'a> {
    form: Form<'a>,
    /// Preprocessing of pixels.
    pub preprocessing: Preprocessing,
    /// Hash of the weights file, which [`crate::Posteriors`] and [`crate::Features`] record; may be empty.
    pub weights_hash: String,
}

enum Form<'a> {
    Crops(Box<Network>),
    /// For crops, during training.
    Borrowed(&'a Network),
    /// For whole images and crops.
    Dense(Box<DenseNetwork>),
}

impl Evaluation {
    /// Converts a network to the form that this protocol requires: fully convolutional for
    /// [`Protocol::Dense`] and [`Protocol::Combined`].
    ///
    /// # Errors
    /// [`crate::Error::Network`] if the network cannot be converted.
    pub fn prepare(
        &self,
        network: Network,
        preprocessing: Preprocessing,
        weights_hash: &str,
    ) -> Result<EvalModel<'static>> {
        match self.protocol {
            Protocol::Centre | Protocol::MultiCrop => {
                let form = Form::Crops(Box::new(network));
                Ok(EvalModel { form, preprocessing, weights_hash: weights_hash.to_owned() })
            }
            Protocol::Dense | Protocol::Combined => {
                let mut dense = network.into_fully_convolutional()?;
                if let Some(rounding) = self.pool_rounding {
                    dense.set_pool_rounding(rounding);
                }
                Ok(EvalModel::dense(dense, preprocessing, weights_hash))
            }
        }
    }
}

impl<'a> EvalModel<'a> {
    /// A model of a fully convolutional network, for whole images and for features.
    pub fn dense(
        network: DenseNetwork,
        preprocessing: Preprocessing,
        weights_hash: &str,
    ) -> EvalModel<'static> {
        let form = Form::Dense(Box::new(network));
        EvalModel { form, preprocessing, weights_hash: weights_hash.to_owned() }
    }

    /// A model of a network during training, for crops.
    pub fn borrowed(network: &'a Network, preprocessing: Preprocessing) -> EvalModel<'a> {
        EvalModel { form: Form::Borrowed(network), preprocessing, weights_hash: String::new() }
    }

    /// The network's specification.
    pub fn spec(&self) -> &NetworkSpec {
        match &self.form {
            Form::Crops(n) => n.spec(),
            Form::Borrowed(n) => n.spec(),
            Form::Dense(n) => n.spec(),
        }
    }

    /// Whether the network takes whole images.
    pub fn is_dense(&self) -> bool {
        matches!(self.form, Form::Dense(_))
    }

    /// The fully convolutional network.
    ///
    /// # Errors
    /// [`Error::Config`] if the model takes only crops.
    pub fn dense_network(&self) -> Result<&DenseNetwork> {
        match &self.form {
            Form::Dense(network) => Ok(network),
            _ => Err(Error::Config("a fully convolutional network is required".into())),
        }
    }

    fn device(&self) -> &Device {
        match &self.form {
            Form::Crops(n) => n.device(),
            Form::Borrowed(n) => n.device(),
            Form::Dense(n) => n.device(),
        }
    }

    /// Posteriors `[N, K]` of a batch of views of one size.
    fn posterior(&self, x: &Tensor, pool: DensePool) -> Result<Tensor> {
        let network = match &self.form {
            Form::Crops(n) => return Ok(ops::softmax(&finite(n.infer(x)?)?)?),
            // Validation during training, which reports a loss that is not finite itself.
            Form::Borrowed(n) => return Ok(ops::softmax(&n.infer(x)?)?),
            Form::Dense(n) => n,
        };
        let map = finite(network.score_map(x)?)?;
        Ok(match pool {
            DensePool::ScoreMean => ops::softmax(&ops::global_avg_pool2d(&map)?)?,
            DensePool::ProbMean => ops::global_avg_pool2d(&ops::softmax(&map)?)?,
            DensePool::ScoreSum => {
                let cells = (map.shape().dims()[1] * map.shape().dims()[2]) as f32;
                let sums = ops::global_avg_pool2d(&map)?.to_array().mapv(|mean| mean * cells);
                ops::softmax(&Tensor::from_array(sums.view(), self.device())?)?
            }
        })
    }

    /// Posteriors `[images, classes]` of images with views of the same sizes: the weighted mean over each
    /// image's views. Adjacent views of one size and test scale, such as the crops of a scale, form a batch.
    pub(crate) fn posteriors(
        &self,
        images_views: &[Vec<Image>],
        views: &[WeightedView],
        pool: DensePool,
    ) -> Result<Array2<f32>> {
        let classes = self.spec().classes;
        let mut sum = Array2::<f64>::zeros((images_views.len(), classes));
        let mut first = 0;
        while first < views.len() && !images_views.is_empty() {
            let same = run_length(&images_views[0], views, first);
            let x = self.upload(images_views, first..first + same)?;
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

    /// Uploads a range of views, which must be of one size, of every image as one batch, image by image.
    pub(crate) fn upload(
        &self,
        images_views: &[Vec<Image>],
        views: std::ops::Range<usize>,
    ) -> Result<Tensor> {
        let p = self.preprocessing;
        let (h, w, _) = images_views[0][views.start].dim();
        let n = images_views.len() * views.len();
        let mut pixels = Array4::zeros((n, h, w, 3));
        let view_pixels = images_views.iter().flat_map(|image| &image[views.clone()]);
        pixels.axis_iter_mut(Axis(0)).zip(view_pixels).for_each(|(mut to, view)| to.assign(view));
        let offset = Array2::from_shape_fn((n, 3), |(_, c)| p.offset[c]);
        Ok(ops::normalize(pixels.view(), offset.view(), p.scale, self.device())?)
    }
}

/// Number of views from `first` on with its size and test scale, which form a batch.
pub(crate) fn run_length(view_pixels: &[Image], views: &[WeightedView], first: usize) -> usize {
    let (size, scale) = (view_pixels[first].dim(), views[first].view.test_scale);
    let same = view_pixels[first..].iter().zip(&views[first..]);
    same.take_while(|(image, view)| image.dim() == size && view.view.test_scale == scale).count()
}

/// Number of images with such views that form a batch, at most `most`.
pub(crate) fn images_together(view_pixels: &[Image], views: &[WeightedView], most: usize) -> usize {
    let (mut first, mut together) = (0, most);
    while first < views.len() {
        let same = run_length(view_pixels, views, first);
        together = together.min(BATCH_PIXELS / (same * view_pixels[first].len() / 3)).min(BATCH_VIEWS / same);
        first += same;
    }
    together.max(1)
}

/// The scores, if they are finite: after an overflow, the softmax could still look like a result.
fn finite(scores: Tensor) -> Result<Tensor> {
    match scores.to_vec().iter().all(|score| score.is_finite()) {
        true => Ok(scores),
        false => Err(Error::NotFinite("the network's scores")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vgg_data::{Geometry, Interpolation, Region, View};
    use vgg_layers::{Config, NamedTensor};
    use vgg_testkit::{assert_close, pseudo_random};

    const PREPROCESSING: Preprocessing =
        Preprocessing { offset: [-150.0, -120.0, -70.0], scale: [0.01, 0.02, 0.04] };

    /// `count` views of this size at a test scale.
    fn run(count: usize, size: (usize, usize), test_scale: usize) -> (Vec<Image>, Vec<WeightedView>) {
        let view = View { test_scale, geometry: Geometry::Paper, region: Region::Whole, flip: false };
        (vec![Image::zeros((size.0, size.1, 3)); count], vec![WeightedView { view, weight: 1.0 }; count])
    }

    fn runs(parts: &[(usize, (usize, usize), usize)]) -> (Vec<Image>, Vec<WeightedView>) {
        let (mut view_pixels, mut views) = (Vec::new(), Vec::new());
        for (count, size, test_scale) in parts {
            let (more_pixels, more_views) = run(*count, *size, *test_scale);
            view_pixels.extend(more_pixels);
            views.extend(more_views);
        }
        (view_pixels, views)
    }

    #[test]
    fn a_run_ends_where_the_size_or_the_test_scale_changes() {
        let (view_pixels, views) =
            runs(&[(2, (8, 12), 8), (3, (8, 8), 8), (1, (12, 8), 8), (4, (12, 8), 12), (1, (8, 12), 8)]);
        let lengths: Vec<usize> =
            (0..views.len()).map(|first| run_length(&view_pixels, &views, first)).collect();
        assert_eq!(lengths, [2, 1, 3, 2, 1, 1, 4, 3, 2, 1, 1]);
    }

    #[test]
    fn batches_have_at_most_four_mebipixels_and_256_views() {
        let together = |parts: &[(usize, (usize, usize), usize)], most| {
            let (view_pixels, views) = runs(parts);
            images_together(&view_pixels, &views, most)
        };
        // A crop has 50176 pixels: 83 crops fit into 2^22, and the 50 crops of one image take more than half.
        assert_eq!(together(&[(1, (224, 224), 256)], 32), 32);
        assert_eq!(together(&[(1, (224, 224), 256)], 1000), 83);
        assert_eq!(together(&[(10, (224, 224), 256)], 1000), 8);
        assert_eq!(together(&[(50, (224, 224), 256)], 32), 1);
        assert_eq!(together(&[(1, (1024, 1024), 1024)], 32), 4);
        assert_eq!(together(&[(1, (1024, 512), 512)], 32), 8);
        // An image that is too large by itself forms its own batch.
        assert_eq!(together(&[(5, (1024, 1024), 1024)], 32), 1);
        assert_eq!(together(&[(1, (8, 8), 8)], 1000), 256);
        assert_eq!(together(&[(3, (8, 8), 8)], 1000), 85);
        // The largest of several runs determines the number.
        assert_eq!(together(&[(1, (224, 224), 256), (10, (224, 224), 288)], 1000), 8);
        assert_eq!(together(&[(10, (224, 224), 256), (1, (224, 224), 288)], 1000), 8);
        assert_eq!(together(&[(3, (8, 8), 8), (10, (8, 8), 16), (2, (8, 8), 32)], 1000), 25);
        assert_eq!(together(&[(3, (8, 8), 8), (3, (8, 8), 16)], 1000), 85);
    }

    /// A network with pseudo-random weights, each tensor derived from a hash of its name. Filters of mean
    /// zero make it depend on the contents of images.
    fn network() -> Network {
        let spec =
            NetworkSpec { width: 0.125, classes: 4, head: [8, 8], crop: 32, ..NetworkSpec::paper(Config::A) };
        let mut network = Network::new(spec, &Device::cpu(1).unwrap()).unwrap();
        for (name, shape) in network.spec().file_shapes().unwrap() {
            let fan_in: usize = shape[1..].iter().product();
            let bound = if shape.len() == 1 { 0.1 } else { (9.0 / fan_in as f64).sqrt() as f32 };
            let mut values = pseudo_random(&name, bound, shape.iter().product());
            if shape.len() > 1 {
                for filter in values.chunks_exact_mut(fan_in) {
                    let mean = filter.iter().sum::<f32>() / fan_in as f32;
                    filter.iter_mut().for_each(|value| *value -= mean);
                }
            }
            network.load_tensor(&NamedTensor { name, shape, values }).unwrap();
        }
        network
    }

    /// An image of 8 x 8 blocks of pseudo-random colours, derived from a hash of its number.
    fn image(number: usize, h: usize, w: usize) -> Image {
        let colours = pseudo_random(&format!("image{number}"), 128.0, h.div_ceil(8) * w.div_ceil(8) * 3);
        Image::from_shape_fn((h, w, 3), |(y, x, c)| {
            (colours[(y / 8 * w.div_ceil(8) + x / 8) * 3 + c] + 128.0) as u8
        })
    }

    /// Posterior of one crop, from the network's logits by plain code in f64.
    fn posterior_of_crop(network: &Network, crop: &Image) -> Vec<f64> {
        let (h, w, _) = crop.dim();
        let value = |(i, pixel): (usize, &u8)| {
            (f32::from(*pixel) + PREPROCESSING.offset[i % 3]) * PREPROCESSING.scale[i % 3]
        };
        let values: Vec<f32> = crop.iter().enumerate().map(value).collect();
        let x = Tensor::from_slice(&values, [1, h, w, 3], network.device()).unwrap();
        let powers: Vec<f64> =
            network.infer(&x).unwrap().to_vec().iter().map(|score| f64::from(*score).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.iter().map(|power| power / sum).collect()
    }

    #[test]
    fn posteriors_are_weighted_means_over_the_views_of_each_image() {
        let network = network();
        let grid = |row, column| Region::Grid { crop: 32, row, column };
        let views: Vec<WeightedView> = [
            (40, Region::Centre(32), false, 0.05),
            (40, grid(0, 4), true, 0.3),
            (40, grid(4, 1), false, 0.1),
            (64, grid(0, 0), false, 0.15),
            (64, Region::Centre(32), true, 0.4),
        ]
        .map(|(test_scale, region, flip, weight)| WeightedView {
            view: View { test_scale, geometry: Geometry::Paper, region, flip },
            weight,
        })
        .to_vec();
        let images = [image(0, 40, 56), image(1, 56, 40), image(2, 48, 48)];
        let images_views: Vec<Vec<Image>> = (images.iter())
            .map(|image| {
                views.iter().map(|v| v.view.apply(image, Interpolation::Bilinear).unwrap()).collect()
            })
            .collect();
        let model = EvalModel::borrowed(&network, PREPROCESSING);
        let ours = model.posteriors(&images_views, &views, DensePool::ScoreMean).unwrap();
        assert_eq!(ours.dim(), (3, 4));
        for (row, view_pixels) in ours.rows().into_iter().zip(&images_views) {
            let mut expected = vec![0.0_f64; 4];
            for (crop, view) in view_pixels.iter().zip(&views) {
                let posterior = posterior_of_crop(&network, crop);
                expected.iter_mut().zip(posterior).for_each(|(sum, p)| *sum += view.weight * p);
            }
            let expected: Vec<f32> = expected.into_iter().map(|p| p as f32).collect();
            // Scores reach 10, and convolutions of a batch sum in another order than those of one image.
            assert_close(&row.to_vec(), &expected, 1e-4, "weighted mean");
        }
        let none = model.posteriors(&[], &views, DensePool::ScoreMean).unwrap();
        assert_eq!(none.dim(), (0, 4));
    }
}
