//! Rows of `make_table`, recomputed from the posteriors files of their networks.

mod fixture;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use fixture::rows::{PosteriorFile, mean, wilson, wrong};
use fixture::{alone, in_context, member, small_run, starts_from, write_set};
use vgg_eval::{Posteriors, Preprocessing, Protocol, classify};
use vgg_experiment::{
    Dataset, Event, Member, MemberPlan, Row, RowPlan, RunContext, RunEvent, TablePlan, make_table,
};
use vgg_files::hash_file;
use vgg_layers::{Config, Device, LayerSelection};
use vgg_tensor::SingleProcess;
use vgg_testkit::{assert_close, fmix32};
use vgg_train::Schedule;

/// Runs that differ in everything that a row reports, one that diverges, and one that starts from that one.
fn plan() -> TablePlan {
    let mut a = small_run("A/36", Config::A, [36, 36]);
    a.run.max_epochs = 2;
    a.run.seed = 5;
    let mut b = starts_from(small_run("B/jit", Config::B, [34, 48]), "A/36", LayerSelection::Paper);
    b.run.seed = 9;
    let mut jittered = small_run("A/jit", Config::A, [34, 48]);
    jittered.run.max_epochs = 3;
    jittered.run.seed = 7;
    let mut diverging = small_run("X", Config::A, [36, 36]);
    diverging.schedule = Schedule::Constant { lr: 1e30 };
    diverging.may_diverge = true;
    let orphan = starts_from(small_run("Y", Config::B, [36, 36]), "X", LayerSelection::Paper);
    let row = |paper: &str, label: Option<&str>, members: Vec<MemberPlan>| RowPlan {
        label: label.map(str::to_owned),
        members,
        paper: paper.into(),
    };
    let dense = |run: &str, sides: &[usize]| member(run, Protocol::Dense, sides);
    let centre = |run: &str| member(run, Protocol::Centre, &[36]);
    let rows = vec![
        row("1 network", None, vec![dense("B/jit", &[32, 40])]),
        row("2 networks", None, vec![dense("A/36", &[32, 40]), centre("B/jit")]),
        row("submission", Some("jittered"), vec![dense("B/jit", &[40]), dense("A/jit", &[40])]),
        row("1 network", None, vec![dense("A/36", &[40]), dense("X", &[40])]),
        row("2 networks", None, vec![centre("Y")]),
        row(
            "submission",
            None,
            vec![centre("A/36"), dense("B/jit", &[32, 40]), member("A/jit", Protocol::MultiCrop, &[36])],
        ),
        row("1 network", None, vec![centre("A/jit"), dense("B/jit", &[32, 40]), centre("A/36")]),
    ];
    TablePlan {
        name: "table7".into(),
        title: "Table 7".into(),
        profile: "test".into(),
        changes: Vec::new(),
        runs: vec![a, b, jittered, diverging, orphan],
        rows,
    }
}

/// Expected fields of each row of [`plan`] except errors and paths: config, S, Q, protocol, epochs, seed, the
/// paper's row.
type Fixed = (&'static str, &'static [usize], &'static [usize], &'static str, usize, u64, PaperValues);

/// Top-1 error, top-5 error, top-5 error on the test set, S, Q.
type PaperValues = (f64, f64, f64, &'static [usize], &'static [usize]);

const ONE: PaperValues = (0.244, 0.071, 0.070, &[256, 512], &[256, 384, 512]);
const TWO: PaperValues = (0.237, 0.068, 0.068, &[256, 512], &[256, 384, 512]);
const SUBMISSION: PaperValues = (0.247, 0.075, 0.073, &[], &[]);

const FIXED: [Fixed; 7] = [
    ("B", &[34, 48], &[32, 40], "dense", 1, 9, ONE),
    ("A + B", &[], &[], "dense and centre", 2, 5, TWO),
    ("jittered", &[34, 48], &[40], "dense", 3, 9, SUBMISSION),
    ("A", &[36], &[40], "dense", 2, 5, ONE),
    ("B", &[36], &[36], "centre", 0, 1, TWO),
    ("A + B", &[], &[], "centre and dense and multi-crop", 3, 5, SUBMISSION),
    ("A + B", &[], &[], "centre and dense", 3, 7, ONE),
];

