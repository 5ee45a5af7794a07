//! Errors per class, confusions, mistakes and comparisons: by hand, scikit-learn, SciPy and statsmodels.

mod common;

use common::posteriors;
use ndarray::{Array2, array};
use serde_json::Value;
use vgg_eval::{ClassErrors, Comparison, Error, ErrorRate, Mistake, Posteriors, top_k_error};

fn rate(wrong: usize, n: usize) -> ErrorRate {
    ErrorRate { wrong, n }
}

/// Posteriors of `n` images of class 0, of which these are wrong.
fn wrong_at(n: usize, wrong: std::ops::Range<usize>) -> Posteriors {
    let values =
        Array2::from_shape_fn(
            (n, 2),
            |(image, class)| {
                if (class == 1) == wrong.contains(&image) { 0.75 } else { 0.25 }
            },
        );
    posteriors(values, &vec![0; n])
}

/// Compares networks on `n` images: `first` images are wrong only in the first network, `second` only in the
/// second, `both` in both.
fn compared(n: usize, first: usize, second: usize, both: usize) -> Comparison {
    let one = wrong_at(n, 0..first + both);
    let other = wrong_at(n, first..first + both + second);
    one.compare(&other, 1).unwrap()
}

#[test]
fn confusion_has_true_classes_in_rows_and_predictions_in_columns() {
    let answers = [(0, 0), (0, 1), (0, 1), (1, 2), (1, 1), (2, 0), (0, 2), (0, 1)];
    let values =
        Array2::from_shape_fn(
            (answers.len(), 3),
            |(image, class)| {
                if class == answers[image].1 { 0.5 } else { 0.25 }
            },
        );
    let labels: Vec<u32> = answers.iter().map(|answer| answer.0).collect();
    let confusion = posteriors(values, &labels).confusion().unwrap();
    assert_eq!(confusion, array![[1, 3, 1], [0, 1, 1], [1, 0, 0]]);
}

#[test]
fn class_errors_count_top_1_and_top_5_separately() {
    // Descending scores: the label's index is the number of classes with higher scores.
    let row = [0.3_f32, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05];
    let labels = [0, 0, 1, 4, 4, 4, 5, 6, 6];
    let values = Array2::from_shape_fn((labels.len(), 7), |(_, class)| row[class]);
    let errors = posteriors(values, &labels).class_errors();
    let expected = [
        (rate(0, 2), rate(0, 2)),
        (rate(1, 1), rate(0, 1)),
        (rate(0, 0), rate(0, 0)),
        (rate(0, 0), rate(0, 0)),
        (rate(3, 3), rate(0, 3)),
        (rate(1, 1), rate(1, 1)),
        (rate(2, 2), rate(2, 2)),
    ];
    assert_eq!(errors, expected.map(|(top1, top5)| ClassErrors { top1, top5 }));
}

#[test]
fn a_prediction_is_the_first_class_of_a_tie() {
    let values = array![[0.2, 0.4, 0.4, 0.0], [0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4]];
    assert_eq!(posteriors(values, &[0, 0, 0]).predictions(), [1, 0, 3]);
}

#[test]
fn a_prediction_skips_nan() {
    let nan = f32::NAN;
    let values = array![[0.2, nan, 0.5, 0.3], [0.6, 0.1, nan, nan], [nan, 0.1, 0.9, nan]];
    assert_eq!(posteriors(values, &[0, 0, 0]).predictions(), [2, 0, 2]);
}

#[test]
fn mistakes_are_sorted_by_posterior_then_image() {
    let values = array![
        [0.2, 0.5, 0.3],
        [0.6, 0.2, 0.2],
        [0.125, 0.125, 0.75],
        [0.5, 0.3, 0.2],
        [0.1, 0.3, 0.6],
        [0.3, 0.5, 0.2],
        [0.0, 0.0, 1.0]
    ];
    let mistakes = posteriors(values, &[0, 0, 1, 2, 2, 0, 0]).mistakes();
    let expected = [(6, 2, 1.0), (2, 2, 0.75), (0, 1, 0.5), (3, 0, 0.5), (5, 1, 0.5)];
    assert_eq!(
        mistakes,
        expected.map(|(image, predicted, posterior)| Mistake { image, predicted, posterior })
    );
}

