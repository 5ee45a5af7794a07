//! The runs of a table as a graph: which are needed, and in which order.

mod fixture;

use fixture::{member, small_run, starts_from};
use vgg_data::MAX_SIDE;
use vgg_eval::Protocol;
use vgg_experiment::{Error, MemberPlan, RowPlan, RunPlan, TablePlan};
use vgg_layers::{Config, LayerSelection};

fn run(name: &str, config: Config, parent: Option<&str>) -> RunPlan {
    let run = small_run(name, config, [36, 36]);
    match parent {
        Some(parent) => starts_from(run, parent, LayerSelection::Paper),
        None => run,
    }
}

fn dense(name: &str) -> MemberPlan {
    member(name, Protocol::Dense, &[36])
}

/// A table with one row per list of runs.
fn table(runs: Vec<RunPlan>, rows: &[&[&str]]) -> TablePlan {
    let row = |members: &&[&str]| RowPlan {
        label: None,
        members: members.iter().map(|name| dense(name)).collect(),
        paper: "A/256".into(),
    };
    TablePlan {
        name: "table3".into(),
        title: "Table 3".into(),
        profile: "test".into(),
        changes: Vec::new(),
        runs,
        rows: rows.iter().map(row).collect(),
    }
}

/// E and D start from B, which starts from A; C starts from A; A-LRN is independent.
fn runs() -> Vec<RunPlan> {
    vec![
        run("E", Config::E, Some("B")),
        run("L", Config::ALrn, None),
        run("C", Config::C, Some("A")),
        run("D", Config::D, Some("B")),
        run("B", Config::B, Some("A")),
        run("A", Config::A, None),
    ]
}

fn names<'a>(runs: impl IntoIterator<Item = &'a RunPlan>) -> Vec<&'a str> {
    runs.into_iter().map(|run| run.name.as_str()).collect()
}

#[test]
fn runs_follow_their_parents_in_planned_order() {
    let plan = table(runs(), &[&["E"]]);
    assert_eq!(names(plan.ordered().unwrap()), ["A", "B", "E", "L", "C", "D"]);
}

#[test]
fn rows_need_their_runs_and_the_parents() {
    let needed = |rows: &[&[&str]]| {
        let plan = table(runs(), rows).needed().unwrap();
        names(&plan.runs).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(needed(&[&["D"]]), ["D", "B", "A"]);
    assert_eq!(needed(&[&["C"], &["L", "A"]]), ["L", "C", "A"]);
    assert_eq!(needed(&[&["E", "C"], &["E"]]), ["E", "C", "B", "A"]);
    assert_eq!(needed(&[&["L"]]), ["L"]);
    let plan = table(runs(), &[&["D"]]);
    assert_eq!(plan.clone().needed().unwrap().rows, plan.rows);
    let error = table(runs(), &[&["F"]]).needed().unwrap_err().to_string();
    assert_eq!(error, "there is no run F; runs: E, L, C, D, B, A");
    let orphan = vec![run("B", Config::B, Some("A"))];
    assert_eq!(table(orphan, &[&["B"]]).needed().unwrap_err().to_string(), "there is no run A; runs: B");
}

#[test]
fn a_run_is_found_by_its_name() {
    let plan = table(runs(), &[&["D"]]);
    assert_eq!(plan.run("C").unwrap().network.config, Config::C);
    assert!(matches!(plan.run("c"), Err(Error::Plan(_))));
}

#[track_caller]
fn refused(plan: &TablePlan, message: &str) {
    assert_eq!(plan.ordered().unwrap_err().to_string(), message);
}

#[test]
fn duplicate_names_are_rejected() {
    let mut twice = runs();
    twice.push(run("C", Config::A, None));
    refused(&table(twice, &[&["E"]]), "two runs are named C");
}

#[test]
fn every_run_is_checked() {
    let mut runs = runs();
    runs[3].optimizer.batch = 0;
    refused(&table(runs, &[&["A"]]), "run D: batch must be at least 1");
}

#[test]
fn cycles_are_rejected() {
    let own = vec![run("A", Config::A, Some("A"))];
    refused(&table(own, &[&["A"]]), "run A starts from itself");
    let three =
        vec![run("D", Config::D, Some("A")), run("A", Config::A, Some("B")), run("B", Config::B, Some("A"))];
    refused(&table(three, &[&["D"]]), "run A starts from itself");
}

#[test]
fn layers_loaded_from_the_parent_must_fit() {
    let mut narrow = runs();
    narrow[4].network.width = 0.25;
    let error = table(narrow, &[&["A"]]).ordered().unwrap_err();
    assert!(matches!(&error, Error::Network(_)), "{error:?}");
    let mut classes = runs();
    classes[5].network.classes = Some(12);
    table(classes.clone(), &[&["A"]]).ordered().unwrap();
    classes[4].network.classes = Some(13);
    let message = "network.classes is 12, but the data set has 13 classes";
    refused(&table(classes, &[&["A"]]), message);
}

#[test]
fn every_row_has_networks_with_valid_protocols() {
    refused(&table(runs(), &[&["A"], &[]]), "row A/256 has no network");
    refused(&table(runs(), &[&["A", "F"]]), "there is no run F; runs: E, L, C, D, B, A");
    let with_sides = |sides: &[usize]| {
        let mut plan = table(runs(), &[&["A"], &["A", "C"]]);
        plan.rows[1].members[1] = member("C", Protocol::Dense, sides);
        plan
    };
    with_sides(&[32, MAX_SIDE]).ordered().unwrap();
    refused(&with_sides(&[]), "test_scales is empty; give at least one");
    refused(&with_sides(&[40, 31]), "test scale 31 is smaller than the network's crop, 32");
    let message = format!("test scale {} is larger than {MAX_SIDE}", MAX_SIDE + 1);
    refused(&with_sides(&[MAX_SIDE + 1]), &message);
    // The limit is the crop of the member's own network.
    let mut large = with_sides(&[64]);
    large.runs[2].data.crop = 96;
    large.runs[2].data.train_scale = [96, 96];
    large.runs[2].validate.test_scale = 96;
    refused(&large, "test scale 64 is smaller than the network's crop, 96");
}
