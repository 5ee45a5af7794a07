//! Posteriors of single images compared with the network called on each view, averaged by plain loops in f64.

mod common;

use common::{CROP, PREPROCESSING, TOLERANCE, as_f32, batch_of_one, cells, distance, image, mean, network};
use common::{posterior_of_crop, softmax};
use ndarray::{Axis, s};
use vgg_data::{Geometry, Image, Interpolation, Region, View};
use vgg_eval::{DensePool, Evaluation, Preprocessing, Protocol, classify};
use vgg_layers::{DenseNetwork, PoolRounding};
use vgg_testkit::assert_close;

const CLASSES: usize = 5;

fn evaluation(protocol: Protocol, test_scales: &[usize], dense_pool: DensePool) -> Evaluation {
    Evaluation { dense_pool, ..common::evaluation(protocol, test_scales) }
}

fn classified(evaluation: &Evaluation, image: &Image, preprocessing: Preprocessing) -> Vec<f32> {
    let model = evaluation.prepare(network(CLASSES), preprocessing, "").unwrap();
    classify(&model, image, evaluation).unwrap()
}

fn dense_network(rounding: PoolRounding) -> DenseNetwork {
    let mut dense = network(CLASSES).into_fully_convolutional().unwrap();
    dense.set_pool_rounding(rounding);
    dense
}

fn shown(image: &Image, test_scale: usize, region: Region, flip: bool) -> Image {
    View { test_scale, geometry: Geometry::Paper, region, flip }
        .apply(image, Interpolation::Bilinear)
        .unwrap()
}

/// Posterior of a whole view: the pooled score map.
fn posterior_of_map(dense: &DenseNetwork, view: &Image, pool: DensePool) -> Vec<f64> {
    let scores = cells(&dense.score_map(&batch_of_one(view, PREPROCESSING)).unwrap());
    let sum = |factor: f64| mean(&scores).iter().map(|score| score * factor).collect::<Vec<f64>>();
    match pool {
        DensePool::ScoreMean => softmax(&sum(1.0)),
        DensePool::ScoreSum => softmax(&sum(scores.len() as f64)),
        DensePool::ProbMean => mean(&scores.iter().map(|cell| softmax(cell)).collect::<Vec<_>>()),
    }
}

/// Mean posterior of whole views at these test scales, with flips.
fn dense_reference(image: &Image, sides: &[usize], pool: DensePool, rounding: PoolRounding) -> Vec<f64> {
    let dense = dense_network(rounding);
    let mut posteriors = Vec::new();
    for side in sides {
        for flip in [false, true] {
            posteriors.push(posterior_of_map(&dense, &shown(image, *side, Region::Whole, flip), pool));
        }
    }
    mean(&posteriors)
}

/// Mean posterior of the grid's crops at these test scales, with flips.
fn grid_reference(image: &Image, sides: &[usize]) -> Vec<f64> {
    let network = network(CLASSES);
    let mut posteriors = Vec::new();
    for side in sides {
        let whole = shown(image, *side, Region::Whole, false);
        let (h, w, _) = whole.dim();
        for place in 0..25 {
            // Five evenly spaced offsets from edge to edge, rounded half up.
            let [top, left] = [(place / 5, h), (place % 5, w)].map(|(k, side)| (k * (side - CROP) + 2) / 4);
            let mut crop = whole.slice(s![top..top + CROP, left..left + CROP, ..]).to_owned();
            posteriors.push(posterior_of_crop(&network, &crop, PREPROCESSING));
            crop.invert_axis(Axis(1));
            posteriors.push(posterior_of_crop(
                &network,
                &crop.as_standard_layout().to_owned(),
                PREPROCESSING,
            ));
        }
    }
    mean(&posteriors)
}

#[test]
fn centre_posteriors_are_means_over_scales_and_flips() {
    let image = image("centre", 44, 60);
    let network = network(CLASSES);
    let mut views = Vec::new();
    for side in [32, 40, 64] {
        for flip in [false, true] {
            let crop = shown(&image, side, Region::Centre(CROP), flip);
            views.push(posterior_of_crop(&network, &crop, PREPROCESSING));
        }
    }
    let ours =
        classified(&evaluation(Protocol::Centre, &[32, 40, 64], DensePool::ScoreMean), &image, PREPROCESSING);
    assert_close(&ours, &as_f32(&mean(&views)), TOLERANCE, "centre");
    for (i, one) in views.iter().enumerate() {
        for other in &views[..i] {
            assert!(distance(&as_f32(one), &as_f32(other)) > 2e-3, "view {i} is like another one");
        }
    }
}

#[test]
fn dense_posteriors_are_means_over_maps_of_different_sizes() {
    let image = image("dense", 44, 60);
    for pool in [DensePool::ScoreMean, DensePool::ProbMean, DensePool::ScoreSum] {
        let ours = classified(&evaluation(Protocol::Dense, &[32, 64, 96], pool), &image, PREPROCESSING);
        let expected = dense_reference(&image, &[32, 64, 96], pool, PoolRounding::Floor);
        // Summing six cells multiplies the error of the scores.
        assert_close(&ours, &as_f32(&expected), 6.0 * TOLERANCE, &format!("{pool:?}"));
    }
}