#[test]
fn a_confusion_matrix_of_more_than_10000_classes_is_rejected() {
    let zeros = |classes| posteriors(Array2::zeros((0, classes)), &[]).confusion();
    assert_eq!(zeros(10_000).unwrap().dim(), (10_000, 10_000));
    let refused = zeros(10_001).unwrap_err();
    assert!(matches!(&refused, Error::Config(what) if what.contains("10001")), "{refused}");
}

#[test]
fn comparison_counts_images_on_which_one_network_is_wrong() {
    let there = compared(40, 12, 3, 5);
    assert_eq!((there.n, there.only_first_wrong, there.only_second_wrong), (40, 12, 3));
    assert_eq!(there.difference, 0.225);
    let back = compared(40, 3, 12, 5);
    assert_eq!((back.only_first_wrong, back.only_second_wrong, back.difference), (3, 12, -0.225));
    // By hand: 9/42 -+ 1.959964 * sqrt((17/42 - (9/42)^2) / 42).
    let [low, high] = there.interval;
    assert!((low - 0.033_120_00).abs() < 1e-7 && (high - 0.395_451_43).abs() < 1e-7, "{low} to {high}");
    assert_eq!(back.interval, [-high, -low]);
    // 2 * (1 + 15 + 105 + 455) / 2^15.
    assert!((there.p_value - 0.035_156_25).abs() < 1e-12 && there.p_value == back.p_value);
}

#[test]
fn comparisons_of_different_k_differ() {
    // Rank of label 0 among seven classes, from 1, by the first and by the second network.
    let of = |ranks: [usize; 6]| {
        let values = Array2::from_shape_fn((6, 7), |(image, class)| match class {
            0 => 20.0 - 2.0 * ranks[image] as f32,
            other => 19.0 - 2.0 * other as f32,
        });
        posteriors(values, &[0; 6])
    };
    let (first, second) = (of([1, 1, 1, 6, 2, 7]), of([2, 3, 6, 1, 7, 6]));
    let counts = |k| {
        let c = first.compare(&second, k).unwrap();
        (c.only_first_wrong, c.only_second_wrong)
    };
    assert_eq!([1, 2, 5, 6].map(counts), [(1, 3), (1, 3), (1, 2), (1, 1)]);
}

#[test]
fn intervals_of_differences_stay_within_minus_one_and_one() {
    let [first, second] = [compared(1, 1, 0, 0), compared(1, 0, 1, 0)];
    assert_eq!((first.interval[1], second.interval[0]), (1.0, -1.0));
    assert!(first.interval[0] > -0.8 && second.interval[1] < 0.8);
}

#[test]
fn a_comparison_of_no_images_has_no_difference() {
    let none = compared(0, 0, 0, 0);
    assert_eq!((none.n, none.difference, none.p_value), (0, 0.0, 1.0));
}

#[test]
fn comparisons_of_different_images_or_labels_are_rejected() {
    let first = posteriors(array![[0.7, 0.3], [0.4, 0.6]], &[0, 1]);
    assert!(first.compare(&first, 1).is_ok());
    let other = |change: fn(&mut Posteriors)| {
        let mut second = first.clone();
        change(&mut second);
        first.compare(&second, 1).unwrap_err()
    };
    for (change, word) in [
        ((|p| p.paths[1] = "2".into()) as fn(&mut Posteriors), "images"),
        (|p| p.paths.swap(0, 1), "images"),
        (|p| p.labels[0] = 1, "images"),
        (|p| p.origin.dataset = "other".into(), "images"),
        (|p| p.origin.part.count = 2, "images"),
        (|p| p.origin.classes = vec!["cat".into(), "dog".into()], "classes"),
        (|p| p.values = array![[0.7, 0.3, 0.0], [0.4, 0.6, 0.0]], "classes"),
    ] {
        let error = other(change);
        assert!(matches!(&error, Error::Fusion(what) if what.contains(word)), "{error}");
    }
}

