//! Makes a table from a plan: trains missing runs, evaluates missing networks, adds the paper's numbers.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vgg_eval::{
    EvaluateOptions, Evaluation, Partition, Posteriors, Preprocessing, evaluate_on_ranks, fuse,
    rank_partition,
};
use vgg_files::{Hash, Lock, hash_bytes, read_json, write_json};
use vgg_train::{Resume, remove_checkpoints};

use crate::ranks::from_first;
use crate::{
    Error, FinishedRun, Member, MemberPlan, PreparedRun, Result, Row, RowPlan, RunContext, RunEvent, RunPlan,
    SeedResult, TableName, TablePlan, paper,
};

/// Progress of a table.
#[derive(Debug)]
pub enum Event<'a> {
    /// A run starts.
    Run {
        /// The run's plan.
        plan: &'a RunPlan,
        /// Index of the run, from 1.
        number: usize,
        /// Number of runs.
        of: usize,
    },
    /// An event of the current run.
    In(RunEvent<'a>),
    /// Progress of an evaluation.
    Evaluates {
        /// The evaluated network and its protocol.
        member: &'a MemberPlan,
        /// Number of images that this rank has evaluated.
        done: usize,
        /// Number of images that this rank evaluates.
        of: usize,
    },
    /// A row is complete.
    Row(&'a Row),
}

/// Makes a table in `out`. Each run has a directory in `out/runs`, named by its identity, which also keeps
/// its posteriors. Existing runs and posteriors are reused. Returns `None` if interrupted.
///
/// # Errors
/// [`Error::Plan`] if the plan is invalid, before anything is trained; [`Error::Run`] with the run that
/// failed.
pub fn make_table(
    plan: &TablePlan,
    out: &Path,
    context: &RunContext,
    events: &mut dyn FnMut(Event),
) -> Result<Option<Vec<Row>>> {
    let ordered = plan.ordered()?;
    for row in &plan.rows {
        paper::row_of(&plan.name, &row.paper)?;
    }
    let first = context.group.rank() == 0;
    let _lock = first.then(|| Lock::acquire(out)).transpose()?;
    let of = ordered.len();
    let mut finished: BTreeMap<&str, FinishedRun> = BTreeMap::new();
    let mut diverged: BTreeMap<&str, String> = BTreeMap::new();
    for (i, run) in ordered.into_iter().enumerate() {
        events(Event::Run { plan: run, number: i + 1, of });
        if let Some(parent) = run.parent().filter(|name| diverged.contains_key(name)) {
            diverged.insert(&run.name, format!("its parent run {parent} diverged"));
            continue;
        }
        let parent = run.parent().and_then(|name| finished.get(name));
        let failed = |source: Error| source.of_run(&run.name);
        match train(run, parent, out, context, events).map_err(failed)? {
            Outcome::Finished(done) => drop(finished.insert(&run.name, done)),
            Outcome::Diverged(reason) => drop(diverged.insert(&run.name, reason)),
            Outcome::Interrupted => return Ok(None),
        }
    }
    let mut rows = Vec::new();
    for row in &plan.rows {
        let table = Table { plan, out, finished: &finished, diverged: &diverged, context };
        let row = match table.row(row, events) {
            Err(Error::Eval(vgg_eval::Error::Interrupted)) => return Ok(None),
            other => other?,
        };
        events(Event::Row(&row));
        rows.push(row);
    }
    if plan.name == TableName::Table7 {
        rows.extend(paper::TABLE_7_OTHERS.iter().map(Row::quoted));
    }
    Ok(Some(rows))
}

enum Outcome {
    Finished(FinishedRun),
    /// The error message about the loss.
    Diverged(String),
    Interrupted,
}

/// Stored in the directory of a run that diverged, so that it is not trained again.
#[derive(Serialize, Deserialize)]
struct Divergence {
    identity: Hash,
    reason: String,
}

const DIVERGED_FILE: &str = "diverged.json";

fn train(
    run: &RunPlan,
    parent: Option<&FinishedRun>,
    out: &Path,
    context: &RunContext,
    events: &mut dyn FnMut(Event),
) -> Result<Outcome> {
    let prepared = PreparedRun::new(run, parent, context)?;
    let identity = prepared.identity();
    let name: String = run.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let dir = out.join("runs").join(format!("{name}-{}", identity.short()));
    let diverged = dir.join(DIVERGED_FILE);
    let known = from_first(&*context.group, || match read_json::<Divergence>(&diverged) {
        Ok(known) => Ok(Some(known)),
        Err(e) if e.is_missing() => Ok(None),
        Err(e) => Err(e.into()),
    })?;
    if let Some(known) = known.filter(|known| known.identity == identity && run.may_diverge) {
        return Ok(Outcome::Diverged(known.reason));
    }
    match prepared.train(&dir, Resume::Auto, context, &mut |event| events(Event::In(event))) {
        Ok(Some(done)) => {
            // Runs of a table are not resumed once finished, and a table has many.
            if context.group.rank() == 0 {
                remove_checkpoints(&dir)?;
            }
            Ok(Outcome::Finished(done))
        }
        Ok(None) => Ok(Outcome::Interrupted),
        Err(Error::Train(e @ vgg_train::Error::NotFinite { .. })) if run.may_diverge => {
            // All ranks have the same error.
            let reason = from_first(&*context.group, || {
                let reason = e.to_string();
                write_json(&diverged, &Divergence { identity, reason: reason.clone() })?;
                Ok(reason)
            })?;
            Ok(Outcome::Diverged(reason))
        }
        Err(e) => Err(e),
    }
}

/// The state from which rows are built.
struct Table<'a> {
    plan: &'a TablePlan,
    out: &'a Path,
    finished: &'a BTreeMap<&'a str, FinishedRun>,
    /// Runs that diverged, with the error message.
    diverged: &'a BTreeMap<&'a str, String>,
    context: &'a RunContext<'a>,
}

