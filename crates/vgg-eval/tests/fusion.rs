//! Fusion of networks and merging of parts: values by hand, and errors.

mod common;

use std::path::Path;

use ndarray::{Array2, array};
use vgg_data::{Geometry, Interpolation};
use vgg_eval::{
    DensePool, Error, Evaluation, ModelProvenance, Origin, Partition, Posteriors, Protocol, Result, fuse,
    merge,
};

fn network(weights: &str) -> ModelProvenance {
    let evaluation = Evaluation {
        protocol: Protocol::Dense,
        test_scales: vec![256],
        flip: true,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        dense_pool: DensePool::ScoreMean,
        pool_rounding: None,
    };
    ModelProvenance { evaluation, weights: weights.to_owned() }
}

/// One network's posteriors of images `val/c0/0.png`, `val/c1/1.png` and so on.
fn member(weights: &str, values: Array2<f32>) -> Posteriors {
    let n = values.nrows();
    let classes = (0..values.ncols()).map(|class| format!("c{class}")).collect();
    Posteriors {
        labels: (0..n).map(|image| (image % 2) as u32).collect(),
        paths: (0..n).map(|image| format!("val/c{}/{image}.png", image % 2)).collect(),
        skipped: Vec::new(),
        origin: Origin {
            networks: vec![network(weights)],
            classes,
            dataset: "d1".into(),
            part: Partition::WHOLE,
        },
        values,
    }
}

/// Removes an image and lists it as skipped.
fn skip(posteriors: &mut Posteriors, image: usize) {
    let rows: Vec<usize> = (0..posteriors.paths.len()).filter(|row| *row != image).collect();
    posteriors.values = posteriors.values.select(ndarray::Axis(0), &rows);
    posteriors.labels.remove(image);
    let path = posteriors.paths.remove(image);
    posteriors.skipped.push(format!("cannot decode /data/set/{path}: the file is empty"));
}

fn fused(members: &[&Posteriors]) -> Result<Posteriors> {
    put_together(members, fuse)
}

fn merged(parts: &[&Posteriors]) -> Result<Posteriors> {
    put_together(parts, merge)
}

/// Fuses or merges files `0.st`, `1.st` and so on.
fn put_together(
    all: &[&Posteriors],
    how: fn(&[(&Path, &Posteriors)]) -> Result<Posteriors>,
) -> Result<Posteriors> {
    let names: Vec<String> = (0..all.len()).map(|number| format!("{number}.st")).collect();
    let named: Vec<(&Path, &Posteriors)> =
        names.iter().map(Path::new).zip(all).map(|(path, posteriors)| (path, *posteriors)).collect();
    how(&named)
}

#[track_caller]
fn assert_refused(result: Result<Posteriors>, words: &[&str]) {
    match result.map(|posteriors| posteriors.paths) {
        Err(Error::Fusion(what)) => {
            assert!(words.iter().all(|word| what.contains(word)), "{what} lacks some of {words:?}");
        }
        other => panic!("{other:?} is not a fusion error with {words:?}"),
    }
}

#[test]
fn fusion_is_the_mean_of_different_members() {
    let a = member("a", array![[0.75, 0.25, 0.0], [0.5, 0.25, 0.25]]);
    let b = member("b", array![[0.0, 0.25, 0.75], [0.125, 0.25, 0.625]]);
    let c = member("c", array![[0.75, 0.25, 0.0], [0.125, 0.625, 0.25]]);
    let mean = fused(&[&a, &b, &c]).unwrap();
    assert_eq!(mean.values, array![[0.5, 0.25, 0.25], [0.25, 0.375, 0.375]]);
    assert_eq!((mean.labels, mean.paths), (a.labels.clone(), a.paths.clone()));
    let weights: Vec<&str> = mean.origin.networks.iter().map(|network| network.weights.as_str()).collect();
    assert_eq!(weights, ["a", "b", "c"]);
    assert_eq!(mean.origin, Origin { networks: mean.origin.networks.clone(), ..a.origin.clone() });
    assert!(mean.skipped.is_empty());
}

#[test]
fn fused_posteriors_weigh_as_much_as_their_networks() {
    let a = member("a", array![[1.0, 0.0], [0.25, 0.75]]);
    let b = member("b", array![[0.5, 0.5], [0.75, 0.25]]);
    let c = member("c", array![[0.0, 1.0], [0.5, 0.5]]);
    let ab = fused(&[&a, &b]).unwrap();
    // The fused file has weight 2 of 3: (2 * 0.75 + 0) / 3 and so on.
    assert_eq!(fused(&[&ab, &c]).unwrap().values, array![[0.5, 0.5], [0.5, 0.5]]);
    assert_eq!(fused(&[&c, &ab]).unwrap().values, fused(&[&a, &b, &c]).unwrap().values);
    let aab = fused(&[&a, &ab]).unwrap();
    assert_eq!(
        aab.values,
        array![[(2.5_f64 / 3.0) as f32, (0.5_f64 / 3.0) as f32], [1.25 / 3.0, 1.75 / 3.0]]
    );
    assert_eq!(aab.origin.networks.len(), 3);
}