const DIVERGED: [(usize, &str); 2] = [(3, "not finite"), (4, "its parent run X diverged")];

fn make(plan: &TablePlan, out: &Path, context: &RunContext) -> Vec<Row> {
    make_table(plan, out, context, &mut |_| ()).unwrap().unwrap()
}

/// A data set in which one validation image is text.
fn set_with_a_bad_image(dir: &Path) -> Dataset {
    write_set(&dir.join("set"), 1, 3);
    std::fs::write(dir.join("set/val/class3/1.png"), "no image").unwrap();
    Dataset::open(&dir.join("set"), 1 << 26).unwrap()
}

/// Checks all fields of the rows of [`plan`] against the files in `out`.
fn check_rows(rows: &[Row], plan: &TablePlan, out: &Path) {
    assert_eq!(rows.len(), FIXED.len() + 13, "our rows, and the rows quoted from the paper");
    for (i, (row, fixed)) in rows.iter().zip(FIXED).enumerate() {
        let diverged = DIVERGED.iter().find(|(at, _)| *at == i).map(|(_, note)| *note);
        let (config, train_scale, test_scales, protocol, epochs, seed, paper) = fixed;
        assert_eq!(row.config, config, "row {i}");
        assert_eq!(
            (row.train_scale.as_slice(), row.test_scales.as_slice()),
            (train_scale, test_scales),
            "row {i}"
        );
        assert_eq!((row.protocol.as_str(), row.epochs, row.seed), (protocol, epochs, seed), "row {i}");
        assert_eq!(row.paper_top1_error, Some(paper.0), "row {i}");
        assert_eq!(row.paper_top5_error, Some(paper.1), "row {i}");
        assert_eq!(row.paper_test_top5_error, Some(paper.2), "row {i}");
        assert_eq!(row.paper_train_scale, paper.3, "row {i}");
        assert_eq!(row.paper_test_scales, paper.4, "row {i}");
        assert_eq!(row.run, row.members[0].run, "row {i}");
        check_members(row, &plan.rows[i], plan, out);
        match diverged {
            None => check_errors(row, out),
            Some(note) => {
                assert!(row.note.as_ref().unwrap().contains(note), "{:?}", row.note);
                let errors = [row.top1_error, row.top5_error];
                assert_eq!((errors, row.top1_ci, row.top5_ci), ([None; 2], None, None), "row {i}");
                assert_eq!((row.n, row.skipped), (0, 0), "row {i}");
            }
        }
    }
}

fn check_members(row: &Row, planned: &RowPlan, plan: &TablePlan, out: &Path) {
    assert_eq!(row.members.len(), planned.members.len());
    for (member, planned) in row.members.iter().zip(&planned.members) {
        let run = plan.run(&planned.run).unwrap();
        let [low, high] = run.data.train_scale;
        assert_eq!(member.name, planned.run);
        assert_eq!(member.config, run.network.config.name());
        assert_eq!(member.train_scale, if low == high { vec![low] } else { vec![low, high] });
        assert_eq!(member.test_scales, planned.evaluation.test_scales);
        assert_eq!(member.protocol, planned.evaluation.protocol.name());
        if ["X", "Y"].contains(&member.name.as_str()) {
            assert_eq!((member.run.as_str(), member.posteriors.as_str()), ("", ""), "it diverged");
        } else {
            check_files(member, planned, out);
        }
    }
}

/// Checks the paths of a trained network and the metadata of its files.
fn check_files(member: &Member, planned: &MemberPlan, out: &Path) {
    let prefix = format!("runs/{}-", member.name.replace('/', "-"));
    assert!(member.run.starts_with(&prefix), "{}", member.run);
    assert!(member.posteriors.starts_with(&format!("{}/posteriors-", member.run)), "{}", member.posteriors);
    assert!(!out.join(&member.run).join("checkpoints").exists(), "checkpoints of a finished run are removed");
    let file = PosteriorFile::read(&out.join(&member.posteriors));
    assert_eq!(file.evaluation, serde_json::to_value(&planned.evaluation).unwrap());
    let weights = hash_file(&out.join(&member.run).join("weights.safetensors")).unwrap();
    assert_eq!(file.weights, weights.as_str());
}

