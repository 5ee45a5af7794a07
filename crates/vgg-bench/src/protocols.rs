//! Cost of the test protocols, measured in one run: all protocols in turn on one image.

use std::time::Instant;

use serde::Serialize;
use vgg_data::{Geometry, Image, Interpolation, apply_views};
use vgg_eval::{DensePool, Evaluation, Preprocessing, Protocol, classify};
use vgg_layers::{Init, LayerKind, Network, NetworkSpec};
use vgg_tensor::Device;

use crate::Result;

/// Cost of one protocol.
#[derive(Serialize)]
pub struct ProtocolCost {
    /// Name of the protocol, such as `dense`.
    pub protocol: &'static str,
    /// Test scales (smallest image sides).
    pub test_scales: Vec<usize>,
    /// Number of views of an image.
    pub views: usize,
    /// Milliseconds per image: the median over the samples.
    pub ms: f64,
    /// Images per second, from `ms`.
    pub images_per_s: f64,
    /// Time divided by that of the centre crop at the first test scale.
    pub time_over_centre: f64,
    /// Multiply-accumulates divided by those of the centre crop.
    pub macs_over_centre: f64,
}

/// The costs of all protocols at the first of the test scales `sides`, and at all of them, for an image of
/// `[width, height]`.
///
/// # Errors
/// [`crate::Error`] if an evaluation fails.
pub fn protocol_costs(
    spec: &NetworkSpec,
    image: [usize; 2],
    sides: &[usize],
    samples: usize,
    device: &Device,
) -> Result<Vec<ProtocolCost>> {
    let [width, height] = image;
    let image =
        Image::from_shape_fn((height, width, 3), |(y, x, c)| (y * 31 + x * 17 + c * 97 + x * y / 7) as u8);
    let mut cases = Vec::new();
    for (protocol, sides) in Protocol::ALL.into_iter().flat_map(|p| [(p, &sides[..1]), (p, sides)]) {
        let (test_scales, flip) = (sides.to_vec(), protocol.flips());
        let evaluation = Evaluation {
            protocol,
            test_scales,
            flip,
            interpolation: Interpolation::Bilinear,
            geometry: Geometry::Paper,
            dense_pool: DensePool::ScoreMean,
            pool_rounding: None,
        };
        if !cases.iter().any(|(known, ..): &(Evaluation, f64, usize)| *known == evaluation) {
            let views = evaluation.views(spec.crop)?;
            let list: Vec<_> = views.iter().map(|weighted| weighted.view).collect();
            let shown = apply_views(&image, &list, Interpolation::Bilinear)?;
            let macs = shown.iter().map(|view| macs(spec, view)).sum::<Result<f64>>()?;
            cases.push((evaluation, macs, views.len()));
        }
    }
    let preprocessing = Preprocessing { offset: [-120.0; 3], scale: [0.01; 3] };
    let network = || Network::random(spec.clone(), Init::He, 1, device);
    // Both forms of the network, prepared once.
    let fully_connected = cases[0].0.prepare(network()?, preprocessing, "")?;
    let dense = Evaluation { protocol: Protocol::Dense, ..cases[0].0.clone() }.prepare(
        network()?,
        preprocessing,
        "",
    )?;
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for sample in 0..=samples {
        for ((evaluation, ..), times) in cases.iter().zip(&mut times) {
            let takes_crops = matches!(evaluation.protocol, Protocol::Centre | Protocol::MultiCrop);
            let prepared = if takes_crops { &fully_connected } else { &dense };
            let start = Instant::now();
            classify(prepared, &image, evaluation)?;
            // The first sample packs filters and allocates memory.
            if sample > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    let mut costs: Vec<ProtocolCost> = Vec::new();
    for ((evaluation, macs, views), mut times) in cases.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        let ms = times[times.len() / 2];
        costs.push(ProtocolCost {
            protocol: evaluation.protocol.name(),
            test_scales: evaluation.test_scales.clone(),
            views: *views,
            ms,
            images_per_s: 1e3 / ms,
            time_over_centre: ms / costs.first().map_or(ms, |first| first.ms),
            macs_over_centre: macs / cases[0].1,
        });
    }
    Ok(costs)
}

/// Multiply-accumulates of a view: those of convolutions scale with its area, those of fully connected layers
/// with the cells of the score map.
fn macs(spec: &NetworkSpec, view: &Image) -> Result<f64> {
    let (h, w, _) = view.dim();
    let stride = spec.stride();
    let cells = |side: usize| (side / stride).saturating_sub(spec.crop / stride) + 1;
    let area = (h * w) as f64 / (spec.crop * spec.crop) as f64;
    let rows = spec.summary()?.layers;
    let kinds = spec.layers()?;
    let of = |(row, layer): (&vgg_layers::SummaryRow, &vgg_layers::LayerSpec)| match layer.kind {
        LayerKind::Linear { .. } => row.macs as f64 * (cells(h) * cells(w)) as f64,
        _ => row.macs as f64 * area,
    };
    Ok(rows.iter().zip(&kinds).map(of).sum())
}