#[test]
fn posteriors_of_unknown_networks_count_once() {
    let mut a = member("a", array![[1.0, 0.0]]);
    let mut b = member("b", array![[0.5, 0.5]]);
    a.origin.networks.clear();
    b.origin.networks.clear();
    assert_eq!(fused(&[&a, &b]).unwrap().values, array![[0.75, 0.25]]);
}

#[test]
fn fusion_averages_in_f64() {
    // f32 would round 1 + 2^-24 to 1, twice, and lose 2^-23 of the sum.
    let small = 2.0_f32.powi(-24);
    let members = [1.0, small, small, 0.0].map(|value| member("a", array![[value]]));
    let mean = fused(&members.each_ref()).unwrap();
    assert_eq!(mean.values[[0, 0]], (1.0 + 2.0_f32.powi(-23)) / 4.0);
    // The division too: in f32 the quotient would be the next number below 0.6.
    let shares = [0.6_f32, 0.7, 0.5].map(|value| member("a", array![[value]]));
    let mean = fused(&shares.each_ref()).unwrap();
    let exact = (f64::from(0.6_f32) + f64::from(0.7_f32) + f64::from(0.5_f32)) / 3.0;
    assert_eq!(mean.values[[0, 0]].to_bits(), (exact as f32).to_bits());
}

#[test]
fn an_image_that_one_file_skipped_is_left_out() {
    let mut a = member("a", array![[1.0, 0.0], [0.5, 0.5], [0.25, 0.75], [0.125, 0.875]]);
    let mut b = member("b", array![[0.5, 0.5], [0.0, 1.0], [0.75, 0.25], [0.375, 0.625]]);
    skip(&mut a, 1);
    skip(&mut b, 3);
    let mean = fused(&[&a, &b]).unwrap();
    assert_eq!(mean.values, array![[0.75, 0.25], [0.5, 0.5]]);
    assert_eq!(mean.paths, ["val/c0/0.png", "val/c0/2.png"]);
    assert_eq!(mean.labels, [0, 0]);
    assert_eq!(mean.skipped, [a.skipped[0].clone(), b.skipped[0].clone()]);
    // The order of the files does not matter, and both may skip the same image.
    skip(&mut a, 0);
    skip(&mut b, 0);
    let mean = fused(&[&b, &a]).unwrap();
    assert_eq!((mean.paths, mean.values), (vec!["val/c0/2.png".to_owned()], array![[0.5, 0.5]]));
    assert_eq!(mean.skipped.len(), 3);
}

#[test]
fn skipped_images_match_by_whole_path() {
    let a = member("a", array![[1.0, 0.0], [0.5, 0.5]]);
    let mut b = a.clone();
    b.skipped = [
        "cannot decode /data/set/other-val/c0/0.png: the file is empty",
        "cannot decode /data/set/val/c1/1.png.jpg: the file is empty",
    ]
    .map(str::to_owned)
    .to_vec();
    assert_eq!(fused(&[&a, &b]).unwrap().paths, a.paths);
    // If the image is absent, reasons with other paths do not mark it as skipped: the images differ.
    for reason in [
        "cannot decode /data/set/other-val/c0/0.png: the file is empty",
        "cannot decode /data/set/val/c0/0.png.jpg: the file is empty",
    ] {
        let mut c = a.clone();
        skip(&mut c, 0);
        assert!(fused(&[&a, &c]).is_ok());
        c.skipped = vec![reason.to_owned()];
        assert_refused(fused(&[&a, &c]), &["1.st"]);
    }
}

#[test]
fn fusion_without_files_or_common_images_is_rejected() {
    assert_refused(fused(&[]), &["no posteriors"]);
    let mut a = member("a", array![[1.0, 0.0], [0.5, 0.5]]);
    let mut b = a.clone();
    skip(&mut a, 0);
    skip(&mut b, 1);
    assert_refused(fused(&[&a, &b]), &["no image"]);
}

