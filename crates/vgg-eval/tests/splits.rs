//! Evaluation of whole splits: order, batches, progress, parts, skipped images, and ranks.

mod common;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use common::{CROP, PREPROCESSING, TOLERANCE, distance, evaluation, network, options, write_set};
use vgg_data::{Image, ImageSet, OnBadImage, Split, write_png};
use vgg_eval::{
    Error, EvalModel, EvaluateOptions, Evaluation, ModelProvenance, Partition, Posteriors, Protocol, Result,
    classify, dump_views, evaluate, evaluate_on_ranks, match_classes, merge,
};
use vgg_tensor::{ProcessGroup, SingleProcess, on_thread_ranks};
use vgg_testkit::assert_close;

/// Files and sizes: two images of one size, one of another, three of the first size, and one of a third.
const FILES: [(&str, (usize, usize)); 7] = [
    ("ant/1.png", (40, 56)),
    ("ant/2.png", (40, 56)),
    ("bee/1.png", (56, 40)),
    ("bee/2.png", (40, 56)),
    ("cow/1.png", (40, 56)),
    ("cow/2.png", (40, 56)),
    ("cow/3.png", (48, 48)),
];
const LABELS: [u32; 7] = [0, 0, 1, 1, 2, 2, 2];

fn dense() -> Evaluation {
    evaluation(Protocol::Dense, &[64, 40])
}

fn model(evaluation: &Evaluation, weights_hash: &str) -> EvalModel<'static> {
    evaluation.prepare(network(3), PREPROCESSING, weights_hash).unwrap()
}

fn open(root: &Path) -> Arc<ImageSet> {
    Arc::new(ImageSet::open(root, Split::Val).unwrap())
}

fn set() -> (tempfile::TempDir, Arc<ImageSet>) {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), &FILES);
    let image_set = open(dir.path());
    (dir, image_set)
}

fn run(image_set: &Arc<ImageSet>, evaluation: &Evaluation, options: EvaluateOptions) -> Result<Posteriors> {
    let mut ignore_progress = |_| ControlFlow::Continue(());
    evaluate(&model(evaluation, "w1"), image_set, evaluation, options, &mut ignore_progress)
}

/// The values that progress receives, and the result, if call `stop` of progress interrupts the evaluation.
fn reported(
    image_set: &Arc<ImageSet>,
    evaluation: &Evaluation,
    options: EvaluateOptions,
    stop: usize,
) -> (Vec<usize>, Result<Posteriors>) {
    let mut reported = Vec::new();
    let mut progress = |done| {
        reported.push(done);
        if reported.len() == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let result = evaluate(&model(evaluation, "w1"), image_set, evaluation, options, &mut progress);
    (reported, result)
}

/// Asserts that the posteriors equal those of these images of the split, each classified separately.
#[track_caller]
fn assert_classified(ours: &Posteriors, image_set: &ImageSet, evaluation: &Evaluation, images: &[usize]) {
    let model = model(evaluation, "w1");
    let paths: Vec<String> = images.iter().map(|i| image_set.path(*i).into_owned()).collect();
    assert_eq!(ours.paths, paths);
    let labels: Vec<u32> = images.iter().map(|i| image_set.target(*i)).collect();
    assert_eq!(ours.labels, labels);
    assert_eq!(ours.values.dim(), (images.len(), image_set.classes().len()));
    for (row, i) in ours.values.rows().into_iter().zip(images) {
        let image = image_set.image(*i).unwrap();
        let alone = classify(&model, &image, evaluation).unwrap();
        assert_close(&row.to_vec(), &alone, TOLERANCE, &format!("image {i}"));
    }
}

#[test]
fn posteriors_are_in_split_order_for_images_of_any_size() {
    let (_dir, image_set) = set();
    for base in [
        dense(),
        evaluation(Protocol::Centre, &[40]),
        evaluation(Protocol::MultiCrop, &[40, 48]),
        evaluation(Protocol::Combined, &[40]),
    ] {
        let ours = run(&image_set, &base, options(2)).unwrap();
        assert_classified(&ours, &image_set, &base, &[0, 1, 2, 3, 4, 5, 6]);
    }
    let ours = run(&image_set, &dense(), options(2)).unwrap();
    assert_eq!(ours.labels, LABELS);
    let paths: Vec<String> = FILES.iter().map(|file| format!("val/{}", file.0)).collect();
    assert_eq!(ours.paths, paths);
    for (i, row) in ours.values.rows().into_iter().enumerate() {
        for other in ours.values.rows().into_iter().take(i) {
            let apart = distance(&row.to_vec(), &other.to_vec());
            assert!(apart > 1e-3, "image {i} and another have nearly the same posterior: {apart}");
        }
    }
}

#[test]
fn posteriors_are_independent_of_the_number_of_workers() {
    let (_dir, image_set) = set();
    let one = run(&image_set, &dense(), options(1)).unwrap();
    for workers in [0, 3, 40] {
        let other = run(&image_set, &dense(), options(workers)).unwrap();
        assert_eq!((&one.values, &one.paths), (&other.values, &other.paths), "{workers} workers");
    }
}

#[test]
fn posteriors_record_network_protocol_and_data_set() {
    let (_dir, image_set) = set();
    let part = Partition { index: 1, count: 3 };
    let ours = run(&image_set, &dense(), EvaluateOptions { part, ..options(1) }).unwrap();
    assert_eq!(ours.origin.networks, [ModelProvenance { evaluation: dense(), weights: "w1".into() }]);
    assert_eq!(ours.origin.classes, ["ant", "bee", "cow"]);
    assert_eq!(ours.origin.dataset, image_set.hash().as_str());
    assert_eq!(ours.origin.part, part);
    assert!(ours.skipped.is_empty());
}

#[test]
fn progress_counts_images_whenever_the_size_changes() {
    let (_dir, image_set) = set();
    assert_eq!(reported(&image_set, &dense(), options(2), 0).0, [2, 3, 6, 7]);
    // Crops of all images have the same size.
    assert_eq!(reported(&image_set, &evaluation(Protocol::Centre, &[40]), options(2), 0).0, [7]);
}

#[test]
fn thirty_two_images_of_one_size_form_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..71).map(|i| format!("{}/{i:02}.png", ["a", "b", "c"][i / 30])).collect();
    let files: Vec<(&str, (usize, usize))> = names.iter().map(|name| (name.as_str(), (32, 32))).collect();
    write_set(dir.path(), &files);
    let image_set = open(dir.path());
    let base = Evaluation { flip: false, ..evaluation(Protocol::Centre, &[32]) };
    let (reported, ours) = reported(&image_set, &base, options(2), 0);
    assert_eq!(reported, [32, 64, 71]);
    assert_classified(&ours.unwrap(), &image_set, &base, &(0..71).collect::<Vec<_>>());
}