impl Table<'_> {
    fn row(&self, row: &RowPlan, events: &mut dyn FnMut(Event)) -> Result<Row> {
        let (mut members, mut files) = (Vec::new(), Vec::new());
        let mut note = None;
        for member in &row.members {
            let run = self.plan.run(&member.run)?;
            let Some(done) = self.finished.get(member.run.as_str()) else {
                note = self.diverged.get(member.run.as_str()).cloned();
                members.push(self.member(run, member, None));
                continue;
            };
            let path = posteriors_file(done, &member.evaluation, &self.context.dataset.val.hash());
            let found = posteriors(member, run, done, &path, self.context, events)?;
            files.extend(found.map(|found| (path.clone(), found)));
            members.push(self.member(run, member, Some((done, &path))));
        }
        let group = &*self.context.group;
        from_first(group, || self.row_of(row, &members, &files, note.clone()))
    }

    /// Builds a row from its networks' posteriors.
    fn row_of(
        &self,
        row: &RowPlan,
        members: &[Member],
        files: &[(PathBuf, Posteriors)],
        note: Option<String>,
    ) -> Result<Row> {
        let named: Vec<(&Path, &Posteriors)> = files.iter().map(|(path, p)| (path.as_path(), p)).collect();
        let fused = if note.is_none() { Some(fuse(&named)?) } else { None };
        let theirs = paper::row_of(&self.plan.name, &row.paper)?;
        let (top1, top5) =
            (fused.as_ref().map(Posteriors::top1_error), fused.as_ref().map(Posteriors::top5_error));
        let runs: Vec<&RunPlan> = row.members.iter().map(|m| self.plan.run(&m.run)).collect::<Result<_>>()?;
        let epochs = row.members.iter().filter_map(|m| Some(self.finished.get(m.run.as_str())?.epochs)).max();
        let seed = runs.first().map_or(0, |run| run.run.seed);
        Ok(Row {
            config: row.label.clone().unwrap_or_else(|| joined(members, " + ", |m| m.config.clone())),
            train_scale: common(members, |m| &m.train_scale),
            test_scales: common(members, |m| &m.test_scales),
            protocol: joined(members, " and ", |m| m.protocol.clone()),
            top1_error: top1.map(|e| e.rate()),
            top5_error: top5.map(|e| e.rate()),
            top1_std: None,
            top1_ci: top1.map(|e| e.interval()),
            top5_ci: top5.map(|e| e.interval()),
            paper_row: row.paper.clone(),
            paper_top1_error: theirs.and_then(|p| p.top1_error),
            paper_top5_error: theirs.and_then(|p| p.top5_error),
            paper_test_top5_error: theirs.and_then(|p| p.test_top5_error),
            paper_train_scale: theirs.map(|p| p.train_scale.to_vec()).unwrap_or_default(),
            paper_test_scales: theirs.map(|p| p.test_scales.to_vec()).unwrap_or_default(),
            epochs: epochs.unwrap_or(0),
            seed,
            by_seed: vec![SeedResult {
                seed,
                top1_error: top1.map(|e| e.rate()),
                top5_error: top5.map(|e| e.rate()),
            }],
            n: fused.as_ref().map_or(0, |p| p.labels.len()),
            skipped: fused.as_ref().map_or(0, |p| p.skipped.len()),
            run: members.first().map(|m| m.run.clone()).unwrap_or_default(),
            members: members.to_vec(),
            note,
        })
    }

    fn member(&self, run: &RunPlan, member: &MemberPlan, done: Option<(&FinishedRun, &Path)>) -> Member {
        let below = |path: &Path| path.strip_prefix(self.out).unwrap_or(path).display().to_string();
        Member {
            name: run.name.clone(),
            config: run.network.config.name().to_owned(),
            train_scale: run.train_scale(),
            test_scales: member.evaluation.test_scales.clone(),
            protocol: member.evaluation.protocol.name().to_owned(),
            run: done.map(|(done, _)| below(&done.dir)).unwrap_or_default(),
            posteriors: done.map(|(_, path)| below(path)).unwrap_or_default(),
        }
    }
}

