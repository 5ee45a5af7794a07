//! Contradictory plans, and runs with modified directories.

mod fixture;

use std::path::Path;

use fixture::{small_run, starts_from};
use vgg_data::synthetic::{SyntheticConfig, generate};
use vgg_data::{Geometry, Interpolation, OnBadImage};
use vgg_eval::{DensePool, Evaluation, Protocol};
use vgg_experiment::{
    Dataset, Error, Event, MemberPlan, Row, RowPlan, RunContext, RunEvent, RunPlan, TablePlan, make_table,
};
use vgg_layers::{Config, Device, LayerSelection};
use vgg_train::Schedule;

fn run(name: &str, config: Config, from: Option<&str>, layers: LayerSelection) -> RunPlan {
    let mut run = small_run(name, config, [36, 36]);
    run.data.on_bad_image = OnBadImage::Stop;
    match from {
        Some(parent) => starts_from(run, parent, layers),
        None => run,
    }
}

fn table(runs: Vec<RunPlan>) -> TablePlan {
    let evaluation = Evaluation {
        protocol: Protocol::Dense,
        test_scales: vec![36],
        flip: true,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        dense_pool: DensePool::ScoreMean,
        pool_rounding: None,
    };
    let members = vec![MemberPlan { run: runs[0].name.clone(), evaluation }];
    let rows = vec![RowPlan { label: None, members, paper: "A/256".into() }];
    let (name, title, profile) = ("table3".into(), "Table 3".into(), "test".into());
    TablePlan { name, title, profile, changes: Vec::new(), runs, rows }
}

#[test]
fn runs_follow_their_parents() {
    let paper = LayerSelection::Paper;
    let runs = vec![
        run("E", Config::E, Some("D"), LayerSelection::AllMatching),
        run("D", Config::D, Some("A"), paper.clone()),
        run("L", Config::ALrn, None, paper.clone()),
        run("A", Config::A, None, paper),
    ];
    let plan = table(runs);
    let order: Vec<&str> = plan.ordered().unwrap().iter().map(|run| run.name.as_str()).collect();
    assert_eq!(order, ["A", "D", "E", "L"]);
}

#[test]
fn contradictory_plans_are_rejected() {
    let all = || LayerSelection::AllMatching;
    let message = |runs: Vec<RunPlan>| table(runs).ordered().unwrap_err().to_string();
    let circle = vec![run("A", Config::A, Some("B"), all()), run("B", Config::B, Some("A"), all())];
    assert!(message(circle).contains("starts from itself"));
    let twice = vec![run("A", Config::A, None, all()), run("A", Config::B, None, all())];
    assert_eq!(message(twice), "two runs are named A");
    assert!(message(vec![run("B", Config::B, Some("A"), all())]).contains("there is no run A; runs: B"));
    let mut narrow = run("B", Config::B, Some("A"), LayerSelection::Paper);
    narrow.network.width = 0.25;
    let misfit = message(vec![run("A", Config::A, None, all()), narrow]);
    assert!(misfit.contains("layer conv1_1 cannot be copied"), "{misfit}");
    let mut large = run("A", Config::A, None, all());
    large.optimizer.micro_batch = 300;
    assert!(message(vec![large]).contains("micro_batch 300"));
}

/// Makes the table of one run. Returns the rows and the number of cached runs.
fn make(plan: &TablePlan, dir: &Path) -> (Result<Option<Vec<Row>>, Error>, usize) {
    let dataset = Dataset::open(&dir.join("set"), 1 << 28).unwrap();
    let statistics = dataset.statistics(dir, 1, &vgg_tensor::SingleProcess, &mut |_| ()).unwrap();
    let device = Device::cpu(1).unwrap();
    let context = RunContext {
        device: &device,
        dataset: &dataset,
        statistics: &statistics,
        workers: 1,
        group: std::sync::Arc::new(vgg_tensor::SingleProcess),
        checkpoints: Default::default(),
        allow_changes: &[],
        interrupted: &|| false,
    };
    let mut cached = 0;
    let rows = make_table(plan, &dir.join("out"), &context, &mut |event| {
        if let Event::In(RunEvent::Cached(_)) = event {
            cached += 1;
        }
    });
    (rows, cached)
}

#[test]
fn finished_run_is_reused_unless_its_weights_were_modified() {
    let dir = tempfile::tempdir().unwrap();
    let set = SyntheticConfig { seed: 1, train_per_class: 1, val_per_class: 1 };
    generate(&dir.path().join("set"), &set, 1, &|_, _| ()).unwrap();
    let plan = table(vec![run("A", Config::A, None, LayerSelection::Paper)]);
    let (first, cached) = make(&plan, dir.path());
    let first = first.unwrap().unwrap();
    assert_eq!((first.len(), first[0].n, first[0].skipped, cached), (1, 10, 0, 0));
    let (second, cached) = make(&plan, dir.path());
    assert_eq!((second.unwrap().unwrap(), cached), (first.clone(), 1));
    let weights = dir.path().join("out").join(&first[0].run).join("weights.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let error = make(&plan, dir.path()).0.unwrap_err().to_string();
    assert!(error.starts_with("run A: ") && error.contains("not what the run wrote"), "{error}");
}

#[test]
fn divergence_is_noted_and_not_trained_again() {
    let dir = tempfile::tempdir().unwrap();
    let set = SyntheticConfig { seed: 1, train_per_class: 2, val_per_class: 1 };
    generate(&dir.path().join("set"), &set, 1, &|_, _| ()).unwrap();
    let mut parent = run("A", Config::A, None, LayerSelection::Paper);
    parent.schedule = Schedule::Constant { lr: 1e30 };
    parent.may_diverge = true;
    let mut plan = table(vec![run("B", Config::B, Some("A"), LayerSelection::Paper), parent]);
    let mut of_parent = plan.rows[0].clone();
    of_parent.members[0].run = "A".into();
    plan.rows.push(of_parent);
    let rows = make(&plan, dir.path()).0.unwrap().unwrap();
    let notes: Vec<&str> = rows.iter().map(|row| row.note.as_deref().unwrap()).collect();
    assert_eq!(notes.len(), 2);
    assert_eq!(notes[0], "its parent run A diverged");
    assert!(notes[1].contains("not finite") && rows.iter().all(|row| row.top1_error.is_none()), "{notes:?}");
    let runs = dir.path().join("out/runs");
    let run = std::fs::read_dir(&runs).unwrap().next().unwrap().unwrap().path();
    let kept = std::fs::metadata(run.join("diverged.json")).unwrap().modified().unwrap();
    assert_eq!(make(&plan, dir.path()).0.unwrap().unwrap(), rows);
    assert_eq!(std::fs::metadata(run.join("diverged.json")).unwrap().modified().unwrap(), kept);
}