fn check_errors(row: &Row, out: &Path) {
    let read = |member: &Member| PosteriorFile::read(&out.join(&member.posteriors));
    let files: Vec<PosteriorFile> = row.members.iter().map(read).collect();
    let labels = &files[0].labels;
    let n = labels.len();
    assert_eq!((row.n, row.skipped, row.note.as_deref()), (n, files[0].skipped.len(), None));
    assert_eq!((n, row.skipped), (29, 1));
    assert!(files[0].skipped[0].contains("val/class3/1.png"));
    let scores = mean(&files);
    let found = [(1, row.top1_error, row.top1_ci), (5, row.top5_error, row.top5_ci)];
    for (k, rate, interval) in found {
        let wrong = wrong(&scores, labels, k);
        assert_eq!(rate, Some(wrong as f64 / n as f64), "top {k} of {}", row.config);
        for (ours, theirs) in interval.unwrap().into_iter().zip(wilson(wrong, n)) {
            // z is rounded to seven digits, an error below 4e-8, and the ends of the interval change less
            // than z.
            assert!((ours - theirs).abs() < 1e-7, "top {k}: {ours} is not {theirs}");
        }
    }
}

/// Checks one image's posteriors in each file against the run's network.
fn check_posteriors(rows: &[Row], plan: &TablePlan, dataset: &Dataset, out: &Path) {
    let device = Device::cpu(1).unwrap();
    for (row, planned) in rows.iter().zip(&plan.rows).filter(|(row, _)| row.note.is_none()) {
        for (member, planned) in row.members.iter().zip(&planned.members) {
            let weights = out.join(&member.run).join("weights.safetensors");
            let loaded = vgg_weights::load(&weights, &device).unwrap();
            let metadata = &loaded.metadata;
            let preprocessing = Preprocessing {
                offset: metadata.mean_rgb.map(|mean| -mean),
                scale: [metadata.pixel_scale; 3],
            };
            let prepared = planned.evaluation.prepare(loaded.network, preprocessing, "").unwrap();
            let image = dataset.val.image(4).unwrap();
            let expected = classify(&prepared, &image, &planned.evaluation).unwrap();
            let file = PosteriorFile::read(&out.join(&member.posteriors));
            assert_eq!(file.paths[4], dataset.val.path(4));
            // Another batch size may round differently.
            assert_close(&file.values[4], &expected, 1e-5, &member.posteriors);
        }
    }
}

/// Replaces the posteriors in a file by multiples of 1/64 with many ties.
fn overwrite_with_ties(path: &Path, seed: u32) {
    let mut posteriors = Posteriors::load(path).unwrap();
    for (image, mut row) in posteriors.values.rows_mut().into_iter().enumerate() {
        let label = posteriors.labels[image] as usize;
        for (class, value) in row.iter_mut().enumerate() {
            let bits = fmix32(seed ^ (100 * image + class) as u32);
            let bonus = if class == label { fmix32(bits) % 8 } else { 0 };
            *value = (bits % 8 + bonus) as f32 / 64.0;
        }
    }
    posteriors.save(path).unwrap();
}

#[test]
fn rows_follow_from_their_posteriors_files() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = set_with_a_bad_image(dir.path());
    let out = dir.path().join("out");
    let plan = plan();
    let (first, second) = alone(&dataset, |context| {
        let first = make(&plan, &out, context);
        check_rows(&first, &plan, &out);
        check_posteriors(&first, &plan, &dataset, &out);
        let files: BTreeSet<&str> =
            first[..7].iter().flat_map(|row| &row.members).map(|member| member.posteriors.as_str()).collect();
        assert_eq!(files.len(), 1 + 9, "one file per network and protocol, and none for a diverged run");
        for (seed, file) in files.iter().filter(|file| !file.is_empty()).enumerate() {
            overwrite_with_ties(&out.join(file), seed as u32);
        }
        let second = make(&plan, &out, context);
        check_rows(&second, &plan, &out);
        (first, second)
    });
    assert_ne!(first[0].top1_error, second[0].top1_error, "stored posteriors must be reused");
    let rates: BTreeSet<String> = second[..7]
        .iter()
        .filter(|row| row.note.is_none())
        .map(|row| format!("{:?}", row.top1_error))
        .collect();
    assert!(rates.len() >= 4, "rows must differ for this test to detect swapped rows: {rates:?}");
    assert!(second[..3].iter().all(|row| row.top1_error > row.top5_error && row.top5_error > Some(0.0)));
    for row in &second[7..] {
        assert_eq!((row.note.as_deref(), row.members.len(), row.n), (Some("quoted from the paper"), 0, 0));
        assert_eq!((row.top1_error, row.top5_error, row.top1_ci, row.top5_ci), (None, None, None, None));
        assert_eq!((row.protocol.as_str(), row.run.as_str(), row.epochs, row.seed), ("", "", 0, 0));
    }
}