/// The value that all members share; empty if they differ.
fn common(members: &[Member], of: fn(&Member) -> &Vec<usize>) -> Vec<usize> {
    let first = members.first().map(of);
    if members.iter().all(|m| Some(of(m)) == first) { first.cloned().unwrap_or_default() } else { Vec::new() }
}

/// The distinct values in order of first appearance.
fn joined(members: &[Member], separator: &str, of: fn(&Member) -> String) -> String {
    let mut list: Vec<String> = Vec::new();
    for value in members.iter().map(of) {
        if !list.contains(&value) {
            list.push(value);
        }
    }
    list.join(separator)
}

/// The posteriors of a network, from the run's directory or by evaluation. Returned on rank 0 only.
fn posteriors(
    member: &MemberPlan,
    run: &RunPlan,
    done: &FinishedRun,
    path: &Path,
    context: &RunContext,
    events: &mut dyn FnMut(Event),
) -> Result<Option<Posteriors>> {
    let group = &*context.group;
    if from_first(group, || Ok(path.is_file()))? {
        return Ok((group.rank() == 0).then(|| Posteriors::load(path)).transpose()?);
    }
    let val = &context.dataset.val;
    let loaded = vgg_weights::load(&done.weights_file(), context.device)?;
    let (offset, scale) = loaded.metadata.offset_and_scale();
    let preprocessing = Preprocessing { offset, scale };
    let model = member.evaluation.prepare(loaded.network, preprocessing, done.weights.as_str())?;
    let on_bad_image = run.data.on_bad_image;
    let options = EvaluateOptions { workers: context.workers, on_bad_image, part: Partition::WHOLE };
    let of = rank_partition(group).range(val.len()).len();
    let mut progress = |done: usize| {
        events(Event::Evaluates { member, done, of });
        if (context.interrupted)() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let protocol = &member.evaluation;
    let evaluated = evaluate_on_ranks(group, &model, val, protocol, options, &mut progress)?;
    if let Some(evaluated) = &evaluated {
        evaluated.save(path)?;
    }
    Ok(evaluated)
}

fn posteriors_file(done: &FinishedRun, evaluation: &Evaluation, val: &Hash) -> PathBuf {
    let what = serde_json::json!({ "evaluation": evaluation, "val": val, "weights": done.weights });
    let name = format!("posteriors-{}.safetensors", hash_bytes(what.to_string().as_bytes()).short());
    done.dir.join(name)
}
