//! `vgg experiment`: the tables of the paper.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use vgg_error::printable;
use vgg_experiment::{
    ALL_TABLES, Event, MAX_SEEDS, Profile, Recipe, Report, Row, RunContext, TablePlan, TrainedTables,
    combine_seeds, embedded_recipe, html, make_table, profile_recipe, read_recipe, report, table1, table2,
    test_scales_text, train_scale_text,
};

use super::data::make_synthetic;
use super::data_options::TrainDataOptions;
use super::options::{DeviceOptions, choice};
use super::ranks::Ranks;
use super::saving::SavingOptions;
use super::train_session::TrainSession;
use crate::console::{Progress, TrainingView, clock, note, out, print_report};
use crate::exit::UsageError;

#[derive(Args)]
pub(crate) struct Experiment {
    /// Table: table1 (configurations), table2 (parameters), table3 (one test scale), table4 (several), table5
    /// (dense and multi-crop), table6 (fusion), table7 (state of the art), shallow (5x5 filters), init
    /// (initialisation), or "all": every table that trains networks.
    table: Option<String>,
    /// Built-in recipe: smoke (seconds; the networks learn nothing), mini (small networks that learn; table3
    /// in six to ten minutes on two cores) or paper (the paper's settings).
    #[arg(long, value_parser = choice(&Profile::ALL), default_value = "mini")]
    profile: Profile,
    /// Recipe file instead of a built-in one; makes all of its tables unless one is named.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Print the recipe of --profile that has this table, as a template for --file. The tables that train
    /// networks share one recipe.
    #[arg(long, value_name = "TABLE", conflicts_with_all = ["table", "file"])]
    print: Option<String>,
    /// Folder with train/<class>/* and val/<class>/*, or a prepared data set. Default: a generated synthetic data set.
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// Output folder. Default: runs/PROFILE, plus the name of --dataset and a hash of --set if given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Override a setting of the recipe, such as base.run.seed=2. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Train every network with this many seeds: the recipe's and the following ones. Rows are then means with their
    /// spread. Seeds that were trained before are not trained again.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = seeds)]
    seeds: usize,
    #[command(flatten)]
    data: TrainDataOptions,
    #[command(flatten)]
    saving: SavingOptions,
    #[command(flatten)]
    device: DeviceOptions,
}