#[test]
fn ties_count_against_the_label() {
    let scores = vec![
        vec![0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0],
        vec![0.25, 0.25, 0.25, 0.25, 0.25, 0.0, 0.0],
        vec![0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.0],
        vec![0.125, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0],
    ];
    assert_eq!(wrong(&scores, &[0, 0, 0, 1], 1), 3);
    assert_eq!(wrong(&scores, &[0, 0, 0, 1], 5), 1);
    // statsmodels 0.15: proportion_confint(23, 29, method="wilson")
    let [low, high] = wilson(23, 29);
    assert!((low - 0.616_099_096).abs() < 1e-9 && (high - 0.901_539_298).abs() < 1e-9, "{low} {high}");
}

#[test]
fn events_report_runs_evaluations_and_rows_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = set_with_a_bad_image(dir.path());
    let mut plan = plan();
    plan.runs.swap(0, 1);
    plan.rows.truncate(2);
    let mut told = Vec::<String>::new();
    let rows = alone(&dataset, |context| {
        make_table(&plan, &dir.path().join("out"), context, &mut |event| {
            told.extend(match event {
                Event::Run { plan, number, of } => Some(format!("run {} {number}/{of}", plan.name)),
                Event::In(RunEvent::Begins { images, .. }) => Some(format!("begins with {images}")),
                Event::Evaluates { member, done, of } if done == of => {
                    Some(format!("evaluated {of} by {} {}", member.run, member.evaluation.protocol.name()))
                }
                Event::Row(row) => Some(format!("row {} {}", row.config, row.n)),
                _ => None,
            });
        })
        .unwrap()
        .unwrap()
    });
    assert_eq!(rows.len(), 2 + 13);
    told.dedup();
    let expected = [
        "run A/36 1/5",
        "begins with 10",
        "run B/jit 2/5",
        "begins with 10",
        "run A/jit 3/5",
        "begins with 10",
        "run X 4/5",
        "begins with 10",
        "run Y 5/5",
        "evaluated 30 by B/jit dense",
        "row B 29",
        "evaluated 30 by A/36 dense",
        "evaluated 30 by B/jit centre",
        "row A + B 29",
    ];
    assert_eq!(told, expected);
}

#[test]
fn interrupted_table_has_no_rows_and_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = set_with_a_bad_image(dir.path());
    let out = dir.path().join("out");
    let mut plan = plan();
    plan.runs.truncate(2);
    plan.rows.truncate(2);
    let stop = Cell::new(true);
    let rows = in_context(&dataset, Arc::new(SingleProcess), &|| stop.get(), |context| {
        let in_training = make_table(&plan, &out, context, &mut |_| ()).unwrap();
        assert!(in_training.is_none());
        stop.set(false);
        let in_evaluation = make_table(&plan, &out, context, &mut |event| {
            stop.set(matches!(event, Event::Evaluates { .. }));
        });
        assert!(in_evaluation.unwrap().is_none());
        stop.set(false);
        let mut cached = 0;
        let rows = make_table(&plan, &out, context, &mut |event| {
            cached += usize::from(matches!(event, Event::In(RunEvent::Cached(_))));
        });
        assert_eq!(cached, 2, "the runs were finished before the interruption");
        rows.unwrap().unwrap()
    });
    assert_eq!(rows.iter().map(|row| row.n).collect::<Vec<_>>()[..2], [29, 29]);
}