#[test]
fn dense_pools_differ() {
    let image = image("pools", 64, 96);
    let of = |pool| classified(&evaluation(Protocol::Dense, &[64], pool), &image, PREPROCESSING);
    let [mean, probabilities, sum] = [DensePool::ScoreMean, DensePool::ProbMean, DensePool::ScoreSum].map(of);
    assert!(distance(&mean, &probabilities) > 1e-3 && distance(&mean, &sum) > 1e-3);
}

#[test]
fn multi_crop_posteriors_are_means_over_the_grid() {
    let image = image("grid", 60, 44);
    let ours =
        classified(&evaluation(Protocol::MultiCrop, &[40, 48], DensePool::ScoreMean), &image, PREPROCESSING);
    assert_close(&ours, &as_f32(&grid_reference(&image, &[40, 48])), TOLERANCE, "multi-crop");
}

#[test]
fn combined_posteriors_are_means_of_dense_and_multi_crop() {
    let image = image("combined", 44, 60);
    let ours =
        classified(&evaluation(Protocol::Combined, &[32, 64], DensePool::ScoreMean), &image, PREPROCESSING);
    let dense = dense_reference(&image, &[32, 64], DensePool::ScoreMean, PoolRounding::Floor);
    let crops = grid_reference(&image, &[32, 64]);
    assert!(distance(&as_f32(&dense), &as_f32(&crops)) > 2e-3);
    assert_close(&ours, &as_f32(&mean(&[dense, crops])), TOLERANCE, "combined");
}

#[test]
fn pool_rounding_of_the_protocol_overrides_the_network() {
    // At test scale 48 the map is 48, 24, 12, 6 and 3 high before the last max pooling, and 1 or 2 after it.
    let image = image("rounding", 48, 62);
    let of = |pool_rounding| {
        let base = evaluation(Protocol::Dense, &[48], DensePool::ScoreMean);
        classified(&Evaluation { pool_rounding, ..base }, &image, PREPROCESSING)
    };
    let expected = [PoolRounding::Floor, PoolRounding::Ceil]
        .map(|rounding| as_f32(&dense_reference(&image, &[48], DensePool::ScoreMean, rounding)));
    assert!(distance(&expected[0], &expected[1]) > 1e-3);
    assert_close(&of(None), &expected[0], TOLERANCE, "the network's rounding");
    assert_close(&of(Some(PoolRounding::Floor)), &expected[0], TOLERANCE, "floor");
    assert_close(&of(Some(PoolRounding::Ceil)), &expected[1], TOLERANCE, "ceil");
}

#[test]
fn each_channel_has_its_own_offset_and_scale() {
    let image = image("channels", 32, 32);
    let network = network(CLASSES);
    let base = Evaluation { flip: false, ..evaluation(Protocol::Centre, &[32], DensePool::ScoreMean) };
    let mut found: Vec<Vec<f32>> = Vec::new();
    for (offset, scale) in [
        ([-120.0, -110.0, -100.0], [0.02, 0.02, 0.02]),
        ([-20.0, -110.0, -100.0], [0.02, 0.02, 0.02]),
        ([-120.0, -10.0, -100.0], [0.02, 0.02, 0.02]),
        ([-120.0, -110.0, 0.0], [0.02, 0.02, 0.02]),
        ([-120.0, -110.0, -100.0], [0.05, 0.02, 0.02]),
        ([-120.0, -110.0, -100.0], [0.02, 0.05, 0.02]),
        ([-120.0, -110.0, -100.0], [0.02, 0.02, 0.05]),
    ] {
        let preprocessing = Preprocessing { offset, scale };
        let ours = classified(&base, &image, preprocessing);
        let expected = as_f32(&posterior_of_crop(&network, &image, preprocessing));
        assert_close(&ours, &expected, TOLERANCE, &format!("{preprocessing:?}"));
        assert!(found.iter().all(|other| distance(&ours, other) > 1e-3), "{preprocessing:?} has no effect");
        found.push(ours);
    }
}

#[test]
fn posteriors_add_up_to_one() {
    for (protocol, sides) in [(Protocol::Centre, vec![32]), (Protocol::Combined, vec![40, 64])] {
        let base = evaluation(protocol, &sides, DensePool::ProbMean);
        let sum: f32 = classified(&base, &image("sum", 44, 60), PREPROCESSING).iter().sum();
        // 5 classes rounded to 24 bits.
        assert!((sum - 1.0).abs() < 1e-6, "{protocol:?}: {sum}");
    }
}

#[test]
fn the_interpolation_of_the_protocol_is_used() {
    let image = image("filter", 44, 60);
    let network = network(CLASSES);
    for interpolation in [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::Lanczos] {
        let base = evaluation(Protocol::Centre, &[96], DensePool::ScoreMean);
        let ours = classified(&Evaluation { interpolation, flip: false, ..base }, &image, PREPROCESSING);
        let view =
            View { test_scale: 96, geometry: Geometry::Paper, region: Region::Centre(CROP), flip: false };
        let crop = view.apply(&image, interpolation).unwrap();
        let expected = as_f32(&posterior_of_crop(&network, &crop, PREPROCESSING));
        assert_close(&ours, &expected, TOLERANCE, &format!("{interpolation:?}"));
    }
}

#[test]
fn a_test_scale_below_the_crop_is_rejected() {
    let base = evaluation(Protocol::Centre, &[31], DensePool::ScoreMean);
    let model = base.prepare(network(CLASSES), PREPROCESSING, "").unwrap();
    let refused = classify(&model, &image("small", 40, 40), &base);
    assert!(matches!(refused, Err(vgg_eval::Error::Config(_))));
}