#[test]
fn an_evaluation_ends_as_soon_as_progress_breaks() {
    let (_dir, image_set) = set();
    for (stop, expected) in [(1, &[2][..]), (3, &[2, 3, 6]), (4, &[2, 3, 6, 7])] {
        let (reported, result) = reported(&image_set, &dense(), options(2), stop);
        assert!(matches!(result, Err(Error::Interrupted)), "{stop}");
        assert_eq!(reported, expected);
    }
}

#[test]
fn parts_are_evaluated_alone_and_merge_to_the_whole() {
    let (_dir, image_set) = set();
    let of = |number: usize| {
        run(
            &image_set,
            &dense(),
            EvaluateOptions { part: Partition { index: number - 1, count: 3 }, ..options(1) },
        )
        .unwrap()
    };
    let parts = [of(1), of(2), of(3)];
    for (part, images) in parts.iter().zip([&[0, 1][..], &[2, 3], &[4, 5, 6]]) {
        assert_classified(part, &image_set, &dense(), images);
    }
    let named: Vec<(&Path, &Posteriors)> = parts.iter().map(|part| (Path::new("p"), part)).collect();
    assert_classified(&merge(&named).unwrap(), &image_set, &dense(), &[0, 1, 2, 3, 4, 5, 6]);
    // Progress counts the images of the part.
    let last = EvaluateOptions { part: Partition { index: 2, count: 3 }, ..options(1) };
    assert_eq!(reported(&image_set, &dense(), last, 0).0, [2, 3]);
}

#[test]
fn a_part_may_be_empty() {
    let (_dir, image_set) = set();
    let part = Partition { index: 0, count: 8 };
    let empty = run(&image_set, &dense(), EvaluateOptions { part, ..options(1) }).unwrap();
    assert_eq!((empty.values.dim(), empty.labels.len(), empty.paths.len()), ((0, 3), 0, 0));
    assert_eq!(empty.origin.part, part);
}

/// Makes these images of the set unreadable.
fn damage(dir: &Path, files: &[&str]) {
    for file in files {
        std::fs::write(dir.join("val").join(file), b"").unwrap();
    }
}

const SKIP: EvaluateOptions =
    EvaluateOptions { workers: 2, on_bad_image: OnBadImage::Skip, part: Partition::WHOLE };

