//! The views of each protocol, and the names of protocols.

mod common;

use vgg_data::{Geometry, MAX_SIDE, Region, View};
use vgg_eval::{DensePool, Error, Evaluation, Partition, Protocol, WeightedView, rank_partition};

fn evaluation(protocol: Protocol, test_scales: &[usize], flip: bool) -> Evaluation {
    Evaluation { flip, ..common::evaluation(protocol, test_scales) }
}

fn view(test_scale: usize, region: Region, flip: bool, weight: f64) -> WeightedView {
    WeightedView { view: View { test_scale, geometry: Geometry::Paper, region, flip }, weight }
}

/// Asserts that these are the views for a crop of 224, with weights up to rounding.
#[track_caller]
fn assert_views(protocol: Protocol, test_scales: &[usize], flip: bool, expected: &[WeightedView]) {
    let views = evaluation(protocol, test_scales, flip).views(224).unwrap();
    let without_weights = |views: &[WeightedView]| views.iter().map(|v| v.view).collect::<Vec<View>>();
    assert_eq!(without_weights(&views), without_weights(expected));
    for (ours, expected) in views.iter().zip(expected) {
        assert!((ours.weight - expected.weight).abs() < 1e-15, "{ours:?} should have {}", expected.weight);
    }
    assert!((views.iter().map(|view| view.weight).sum::<f64>() - 1.0).abs() < 1e-12);
}

/// Crops of the grid at one test scale, row by row; each crop is followed by its flip.
fn grid(test_scale: usize, flips: &[bool], weight: f64) -> Vec<WeightedView> {
    let mut views = Vec::new();
    for row in 0..5 {
        for column in 0..5 {
            for flip in flips {
                views.push(view(test_scale, Region::Grid { crop: 224, row, column }, *flip, weight));
            }
        }
    }
    views
}

#[test]
fn centre_evaluation_has_the_central_crop() {
    assert_views(Protocol::Centre, &[256], false, &[view(256, Region::Centre(224), false, 1.0)]);
    let of_two = [
        view(256, Region::Centre(224), false, 0.25),
        view(256, Region::Centre(224), true, 0.25),
        view(384, Region::Centre(224), false, 0.25),
        view(384, Region::Centre(224), true, 0.25),
    ];
    assert_views(Protocol::Centre, &[256, 384], true, &of_two);
}

#[test]
fn dense_evaluation_has_whole_images() {
    assert_views(Protocol::Dense, &[224], false, &[view(224, Region::Whole, false, 1.0)]);
    let of_three = [384, 256, 512]
        .map(|side| [false, true].map(|flip| view(side, Region::Whole, flip, 1.0 / 6.0)))
        .concat();
    assert_views(Protocol::Dense, &[384, 256, 512], true, &of_three);
}

#[test]
fn multi_crop_evaluation_has_fifty_crops_per_scale() {
    let fifty = grid(256, &[false, true], 0.02);
    assert_eq!(fifty.len(), 50);
    assert_views(Protocol::MultiCrop, &[256], true, &fifty);
    let of_three = [256, 384, 512].map(|side| grid(side, &[false, true], 1.0 / 150.0)).concat();
    assert_views(Protocol::MultiCrop, &[256, 384, 512], true, &of_three);
    assert_views(Protocol::MultiCrop, &[256], false, &grid(256, &[false], 0.04));
}

#[test]
fn combined_evaluation_weighs_whole_images_and_crops_equally() {
    let mut expected = vec![
        view(256, Region::Whole, false, 0.125),
        view(256, Region::Whole, true, 0.125),
        view(384, Region::Whole, false, 0.125),
        view(384, Region::Whole, true, 0.125),
    ];
    expected.extend(grid(256, &[false, true], 0.005));
    expected.extend(grid(384, &[false, true], 0.005));
    assert_views(Protocol::Combined, &[256, 384], true, &expected);
}