#[test]
fn fusion_of_different_images_or_classes_is_rejected_with_the_file() {
    let a = member("a", array![[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]);
    // The first two files agree, so the error names the third.
    let with = |change: fn(&mut Posteriors)| {
        let mut odd = a.clone();
        change(&mut odd);
        fused(&[&a, &a, &odd])
    };
    assert!(with(|_| {}).is_ok());
    assert_refused(with(|p| p.labels[2] = 1), &["2.st", "labels"]);
    assert_refused(
        with(|p| p.paths[1] = "val/c1/9.png".into()),
        &["2.st", "0.st", "val/c1/9.png", "val/c1/1.png"],
    );
    assert_refused(with(|p| p.paths.swap(0, 2)), &["2.st", "val/c0/0.png", "val/c0/2.png"]);
    assert_refused(with(|p| p.origin.classes[1] = "dog".into()), &["0.st and 2.st", "classes"]);
    assert_refused(with(|p| p.values = Array2::zeros((3, 3))), &["0.st and 2.st", "classes"]);
    assert_refused(with(|p| p.origin.dataset = "d2".into()), &["0.st and 2.st", "images"]);
    assert_refused(with(|p| p.origin.part = Partition { index: 0, count: 2 }), &["0.st and 2.st", "images"]);
    let fewer = with(|p| {
        skip(p, 2);
        p.skipped.clear();
    });
    assert_refused(fewer, &["2.st", "2 images", "0.st", "3"]);
}

/// A part of `all` with these rows.
fn part(all: &Posteriors, number: usize, of: usize, rows: std::ops::Range<usize>) -> Posteriors {
    Posteriors {
        values: all.values.slice(ndarray::s![rows.clone(), ..]).to_owned(),
        labels: all.labels[rows.clone()].to_vec(),
        paths: all.paths[rows].to_vec(),
        skipped: vec![format!("skipped in {number}")],
        origin: Origin { part: Partition { index: number - 1, count: of }, ..all.origin.clone() },
    }
}

/// Five images, and parts of 2, 0 and 3 of them.
fn three_parts() -> (Posteriors, [Posteriors; 3]) {
    let rows = [[1.0, 0.0], [0.875, 0.125], [0.75, 0.25], [0.625, 0.375], [0.5, 0.5]];
    let all = member("a", Array2::from(rows.to_vec()));
    let parts = [part(&all, 1, 3, 0..2), part(&all, 2, 3, 2..2), part(&all, 3, 3, 2..5)];
    (all, parts)
}

#[test]
fn parts_are_merged_in_part_order_for_any_order_of_files() {
    let (all, [first, empty, last]) = three_parts();
    for files in [[&first, &empty, &last], [&last, &first, &empty], [&empty, &last, &first]] {
        let whole = merged(&files).unwrap();
        assert_eq!(whole.values, all.values);
        assert_eq!((whole.labels, whole.paths), (all.labels.clone(), all.paths.clone()));
        assert_eq!(whole.skipped, ["skipped in 1", "skipped in 2", "skipped in 3"]);
        assert_eq!(whole.origin, all.origin);
    }
}

#[test]
fn missing_and_duplicate_parts_are_rejected() {
    let (all, [first, empty, last]) = three_parts();
    assert_refused(merged(&[]), &["no posteriors"]);
    assert_refused(merged(&[&empty]), &["missing parts: 1/3, 3/3"]);
    assert_refused(merged(&[&last, &first]), &["missing parts: 2/3"]);
    assert_refused(merged(&[&first, &empty, &last, &empty]), &["1.st", "3.st", "part 2/3"]);
    assert_refused(merged(&[&part(&all, 4, 3, 0..2)]), &["0.st", "part 4/3"]);
    assert_refused(merged(&[&first, &empty, &part(&all, 3, 3, 1..5)]), &["two parts"]);
}

#[test]
fn parts_of_different_evaluations_are_rejected_with_the_files() {
    let (all, [first, empty, last]) = three_parts();
    let with = |change: fn(&mut Posteriors)| {
        let mut odd = last.clone();
        change(&mut odd);
        merged(&[&first, &empty, &odd])
    };
    assert!(with(|_| {}).is_ok());
    let files = ["0.st", "2.st"];
    assert_refused(with(|p| p.origin.networks[0].weights = "b".into()), &files);
    assert_refused(with(|p| p.origin.networks[0].evaluation.test_scales = vec![288]), &files);
    assert_refused(with(|p| p.origin.networks[0].evaluation.protocol = Protocol::Centre), &files);
    assert_refused(with(|p| p.origin.dataset = "d2".into()), &files);
    assert_refused(with(|p| p.origin.classes[0] = "cat".into()), &files);
    assert_refused(with(|p| p.origin.part.count = 4), &files);
    let of_two = [part(&all, 1, 2, 0..2), part(&all, 2, 3, 2..5)];
    assert_refused(merged(&[&of_two[0], &of_two[1]]), &["0.st", "1.st"]);
}
