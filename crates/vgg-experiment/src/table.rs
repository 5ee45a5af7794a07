//! From a plan to a table: train what is missing, evaluate what is missing, put the paper's numbers beside ours.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vgg_eval::{EvaluateOptions, Evaluation, Posteriors, Preprocessing, Shard, evaluate};
use vgg_files::{Hash, Lock, hash_bytes};
use vgg_train::Resume;

use crate::{Context, Error, FinishedRun, PreparedRun, Result, RowPlan, RunEvent, RunPlan, TablePlan, paper};

/// What happens on the way to a table.
#[derive(Debug)]
pub enum Event<'a> {
    /// A run comes up.
    Run {
        /// Its plan.
        plan: &'a RunPlan,
        /// Its place among all runs, from 1.
        number: usize,
        /// Number of runs.
        of: usize,
    },
    /// From the run that came up.
    In(RunEvent<'a>),
    /// An evaluation begins or goes on.
    Evaluates {
        /// Its row.
        row: &'a RowPlan,
        /// Images done.
        done: usize,
        /// Images in all.
        of: usize,
    },
    /// A row is complete.
    Row(&'a Row),
}

/// A row of a table: our result and the paper's. Errors are fractions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Column of Table 1.
    pub config: String,
    /// Smallest side in training: one value, or the two ends of scale jitter.
    pub train_side: Vec<usize>,
    /// Smallest sides in the test.
    pub test_sides: Vec<usize>,
    /// Such as `dense`.
    pub protocol: String,
    /// Share of wrong first answers.
    pub top1_error: f64,
    /// Share of images whose class is not among the first five answers.
    pub top5_error: f64,
    /// 95 % confidence interval of the first.
    pub top1_ci: [f64; 2],
    /// The paper's.
    pub paper_top1_error: f64,
    /// The paper's.
    pub paper_top5_error: f64,
    /// The paper's.
    pub paper_train_side: Vec<usize>,
    /// The paper's.
    pub paper_test_sides: Vec<usize>,
    /// Epochs trained.
    pub epochs: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Test images.
    pub n: usize,
    /// Test images that were left out, since they could not be decoded.
    pub skipped: usize,
    /// Directory of the run, below that of the table.
    pub run: String,
}

/// Makes a table in `out`: runs in `out/runs`, each in a directory named by what determines it, and rows from
/// evaluations that are kept there too. What is there already is not done again; `None` if it was interrupted.
///
/// # Errors
/// [`Error::Plan`] if the plan contradicts itself, before anything is trained; [`Error::Run`] with the run that failed.
pub fn make_table(
    plan: &TablePlan,
    out: &Path,
    context: &Context,
    events: &mut dyn FnMut(Event),
) -> Result<Option<Vec<Row>>> {
    let ordered = plan.ordered()?;
    for row in &plan.rows {
        paper::table3_row(&row.paper)?;
    }
    let _lock = Lock::acquire(out)?;
    let of = ordered.len();
    let mut finished: BTreeMap<&str, FinishedRun> = BTreeMap::new();
    for (i, run) in ordered.into_iter().enumerate() {
        events(Event::Run { plan: run, number: i + 1, of });
        let parent = run.parent().and_then(|name| finished.get(name));
        let done = train(run, parent, out, context, events);
        let failed = |source| Error::Run { run: run.name.clone(), source: Box::new(source) };
        match done.map_err(failed)? {
            Some(done) => finished.insert(&run.name, done),
            None => return Ok(None),
        };
    }
    let mut rows = Vec::new();
    for row in &plan.rows {
        let (run, done) = (plan.run(&row.run)?, &finished[row.run.as_str()]);
        events(Event::Evaluates { row, done: 0, of: context.dataset.val.len() });
        let row = match make_row(row, run, done, out, context, events) {
            Err(Error::Eval(vgg_eval::Error::Interrupted)) => return Ok(None),
            other => other?,
        };
        events(Event::Row(&row));
        rows.push(row);
    }
    Ok(Some(rows))
}

fn train(
    run: &RunPlan,
    parent: Option<&FinishedRun>,
    out: &Path,
    context: &Context,
    events: &mut dyn FnMut(Event),
) -> Result<Option<FinishedRun>> {
    let prepared = PreparedRun::new(run, parent, context)?;
    let name: String = run.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let dir = out.join("runs").join(format!("{name}-{}", prepared.identity().short()));
    prepared.train(&dir, Resume::Auto, context, &mut |event| events(Event::In(event)))
}

fn make_row(
    row: &RowPlan,
    run: &RunPlan,
    done: &FinishedRun,
    out: &Path,
    context: &Context,
    events: &mut dyn FnMut(Event),
) -> Result<Row> {
    let posteriors = posteriors(row, run, done, context, events)?;
    let (top1, top5) = (posteriors.top1_error(), posteriors.top5_error());
    let theirs = paper::table3_row(&row.paper)?;
    let run_dir = done.dir.strip_prefix(out).unwrap_or(&done.dir);
    Ok(Row {
        config: run.network.config.name().to_owned(),
        train_side: run.train_side(),
        test_sides: row.evaluation.test_sides.clone(),
        protocol: row.evaluation.protocol.name().to_owned(),
        top1_error: top1.rate(),
        top5_error: top5.rate(),
        top1_ci: top1.interval(),
        paper_top1_error: theirs.top1_error,
        paper_top5_error: theirs.top5_error,
        paper_train_side: theirs.train_side.to_vec(),
        paper_test_sides: theirs.test_sides.to_vec(),
        epochs: done.epochs,
        seed: run.train.seed,
        n: top1.n,
        skipped: posteriors.skipped.len(),
        run: run_dir.display().to_string(),
    })
}

/// The posteriors of a row, from the run's directory if they are there.
fn posteriors(
    row: &RowPlan,
    run: &RunPlan,
    done: &FinishedRun,
    context: &Context,
    events: &mut dyn FnMut(Event),
) -> Result<Posteriors> {
    let val = &context.dataset.val;
    let path = posteriors_file(done, &row.evaluation, &val.hash());
    if path.is_file() {
        return Ok(Posteriors::load(&path)?);
    }
    let loaded = vgg_weights::load(&done.weights_file(), context.device)?;
    let preprocessing = Preprocessing::from(loaded.metadata.offset_and_scale());
    let prepared = row.evaluation.prepare(loaded.network)?;
    let options = EvaluateOptions {
        workers: context.workers,
        on_bad_image: run.data.on_bad_image,
        shard: Shard::default(),
    };
    let mut progress = |done: usize| {
        events(Event::Evaluates { row, done, of: val.len() });
        if (context.interrupted)() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let model = (&prepared.model(), done.weights.as_str());
    let evaluated = evaluate(model, val, &row.evaluation, preprocessing, options, &mut progress)?;
    evaluated.save(&path)?;
    Ok(evaluated)
}

fn posteriors_file(done: &FinishedRun, evaluation: &Evaluation, val: &Hash) -> PathBuf {
    let what = serde_json::json!({ "evaluation": evaluation, "val": val, "weights": done.weights });
    let name = format!("posteriors-{}.safetensors", hash_bytes(what.to_string().as_bytes()).short());
    done.dir.join(name)
}
