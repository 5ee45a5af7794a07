//! `vgg experiment`: a table of the paper.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use vgg_experiment::{
    ALL_TABLES, Event, Profile, Recipe, Report, Row, TrainedTables, embedded_recipe, html, make_table,
    profile_recipe, read_recipe, report, table1, table2, test_scales_text, train_scale_text,
};

use super::data::make_synthetic;
use super::options::{DeviceOptions, choice};
use super::ranks::Ranks;
use super::saving::SavingOptions;
use super::train_session::TrainSession;
use crate::console::{Progress, TrainingView, clock, note, out, print_report};
use crate::exit::UsageError;

#[derive(Args)]
pub(crate) struct Experiment {
    /// table1 (layers), table2 (parameters), table3 (one test scale), table4 (several), table5 (dense, crops, both), table6
    /// (fusion), table7 (state of the art), shallow (5x5 convolutions), init (beginnings), or all of those that need
    /// training.
    #[arg(required_unless_present_any = ["file", "print"])]
    table: Option<String>,
    /// Recipe: smoke (seconds; the networks learn nothing), mini (small networks that learn; table3 in about six minutes on two cores) or
    /// paper (the paper's own).
    #[arg(long, value_parser = choice(&Profile::ALL), default_value = "mini")]
    profile: Profile,
    /// A recipe of your own, in the place of one that comes with the program; all of its tables, unless one is named.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Print the recipe of a table instead of making it.
    #[arg(long, value_name = "TABLE", conflicts_with_all = ["table", "file"])]
    print: Option<String>,
    /// Data set: a folder with train/<class>/* and val/<class>/*. Default: the synthetic set, made on the spot.
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// Where runs and tables go. Default: runs/ and the profile, with the data set's name if one is given,
    /// and a hash of what --set changes.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A value in the place of the recipe's, such as base.run.seed=2; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
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
        let session = TrainSession::open(ranks, &self.device, root, &runs, &out)?;
        let reports = session.work(&self.saving, |context| {
            let mut reports = Vec::new();
            for plan in &tables.plans {
                note(&plan.title);
                let mut view = View { training: None, evaluation: None, evaluated: None };
                let Some(rows) = make_table(plan, &out, context, &mut |event| view.show(&event))? else {
                    return Ok(None);
                };
                if ranks.is_first() {
                    reports.push(report(plan, &rows, &out, context)?);
                }
            }
            Ok(Some(reports))
        })?;
        let Some(reports) = reports else {
            return session.interrupted("interrupted; the same command goes on from here");
        };
        for report in &reports {
            self.finish(report, &out)?;
        }
        if let [_, _, ..] = reports.as_slice() {
            let page = out.join("all.html");
            vgg_files::write_bytes(&page, html(&reports).as_bytes())?;
            eprintln!("written: {}", page.display());
        }
        note(&format!("took {}", clock(start.elapsed())));
        Ok(ExitCode::SUCCESS)
    }

    /// The data set that was given, or the synthetic one, made if need be.
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
                let what = "this profile has no data of its own: give --dataset DIR, a folder with train/<class>/* and \
                            val/<class>/*, such as ILSVRC-2012 with a folder for each WNID";
                Err(UsageError(what.into()).into())
            }
        }
    }

    /// Where results go.
    fn out_for(&self, profile: &str) -> PathBuf {
        // Also of `.`, which has no name of its own.
        let dataset =
            self.dataset.as_deref().map(|path| path.canonicalize().unwrap_or_else(|_| path.to_owned()));
        let name = match dataset.as_deref().and_then(Path::file_name) {
            Some(dataset) => format!("{profile}-{}", dataset.to_string_lossy()),
            None => profile.to_owned(),
        };
        // A changed recipe does not take the place of the table of the recipe itself.
        let changes = vgg_files::hash_bytes(self.set.join("\n").as_bytes());
        let name = if self.set.is_empty() { name } else { format!("{name}-{}", &changes.as_str()[..8]) };
        self.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(name))
    }

    fn finish(&self, report: &Report, out: &Path) -> Result<ExitCode> {
        // First what lasts: whoever reads stdout may have had enough.
        let paths = report.save(out)?;
        print_report(report)?;
        let names = paths.map(|path| path.display().to_string());
        eprintln!("written: {}", names.join(", "));
        Ok(ExitCode::SUCCESS)
    }
}

/// What the user sees on the way to a table.
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
                // Another network of the same row.
                if *done == 0 || self.evaluated.as_deref() != Some(&member.run) {
                    self.evaluation = None;
                    self.evaluated = Some(member.run.clone());
                }
                let progress = self
                    .evaluation
                    .get_or_insert_with(|| Progress::new(&format!("evaluates {}", member.run), *of as u64));
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
