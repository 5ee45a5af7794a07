//! Error rates, their intervals and the loss: values by hand.

mod common;

use common::posteriors;
use ndarray::{Array2, array};
use vgg_eval::{ErrorRate, Posteriors, top_k_error};

/// Scores of seven classes, with another best class for each image, and labels that have these ranks, from 1.
fn ranked(ranks: &[usize]) -> (Array2<f32>, Vec<u32>) {
    let best = |image: usize| 3 * image + 1;
    let scores = Array2::from_shape_fn((ranks.len(), 7), |(image, class)| {
        let rank = (class + 7 * ranks.len() - best(image) % 7) % 7;
        1.0 / (2.0 + rank as f32)
    });
    let labels =
        ranks.iter().enumerate().map(|(image, rank)| ((best(image) + rank - 1) % 7) as u32).collect();
    (scores, labels)
}

#[test]
fn top_k_error_counts_labels_ranked_below_k() {
    let (scores, labels) = ranked(&[1, 2, 5, 6, 7, 1, 3, 6]);
    let wrong: Vec<usize> = (0..=9).map(|k| top_k_error(scores.view(), &labels, k).wrong).collect();
    // If k is at least the number of classes, no image is wrong; if k is 0, all are.
    assert_eq!(wrong, [8, 6, 5, 4, 4, 3, 1, 0, 0, 0]);
    let p = posteriors(scores, &labels);
    assert_eq!(p.top1_error(), ErrorRate { wrong: 6, n: 8 });
    assert_eq!(p.top5_error(), ErrorRate { wrong: 3, n: 8 });
    assert_eq!((p.top1_error().rate(), p.top5_error().rate()), (0.75, 0.375));
}

#[test]
fn a_label_that_ties_at_the_kth_place_is_wrong() {
    let scores = array![[0.4_f32, 0.25, 0.25, 0.1]];
    for (label, first_right) in [(0, 1), (1, 3), (2, 3), (3, 4)] {
        for k in 1..=5 {
            let wrong = top_k_error(scores.view(), &[label], k).wrong;
            assert_eq!(wrong, usize::from(k < first_right), "label {label}, k = {k}");
        }
    }
}

#[test]
fn equal_scores_are_wrong_for_every_k_below_the_number_of_classes() {
    let scores = Array2::from_elem((3, 6), 1.0_f32 / 6.0);
    let wrong: Vec<usize> = (1..=7).map(|k| top_k_error(scores.view(), &[0, 3, 5], k).wrong).collect();
    assert_eq!(wrong, [3, 3, 3, 3, 3, 0, 0]);
}

#[test]
fn a_label_with_nan_is_wrong_for_every_k() {
    let scores = array![[0.2, f32::NAN, 0.7], [f32::NAN, f32::NAN, f32::NAN]];
    for k in 1..=4 {
        assert_eq!(top_k_error(scores.view(), &[1, 2], k).wrong, 2, "k = {k}");
    }
}

#[test]
fn nan_of_another_class_is_not_a_better_score() {
    let scores = array![[f32::NAN, 0.7, 0.2], [0.7, 0.2, f32::NAN]];
    assert_eq!(top_k_error(scores.view(), &[1, 1], 1).wrong, 1);
    assert_eq!(top_k_error(scores.view(), &[1, 1], 2).wrong, 0);
}

#[test]
fn no_images_have_rate_zero_and_the_whole_interval() {
    let none = top_k_error(Array2::zeros((0, 3)).view(), &[], 1);
    assert_eq!(none, ErrorRate { wrong: 0, n: 0 });
    assert_eq!((none.rate(), none.interval()), (0.0, [0.0, 1.0]));
}

#[test]
fn intervals_stay_within_zero_and_one() {
    // Unclamped, rounding takes the lower end below 0 for n = 2, 7, 9, the upper above 1 for n = 20, 32, 38.
    for n in 1..=200 {
        let [low, _] = ErrorRate { wrong: 0, n }.interval();
        let [_, high] = ErrorRate { wrong: n, n }.interval();
        assert!((0.0..1e-15).contains(&low), "0 of {n}: {low}");
        assert!(high > 1.0 - 1e-15 && high <= 1.0, "{n} of {n}: {high}");
    }
}

#[test]
fn an_error_rate_is_serialised_as_counts() {
    let rate = ErrorRate { wrong: 3, n: 8 };
    assert_eq!(serde_json::to_value(rate).unwrap(), serde_json::json!({ "wrong": 3, "n": 8 }));
}

#[test]
fn the_loss_is_the_mean_of_minus_log_posteriors() {
    let p = posteriors(array![[0.5, 0.25, 0.25], [0.75, 0.125, 0.125], [0.0, 0.0, 1.0]], &[0, 2, 2]);
    // -ln(1/2), -ln(1/8) and -ln 1.
    assert!((p.loss() - 4.0 * std::f64::consts::LN_2 / 3.0).abs() < 1e-15, "{}", p.loss());
}

#[test]
fn the_loss_of_a_zero_posterior_is_finite() {
    let p = posteriors(array![[1.0, 0.0], [1.0, 0.0]], &[1, 0]);
    // Posteriors below 1e-38 count as 1e-38.
    assert!((p.loss() - 38.0 * std::f64::consts::LN_10 / 2.0).abs() < 1e-12, "{}", p.loss());
}

#[test]
fn the_loss_of_no_images_is_positive_zero() {
    let loss = Posteriors::default().loss();
    assert!(loss == 0.0 && loss.is_sign_positive(), "{loss:?}");
}