#[test]
fn bad_images_stop_the_evaluation_or_are_skipped_and_listed() {
    let (dir, image_set) = set();
    damage(dir.path(), &["ant/2.png", "cow/1.png"]);
    let stopped = run(&image_set, &dense(), options(2)).unwrap_err();
    assert!(matches!(&stopped, Error::Data(_)) && stopped.to_string().contains("val/ant/2.png"), "{stopped}");
    let (reported, skipped) = reported(&image_set, &dense(), SKIP, 0);
    let skipped = skipped.unwrap();
    assert_classified(&skipped, &image_set, &dense(), &[0, 2, 3, 5, 6]);
    // Skipped images count in progress.
    assert_eq!(reported, [2, 3, 6, 7]);
    assert_eq!(skipped.skipped.len(), 2);
    assert!(skipped.skipped[0].contains("val/ant/2.png") && skipped.skipped[1].contains("val/cow/1.png"));
    // A missing file is always an error: the data set has changed.
    std::fs::remove_file(dir.path().join("val").join("cow/1.png")).unwrap();
    let gone = run(&image_set, &dense(), SKIP).unwrap_err();
    assert!(matches!(&gone, Error::Data(_)) && gone.to_string().contains("val/cow/1.png"), "{gone}");
}

#[test]
fn an_image_that_is_too_large_at_a_test_scale_is_named() {
    let (dir, _) = set();
    // At test scale 40 the image has 40 x 1,280,000 pixels, more than 50 million.
    let long = Image::zeros((1, 32_000, 3));
    write_png(&dir.path().join("val/bee/1.png"), &long).unwrap();
    let image_set = open(dir.path());
    let base = evaluation(Protocol::Dense, &[40]);
    let stopped = run(&image_set, &base, options(1)).unwrap_err().to_string();
    assert!(stopped.contains("val/bee/1.png") && stopped.contains("40 x 1280000"), "{stopped}");
    let skipped = run(&image_set, &base, SKIP).unwrap();
    assert_classified(&skipped, &image_set, &base, &[0, 1, 3, 4, 5, 6]);
    assert!(skipped.skipped[0].contains("val/bee/1.png"), "{:?}", skipped.skipped);
    let dumped = dump_views(&image_set, &base, CROP, options(1), &dir.path().join("views")).unwrap_err();
    assert!(dumped.to_string().contains("val/bee/1.png"), "{dumped}");
}

#[test]
fn a_split_without_decodable_images_is_an_error() {
    let (dir, image_set) = set();
    damage(dir.path(), &FILES.map(|file| file.0));
    let none = run(&image_set, &dense(), SKIP);
    assert!(matches!(&none, Err(Error::NoImages { path }) if path == dir.path()), "{none:?}");
    assert!(none.unwrap_err().to_string().contains(dir.path().to_str().unwrap()));
    // A part that has images, but no decodable ones, is an error too.
    let part = run(&image_set, &dense(), EvaluateOptions { part: Partition { index: 1, count: 3 }, ..SKIP });
    assert!(matches!(part, Err(Error::NoImages { .. })));
    let ranks = on_thread_ranks(2, |rank| run_on(&*rank, &image_set, "w1", SKIP));
    assert!(matches!(ranks[0], Err(Error::NoImages { .. })) && matches!(ranks[1], Ok(None)), "{ranks:?}");
    let alone = run_on(&SingleProcess, &image_set, "w1", SKIP);
    assert!(matches!(alone, Err(Error::NoImages { .. })));
}

#[test]
fn other_numbers_of_classes_and_test_scales_below_the_crop_are_rejected() {
    let (_dir, image_set) = set();
    let base = dense();
    let other = base.prepare(network(4), PREPROCESSING, "w").unwrap();
    let mut ignore_progress = |_| ControlFlow::Continue(());
    let refused = evaluate(&other, &image_set, &base, options(1), &mut ignore_progress);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::Classes { network: 4, dataset: 3 }), "{refused:?}");
    assert!(refused.to_string().contains("network has 4") && refused.to_string().contains("set has 3"));
    assert!(matches!(
        run(&image_set, &evaluation(Protocol::Dense, &[31]), options(1)),
        Err(Error::Config(_))
    ));
}