impl Experiment {
    pub(crate) fn run(self) -> Result<ExitCode> {
        if let Some(name) = &self.print {
            write!(out(), "{}", embedded_recipe(self.profile, name)?.1)?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.table.is_none() && self.file.is_none() {
            return Err(UsageError("name a table, such as table3 or all, or pass --file".into()).into());
        }
        let ranks = Ranks::join()?;
        ranks.work(|| self.make(&ranks))
    }

    fn make(&self, ranks: &Ranks) -> Result<ExitCode> {
        let name = self.table.as_deref().unwrap_or(ALL_TABLES);
        let tables = match &self.file {
            Some(path) => read_recipe(path, name, &self.set)?,
            None => profile_recipe(self.profile, name, &self.set)?,
        };
        match tables {
            Recipe::Layers(_) | Recipe::Parameters(_) if !ranks.is_first() => Ok(ExitCode::SUCCESS),
            Recipe::Layers(networks) => self.finish(&table1(&networks)?, &self.out_for("tables")),
            Recipe::Parameters(networks) => self.finish(&table2(&networks)?, &self.out_for("tables")),
            Recipe::Trained(tables) => self.trained(ranks, &tables),
        }
    }

    fn trained(&self, ranks: &Ranks, tables: &TrainedTables) -> Result<ExitCode> {
        let start = Instant::now();
        let profile = tables.plans.first().map_or("", |plan| &plan.profile);
        let out = self.out_for(profile);
        let root = || self.dataset_root(ranks, tables, &out);
        let runs: Vec<_> = tables.plans.iter().flat_map(|plan| plan.runs.clone()).collect();
        let session = TrainSession::open(ranks, &self.device, &self.data, root, &runs, &out)?;
        let reports = session.work(&self.saving, |context| {
            let mut reports = Vec::new();
            for plan in &tables.plans {
                let Some(rows) = self.rows(plan, &out, context)? else { return Ok(None) };
                if ranks.is_first() {
                    reports.push(report(plan, &rows, &out, context)?);
                }
            }
            Ok(Some(reports))
        })?;
        let Some(reports) = reports else {
            return session.interrupted("interrupted; rerun the same command to resume");
        };
        for report in &reports {
            self.finish(report, &out)?;
        }
        if let [_, _, ..] = reports.as_slice() {
            let page = out.join("all.html");
            vgg_files::write_bytes(&page, html(&reports).as_bytes())?;
            note(&format!("written: {}", printable(&page)));
        }
        note(&format!("took {}", clock(start.elapsed())));
        Ok(ExitCode::SUCCESS)
    }

    /// Makes the table with every seed; `None` if interrupted.
    fn rows(&self, plan: &TablePlan, out: &Path, context: &RunContext) -> Result<Option<Vec<Row>>> {
        let mut tables = Vec::new();
        for offset in 0..self.seeds {
            let which = if self.seeds > 1 {
                format!(", seed {} of {}", offset + 1, self.seeds)
            } else {
                String::new()
            };
            note(&format!("{}{which}", plan.title));
            let plan = plan.clone().with_seed_offset(offset as u64);
            let mut view = View { training: None, evaluation: None, evaluated: None };
            let Some(rows) = make_table(&plan, out, context, &mut |event| view.show(&event))? else {
                return Ok(None);
            };
            tables.push(rows);
        }
        Ok(Some(combine_seeds(tables)))
    }

    fn dataset_root(&self, ranks: &Ranks, tables: &TrainedTables, out: &Path) -> Result<PathBuf> {
        match (&self.dataset, &tables.synthetic) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(config)) => {
                let root = out.join("synthetic");
                if ranks.is_first() {
                    make_synthetic(&root, config)?;
                }
                ranks.group().barrier()?;
                Ok(root)
            }
            (None, None) => {
                let what = "this profile needs --dataset DIR with train/<class>/* and val/<class>/*";
                Err(UsageError(what.into()).into())
            }
        }
    }

    fn out_for(&self, profile: &str) -> PathBuf {
        // Canonical, as `.` has no file name.
        let dataset =
            self.dataset.as_deref().map(|path| path.canonicalize().unwrap_or_else(|_| path.to_owned()));
        let name = match dataset.as_deref().and_then(Path::file_name) {
            Some(dataset) => format!("{profile}-{}", dataset.to_string_lossy()),
            None => profile.to_owned(),
        };
        // A modified recipe must not overwrite the tables of the original.
        let changes = vgg_files::hash_bytes(self.set.join("\n").as_bytes());
        let name = if self.set.is_empty() { name } else { format!("{name}-{}", &changes.as_str()[..8]) };
        self.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(name))
    }

    fn finish(&self, report: &Report, out: &Path) -> Result<ExitCode> {
        // Save first: stdout may be closed early.
        let paths = report.save(out)?;
        print_report(report)?;
        let names = paths.map(|path| printable(&path).to_string());
        note(&format!("written: {}", names.join(", ")));
        Ok(ExitCode::SUCCESS)
    }
}

fn seeds(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(seeds) if (1..=MAX_SEEDS).contains(&seeds) => Ok(seeds),
        _ => Err(format!("must be a number from 1 to {MAX_SEEDS}")),
    }
}

struct View {
    training: Option<TrainingView>,
    evaluation: Option<Progress>,
    evaluated: Option<String>,
}

impl View {
    fn show(&mut self, event: &Event) {
        match event {
            Event::Run { plan, number, of } => {
                self.training = None;
                let side = train_scale_text(&plan.train_scale());
                let from = plan.parent().map_or(String::new(), |parent| format!(", from {parent}"));
                let (name, config) = (&plan.name, &plan.network.config);
                note(&format!("run {number} of {of}: {name} (config {config}, S = {side}{from})"));
                self.training = Some(TrainingView::new(plan));
            }
            Event::In(event) => {
                if let Some(view) = &mut self.training {
                    view.show(event);
                }
            }
            Event::Evaluates { member, done, of } => {
                self.training = None;
                if *done == 0 || self.evaluated.as_deref() != Some(&member.run) {
                    self.evaluation = None;
                    self.evaluated = Some(member.run.clone());
                }
                let progress = self
                    .evaluation
                    .get_or_insert_with(|| Progress::new(&format!("evaluating {}", member.run), *of as u64));
                progress.at(*done as u64, || format!("{done} of {of} images"));
            }
            Event::Row(row) => {
                self.evaluation = None;
                show_row(row);
            }
        }
    }
}

fn show_row(row: &Row) {
    let percent =
        |share: Option<f64>| share.map_or("none".to_owned(), |share| format!("{:.1} %", 100.0 * share));
    let scales = match (train_scale_text(&row.train_scale), test_scales_text(&row.test_scales)) {
        (train, test) if test.is_empty() => train,
        (train, test) => format!(", S = {train}, Q = {test}"),
    };
    let (top1, top5) = (percent(row.top1_error), percent(row.top5_error));
    note(&format!("{}{scales}, {}: top-1 error {top1}, top-5 error {top5}", row.config, row.protocol));
    if let Some(what) = &row.note {
        note(&format!("  {what}"));
    }
}
