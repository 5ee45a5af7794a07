//! From a network and images to posteriors.

use std::ops::ControlFlow;
use std::sync::Arc;

use ndarray::{Array2, Array4, Axis};
use vgg_data::{Filter, Folder, Image, OnBadImage, Prefetcher, View};
use vgg_layers::{DenseNetwork, Network, NetworkSpec};
use vgg_tensor::{Device, Tensor, ops};

use crate::{DensePool, Error, Evaluation, Posteriors, Preprocessing, Protocol, Result};

/// Images that go through the network together, at most, if their views have one size.
const GROUP: usize = 32;
/// Pixels that go through together, at most.
const GROUP_PIXELS: usize = 2 << 20;

/// How a split is gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluateOptions {
    /// Threads that decode and resize. Without influence on any result.
    pub workers: usize,
    /// What to do about an image that cannot be decoded: stop, or leave it out and list it.
    pub on_bad_image: OnBadImage,
}

/// A network in the form that a protocol needs.
pub enum Model<'a> {
    /// For crops.
    Classic(&'a Network),
    /// For whole images, and for crops as well.
    Dense(&'a DenseNetwork),
}

/// Posteriors of a whole split, in its order. `progress` hears how many images are done; when it breaks, the
/// evaluation ends with [`Error::Interrupted`].
///
/// # Errors
/// [`Error::Classes`] if network and data set do not fit, [`Error::Config`] if network and protocol do not;
/// [`Error::Data`] with the path of an image that cannot be read or is too large; [`Error::NoImages`].
pub fn evaluate(
    model: &Model,
    folder: &Arc<Folder>,
    evaluation: &Evaluation,
    preprocessing: Preprocessing,
    options: EvaluateOptions,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Posteriors> {
    let spec = model.spec();
    if spec.classes != folder.classes().len() {
        return Err(Error::Classes { network: spec.classes, dataset: folder.classes().len() });
    }
    let views = evaluation.views(spec.crop)?;
    let (decoder, filter, n) = (folder.clone(), evaluation.filter, folder.len());
    let work = move |i: usize| {
        let path = decoder.root().join(&decoder.samples()[i].path);
        show(&*decoder.image(i)?, &views, filter).map_err(|e| e.of_image(&path))
    };
    let mut images = Prefetcher::new(options.workers, 2 * GROUP, work);
    let mut values = Vec::with_capacity(n * spec.classes);
    let mut out = Posteriors::default();
    let mut group: Vec<Vec<Image>> = Vec::new();
    let (mut submitted, mut taken) = (0, 0);
    loop {
        while images.has_room() && submitted < n {
            images.submit(submitted)?;
            submitted += 1;
        }
        let shown = match images.take()?.transpose() {
            Ok(shown) => shown,
            Err(bad) if bad.is_bad_image() && options.on_bad_image == OnBadImage::Skip => {
                out.skipped.push(bad.to_string());
                taken += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if closes(&group, shown.as_deref()) {
            values.extend(posterior(model, &group, evaluation.dense_pool, preprocessing)?);
            group.clear();
            if progress(taken).is_break() {
                return Err(Error::Interrupted);
            }
        }
        let Some(shown) = shown else { break };
        group.push(shown);
        let sample = &folder.samples()[taken];
        out.labels.push(sample.target);
        out.paths.push(sample.path.clone());
        taken += 1;
    }
    if out.labels.is_empty() {
        return Err(Error::NoImages { path: folder.root().to_owned() });
    }
    let shape = (out.labels.len(), spec.classes);
    out.values = Array2::from_shape_vec(shape, values).map_err(|e| Error::Config(e.to_string()))?;
    Ok(out)
}

/// Whether a group of images goes through the network before `next` is taken: it is full, or the views of `next` have
/// other sizes, or there is no next.
fn closes(group: &[Vec<Image>], next: Option<&[Image]>) -> bool {
    match (group.first(), next) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(first), Some(next)) => group.len() >= limit(first) || !same_sizes(first, next),
    }
}

/// Posterior of one image.
///
/// # Errors
/// As [`evaluate`].
pub fn classify(
    model: &Model,
    image: &Image,
    evaluation: &Evaluation,
    preprocessing: Preprocessing,
) -> Result<Vec<f32>> {
    let shown = show(image, &evaluation.views(model.spec().crop)?, evaluation.filter)?;
    Ok(posterior(model, &[shown], evaluation.dense_pool, preprocessing)?.into_raw_vec_and_offset().0)
}

impl Evaluation {
    /// The form of a network that this protocol needs.
    ///
    /// # Errors
    /// [`Error::Network`] if the network cannot be turned into it.
    pub fn prepare(&self, network: Network) -> Result<Prepared> {
        Ok(match self.protocol {
            Protocol::Centre => Prepared::Classic(Box::new(network)),
            Protocol::Dense => Prepared::Dense(Box::new(network.into_fully_convolutional()?)),
        })
    }
}

/// A network that was turned into the form that a protocol needs.
pub enum Prepared {
    /// For crops.
    Classic(Box<Network>),
    /// For whole images.
    Dense(Box<DenseNetwork>),
}

impl Prepared {
    /// To be used by [`evaluate`] and [`classify`].
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
}

/// The views of an image.
fn show(image: &Image, views: &[View], filter: Filter) -> vgg_data::Result<Vec<Image>> {
    views.iter().map(|view| view.apply(image, filter)).collect()
}

fn same_sizes(a: &[Image], b: &[Image]) -> bool {
    a.iter().map(Image::dim).eq(b.iter().map(Image::dim))
}

/// How many images with such views go through together.
fn limit(views: &[Image]) -> usize {
    let largest = views.iter().map(|v| v.len() / 3).max().unwrap_or(1);
    (GROUP_PIXELS / largest).clamp(1, GROUP)
}

/// Posteriors `[images, classes]` of images with the same views: the mean over each image's views. Neighbouring views
/// of one size, such as an image and its mirror image, go through the network together.
fn posterior(model: &Model, group: &[Vec<Image>], pool: DensePool, p: Preprocessing) -> Result<Array2<f32>> {
    let classes = model.spec().classes;
    let views = group.first().map_or(0, Vec::len);
    let mut sum = Array2::<f64>::zeros((group.len(), classes));
    let mut first = 0;
    while first < views {
        let size = group[0][first].dim();
        let same = group[0][first..].iter().take_while(|v| v.dim() == size).count();
        let n = group.len() * same;
        let mut pixels = Array4::zeros((n, size.0, size.1, 3));
        for (i, mut to) in pixels.axis_iter_mut(Axis(0)).enumerate() {
            to.assign(&group[i / same][first + i % same]);
        }
        let offset = Array2::from_shape_fn((n, 3), |(_, c)| p.offset[c]);
        let x = ops::from_pixels(pixels.view(), offset.view(), p.scale, model.device())?;
        let y = model.posterior(&x, pool)?.to_vec();
        for (i, row) in y.chunks_exact(classes).enumerate() {
            sum.row_mut(i / same).iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
        }
        first += same;
    }
    Ok(sum.mapv(|s| (s / views.max(1) as f64) as f32))
}
