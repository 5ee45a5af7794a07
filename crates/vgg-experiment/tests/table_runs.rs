//! `make_table` with runs that diverge, several ranks, and rows that the paper does not have.

mod fixture;

use std::path::{Path, PathBuf};

use fixture::rows::{PosteriorFile, mean, wilson, wrong};
use fixture::{alone, in_context, member, small_run, write_set};
use serde_json::Value;
use vgg_eval::Protocol;
use vgg_experiment::{Dataset, Event, Row, RowPlan, TablePlan, make_table};
use vgg_files::{hash_bytes, read_json, write_json};
use vgg_layers::Config;
use vgg_tensor::on_thread_ranks;
use vgg_train::Schedule;

fn one_run(run: vgg_experiment::RunPlan, paper: &str) -> TablePlan {
    let members = vec![member(&run.name, Protocol::Dense, &[36])];
    TablePlan {
        name: "table3".into(),
        title: "Table 3".into(),
        profile: "test".into(),
        changes: Vec::new(),
        runs: vec![run],
        rows: vec![RowPlan { label: None, members, paper: paper.into() }],
    }
}

fn small_set(dir: &Path, val_per_class: u32) -> Dataset {
    write_set(&dir.join("set"), 1, val_per_class);
    Dataset::open(&dir.join("set"), 1 << 26).unwrap()
}

fn make(plan: &TablePlan, out: &Path, dataset: &Dataset) -> vgg_experiment::Result<Option<Vec<Row>>> {
    alone(dataset, |context| make_table(plan, out, context, &mut |_| ()))
}

#[test]
fn unknown_row_of_the_paper_is_rejected_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = small_set(dir.path(), 1);
    let plan = one_run(small_run("A", Config::A, [36, 36]), "A/384");
    let error = make(&plan, &dir.path().join("out"), &dataset).unwrap_err().to_string();
    assert!(
        error.starts_with("the paper's table3 has no row A/384; its rows are A/256, A-LRN/256, "),
        "{error}"
    );
    assert!(!dir.path().join("out/runs").exists());
}

#[test]
fn directory_of_a_table_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = small_set(dir.path(), 1);
    let out = dir.path().join("out");
    let lock = vgg_files::Lock::acquire(&out).unwrap();
    let plan = one_run(small_run("A", Config::A, [36, 36]), "A/256");
    let error = make(&plan, &out, &dataset).unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    drop(lock);
}

/// The only run in the directory of a table.
fn only_run(out: &Path) -> PathBuf {
    let runs: Vec<PathBuf> =
        std::fs::read_dir(out.join("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [run] = runs.as_slice() else { panic!("{runs:?}") };
    run.clone()
}

#[test]
fn divergence_is_remembered_for_the_same_run_only() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = small_set(dir.path(), 1);
    let out = dir.path().join("out");
    let mut run = small_run("A", Config::A, [36, 36]);
    run.schedule = Schedule::Constant { lr: 1e30 };
    let strict = one_run(run.clone(), "A/256");
    run.may_diverge = true;
    let lenient = one_run(run, "A/256");
    let error = make(&strict, &out, &dataset).unwrap_err().to_string();
    assert!(error.starts_with("run A: ") && error.contains("not finite"), "{error}");
    let diverged = only_run(&out).join("diverged.json");
    assert!(!diverged.exists(), "an error must not be stored as a result");

    let note = |rows: Option<Vec<Row>>| rows.unwrap()[0].note.clone().unwrap();
    let reason = note(make(&lenient, &out, &dataset).unwrap());
    assert!(reason.contains("not finite"), "{reason}");
    let mut kept: Value = read_json(&diverged).unwrap();
    assert_eq!(kept["reason"], reason);

    kept["reason"] = "as kept".into();
    write_json(&diverged, &kept).unwrap();
    assert_eq!(note(make(&lenient, &out, &dataset).unwrap()), "as kept");
    assert!(make(&strict, &out, &dataset).is_err(), "without may_diverge it is an error, even if stored");

    kept["identity"] = hash_bytes(b"another run").as_str().into();
    write_json(&diverged, &kept).unwrap();
    assert_eq!(note(make(&lenient, &out, &dataset).unwrap()), reason);

    std::fs::write(&diverged, "no JSON").unwrap();
    assert!(make(&lenient, &out, &dataset).unwrap_err().to_string().contains("diverged.json"));
}

#[test]
fn ranks_agree_on_a_row_from_one_posteriors_file() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = small_set(dir.path(), 2);
    let out = dir.path().join("out");
    let plan = one_run(small_run("A", Config::A, [36, 36]), "A/256");
    let make = || {
        on_thread_ranks(2, |group| {
            in_context(&dataset, group, &|| false, |context| {
                let mut evaluated = Vec::new();
                let rows = make_table(&plan, &out, context, &mut |event| {
                    if let Event::Evaluates { done, of, .. } = event {
                        evaluated.push((done, of));
                    }
                });
                (rows.unwrap().unwrap(), evaluated)
            })
        })
    };
    let made = make();
    let (rows, _) = &made[0];
    assert_eq!(made[1].0, *rows);
    for (_, evaluated) in &made {
        assert_eq!(evaluated.last(), Some(&(10, 10)), "each of two ranks evaluates half of 20 images");
    }
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let path = out.join(&row.members[0].posteriors);
    let file = PosteriorFile::read(&path);
    let labels = file.labels.clone();
    let scores = mean(&[file]);
    let wrong = wrong(&scores, &labels, 1);
    assert_eq!((row.n, row.top1_error), (20, Some(wrong as f64 / 20.0)));
    let [low, high] = row.top1_ci.unwrap();
    // z is rounded to seven digits.
    assert!((low - wilson(wrong, 20)[0]).abs() < 1e-7 && (high - wilson(wrong, 20)[1]).abs() < 1e-7);
    // Each rank finds the weights of the finished run.
    std::fs::remove_file(path).unwrap();
    assert_eq!(make(), made);
}

#[test]
fn ranks_share_a_run_that_diverges() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = small_set(dir.path(), 1);
    let mut run = small_run("A", Config::A, [36, 36]);
    run.schedule = Schedule::Constant { lr: 1e30 };
    run.may_diverge = true;
    let plan = one_run(run, "A/256");
    let out = dir.path().join("out");
    let made = on_thread_ranks(2, |group| {
        let make = |context: &vgg_experiment::RunContext| make_table(&plan, &out, context, &mut |_| ());
        in_context(&dataset, group, &|| false, make).unwrap().unwrap()
    });
    assert_eq!(made[0], made[1]);
    let kept: Value = read_json(&only_run(&out).join("diverged.json")).unwrap();
    assert_eq!(kept["reason"], made[0][0].note.clone().unwrap());
}