#[test]
fn missing_too_small_and_too_large_test_scales_are_rejected() {
    for protocol in Protocol::ALL {
        let of = |sides: &[usize]| evaluation(protocol, sides, false).views(224);
        let refused = |sides: &[usize], words: &[&str]| {
            let error = of(sides).unwrap_err();
            let all = |what: &str| words.iter().all(|word| what.contains(word));
            assert!(matches!(&error, Error::Config(what) if all(what)), "{sides:?}: {error}");
        };
        refused(&[], &["empty"]);
        refused(&[256, 223], &["223", "224"]);
        refused(&[256, MAX_SIDE + 1], &["16385", "16384"]);
        assert!(of(&[224, MAX_SIDE]).is_ok());
    }
}

#[test]
fn protocol_names_are_parsed_and_serialised() {
    let names = ["centre", "dense", "multi-crop", "combined"];
    let all = [Protocol::Centre, Protocol::Dense, Protocol::MultiCrop, Protocol::Combined];
    assert_eq!(Protocol::ALL, all);
    for (protocol, name) in all.into_iter().zip(names) {
        assert_eq!((protocol.name(), name.parse()), (name, Ok(protocol)));
        assert_eq!(serde_json::to_value(protocol).unwrap(), name);
    }
    assert_eq!(all.map(Protocol::flips), [false, true, true, true]);
    let error = "Dense".parse::<Protocol>().unwrap_err();
    assert!(names.iter().all(|name| error.contains(name)) && error.contains("Dense"), "{error}");
}

#[test]
fn dense_pool_names_are_parsed_and_serialised() {
    let names = ["score-mean", "prob-mean", "score-sum"];
    let all = [DensePool::ScoreMean, DensePool::ProbMean, DensePool::ScoreSum];
    for (pool, name) in all.into_iter().zip(names) {
        assert_eq!(name.parse(), Ok(pool));
        assert_eq!(serde_json::to_value(pool).unwrap(), name);
    }
    let error = "mean".parse::<DensePool>().unwrap_err();
    assert!(names.iter().all(|name| error.contains(name)), "{error}");
}

#[test]
fn dense_and_combined_protocols_prepare_a_dense_network() {
    for (protocol, dense) in [
        (Protocol::Centre, false),
        (Protocol::MultiCrop, false),
        (Protocol::Dense, true),
        (Protocol::Combined, true),
    ] {
        let base = evaluation(protocol, &[32], false);
        let model = base.prepare(common::network(3), common::PREPROCESSING, "").unwrap();
        assert_eq!(model.is_dense(), dense, "{protocol:?}");
        assert_eq!(model.dense_network().is_ok(), dense);
        assert_eq!(model.spec().classes, 3);
    }
}

#[test]
fn a_part_is_a_range_of_images() {
    let ranges = |n, of| {
        (1..=of).map(|number| Partition { index: number - 1, count: of }.range(n)).collect::<Vec<_>>()
    };
    assert_eq!(ranges(10, 3), [0..3, 3..6, 6..10]);
    assert_eq!(ranges(2, 5), [0..0, 0..0, 0..1, 1..1, 1..2]);
    assert_eq!(Partition::WHOLE.range(7), 0..7);
    assert_eq!(Partition::WHOLE, Partition { index: 0, count: 1 });
    // The product of the part's number and the number of images does not fit into 64 bits.
    assert_eq!(Partition { index: 65_536 - 1, count: 65_536 }.range(usize::MAX).end, usize::MAX);
}

#[test]
fn a_part_is_parsed_from_number_and_count() {
    for (text, number, of) in [("1/1", 1, 1), ("3/8", 3, 8), ("8/8", 8, 8), ("65536/65536", 65_536, 65_536)] {
        assert_eq!(text.parse(), Ok(Partition { index: number - 1, count: of }));
    }
    for text in ["0/1", "2/1", "1/0", "1/65537", "1", "1/2/3", "/2", "1/", "-1/2", "a/b", ""] {
        assert!(text.parse::<Partition>().unwrap_err().contains("2/8"), "{text}");
    }
}

#[test]
fn rank_partition_is_the_part_of_the_rank() {
    let parts = vgg_tensor::on_thread_ranks(3, |rank| rank_partition(&*rank));
    assert_eq!(parts, [1, 2, 3].map(|number| Partition { index: number - 1, count: 3 }));
}