fn reference() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/analysis.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(list: &Value) -> Vec<usize> {
    list.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

/// Asserts that a comparison matches the reference.
fn assert_compared(ours: Comparison, expected: &Value) {
    let number = |key: &str| expected[key].as_f64().unwrap();
    let counts = [ours.n, ours.only_first_wrong, ours.only_second_wrong];
    assert_eq!(counts, ["n", "first", "second"].map(|key| number(key) as usize));
    assert!((ours.difference - number("difference")).abs() < 1e-15, "{expected}: {ours:?}");
    // The normal quantile has seven digits, 1.6e-8 too large; the error is that times at most 0.6.
    for (end, key) in ours.interval.into_iter().zip(["low", "high"]) {
        assert!((end - number(key)).abs() < 1e-8, "{expected}: {ours:?}");
    }
    // The sum has thousands of logarithms, each with a rounding error of up to 6000 * 2^-53.
    assert!((ours.p_value - number("p")).abs() <= 1e-8 * number("p"), "{expected}: {ours:?}");
}

#[test]
fn wilson_intervals_match_statsmodels() {
    for row in reference()["wilson"].as_array().unwrap() {
        let count = |key: &str| row[key].as_u64().unwrap() as usize;
        let [low, high] = rate(count("wrong"), count("n")).interval();
        let [expected_low, expected_high] = ["low", "high"].map(|key| row[key].as_f64().unwrap());
        // The normal quantile is 1.6e-8 too large; the derivative is at most 0.26 (at n = 4).
        assert!((low - expected_low).abs() < 5e-9, "{row}: {low}");
        assert!((high - expected_high).abs() < 5e-9, "{row}: {high}");
    }
}

#[test]
fn comparisons_match_scipy_and_bonett_and_price() {
    for row in reference()["paired"].as_array().unwrap() {
        let [n, first, second] = ["n", "first", "second"].map(|key| row[key].as_u64().unwrap() as usize);
        assert_compared(compared(n, first, second, (n - first - second) / 3), row);
    }
}

#[test]
fn errors_confusion_and_loss_match_scikit_learn() {
    let reference = reference();
    let classes = reference["classes"].as_u64().unwrap() as usize;
    let labels: Vec<u32> = numbers(&reference["labels"]).into_iter().map(|label| label as u32).collect();
    let of = |which: &str| {
        let unit = reference["unit"].as_f64().unwrap() as f32;
        let values = numbers(&reference[which]["posteriors"]).into_iter().map(|v| v as f32 / unit).collect();
        posteriors(Array2::from_shape_vec((labels.len(), classes), values).unwrap(), &labels)
    };
    for which in ["first", "second"] {
        let (ours, expected) = (of(which), &reference[which]);
        let wrong: Vec<usize> =
            (1..classes).map(|k| top_k_error(ours.values.view(), &labels, k).wrong).collect();
        assert_eq!(wrong, numbers(&expected["wrong"]), "{which}");
        assert!((ours.loss() - expected["loss"].as_f64().unwrap()).abs() < 1e-12, "{which}");
        let confusion: Vec<usize> = ours.confusion().unwrap().iter().map(|count| *count as usize).collect();
        assert_eq!(confusion, numbers(&expected["confusion"]), "{which}");
        let errors = ours.class_errors();
        let top1: Vec<usize> = errors.iter().map(|class| class.top1.wrong).collect();
        let top5: Vec<usize> = errors.iter().map(|class| class.top5.wrong).collect();
        assert_eq!(top1, numbers(&expected["class_top1_wrong"]), "{which}");
        assert_eq!(top5, numbers(&expected["class_top5_wrong"]), "{which}");
    }
    for (k, key) in [(1, "top1"), (5, "top5")] {
        assert_compared(of("first").compare(&of("second"), k).unwrap(), &reference[key]);
    }
}