#[test]
fn classes_are_matched_by_name() {
    let (dir, image_set) = set();
    assert_eq!(image_set.classes(), ["ant", "bee", "cow"]);
    let hash = image_set.hash();
    let matched = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        match_classes(&names, ImageSet::open(dir.path(), Split::Val).unwrap())
    };
    let targets = |set: &ImageSet| (0..set.len()).map(|i| set.target(i)).collect::<Vec<_>>();
    let own = targets(&image_set);
    assert_eq!(targets(&matched(&["ant", "bee", "cow"]).unwrap()), own);
    // Another order, and a network with more classes.
    let set = matched(&["cow", "dog", "ant", "bee"]).unwrap();
    let expected: Vec<u32> = own.iter().map(|target| [2, 3, 0][*target as usize]).collect();
    assert_eq!((targets(&set), set.hash(), set.classes().len()), (expected, hash, 4));
    // Unnamed classes match any data set with as many.
    assert_eq!(targets(&matched(&["unnamed0", "unnamed1", "unnamed2"]).unwrap()), own);
    let fewer = matched(&["unnamed0", "unnamed1"]).err().unwrap();
    assert!(matches!(fewer, Error::Classes { network: 2, dataset: 3 }), "{fewer:?}");
    for (names, unknown) in [
        (&["cow", "ant"][..], "1 of its 3 classes: bee"),
        (&["class1", "class2", "class3"], "3 of its 3 classes: ant, bee, cow"),
        (&["unnamed0", "bee", "unnamed2"], "2 of its 3 classes: ant, cow"),
    ] {
        let message = matched(names).err().unwrap().to_string();
        assert!(message.contains(unknown), "{message}");
    }
}

/// Evaluates on a rank with this weights hash.
fn run_on(
    group: &dyn ProcessGroup,
    image_set: &Arc<ImageSet>,
    weights: &str,
    options: EvaluateOptions,
) -> Result<Option<Posteriors>> {
    let base = dense();
    let mut ignore_progress = |_| ControlFlow::Continue(());
    evaluate_on_ranks(group, &model(&base, weights), image_set, &base, options, &mut ignore_progress)
}

#[test]
fn rank_0_gets_the_posteriors_of_all_ranks() {
    let (dir, image_set) = set();
    damage(dir.path(), &["ant/2.png", "cow/2.png"]);
    let single = run(&image_set, &dense(), SKIP).unwrap();
    // With nine ranks, some have no image. The part in the options is ignored.
    for size in [1, 2, 3, 9] {
        let of_rank = |rank: Arc<dyn ProcessGroup>| {
            run_on(
                &*rank,
                &image_set,
                "w1",
                EvaluateOptions { part: Partition { index: 1, count: 2 }, ..SKIP },
            )
        };
        let mut ranks: Vec<Option<Posteriors>> =
            on_thread_ranks(size, of_rank).into_iter().map(Result::unwrap).collect();
        assert!(ranks[1..].iter().all(Option::is_none), "{size} ranks");
        let ours = ranks.swap_remove(0).unwrap();
        assert_classified(&ours, &image_set, &dense(), &[0, 2, 3, 4, 6]);
        assert_eq!(
            (ours.skipped, ours.origin),
            (single.skipped.clone(), single.origin.clone()),
            "{size} ranks"
        );
    }
    let alone = run_on(&SingleProcess, &image_set, "w1", SKIP).unwrap().unwrap();
    assert_eq!((alone.values, alone.origin), (single.values, single.origin));
}

#[test]
fn interrupting_one_rank_interrupts_all() {
    let (_dir, image_set) = set();
    for stopped in 0..3 {
        let results = on_thread_ranks(3, |rank| {
            let base = dense();
            let mut progress = |_| match rank.rank() == stopped {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            evaluate_on_ranks(&*rank, &model(&base, "w1"), &image_set, &base, options(1), &mut progress)
        });
        assert!(results.iter().all(|result| matches!(result, Err(Error::Interrupted))), "{results:?}");
    }
}

#[test]
fn ranks_with_another_network_than_rank_0_are_rejected() {
    let (_dir, image_set) = set();
    let results = on_thread_ranks(3, |rank| {
        let weights = if rank.rank() == 2 { "w2" } else { "w1" };
        run_on(&*rank, &image_set, weights, options(1))
    });
    assert!(matches!(&results[2], Err(Error::Ranks(what)) if what.contains("rank 2")), "{:?}", results[2]);
    // The other ranks lose the connection to it.
    assert!(results[..2].iter().all(|result| matches!(result, Err(Error::Tensor(_)))), "{results:?}");
}

#[test]
fn a_failing_rank_reports_its_error() {
    let (dir, image_set) = set();
    damage(dir.path(), &["cow/2.png"]);
    let results = on_thread_ranks(2, |rank| run_on(&*rank, &image_set, "w1", options(1)));
    assert!(matches!(&results[1], Err(Error::Data(e)) if e.to_string().contains("cow/2.png")), "{results:?}");
    assert!(results[0].is_err());
}
