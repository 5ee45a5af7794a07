//! Files that describe a table: which networks, or which runs, how they follow from each other, and what is measured.

use anyhow::{Context, Result};
use serde::Deserialize;
use toml::Table;
use vgg_data::Filter;
use vgg_data::synthetic::SyntheticConfig;
use vgg_eval::{DensePool, Evaluation, Protocol};
use vgg_experiment::{RowPlan, TablePlan};
use vgg_layers::{Config, NetworkSpec};

use super::overrides::{from_table, merge, parse as parse_with, table};
use super::raw::RunFile;
use super::{SettingsError, lower};

/// A recipe for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// Seconds: shows that everything works; the networks learn nothing.
    Smoke,
    /// A quarter of an hour on two cores: small networks that learn.
    Mini,
    /// The paper's own recipe.
    Paper,
}

/// A table that comes with the program.
pub(crate) struct Embedded {
    pub(crate) name: &'static str,
    /// `None` if the table is the same for all profiles.
    pub(crate) profile: Option<Profile>,
    /// Name of the file that it was made from.
    pub(crate) file: &'static str,
    pub(crate) text: &'static str,
}

macro_rules! embedded {
    ($name:literal, $profile:expr, $file:literal) => {
        Embedded {
            name: $name,
            profile: $profile,
            file: $file,
            text: include_str!(concat!("../../experiments/", $file)),
        }
    };
}

/// All tables that come with the program.
const EMBEDDED: [Embedded; 5] = [
    embedded!("table1", None, "table1.toml"),
    embedded!("table2", None, "table2.toml"),
    embedded!("table3", Some(Profile::Smoke), "table3-smoke.toml"),
    embedded!("table3", Some(Profile::Mini), "table3-mini.toml"),
    embedded!("table3", Some(Profile::Paper), "table3-paper.toml"),
];

impl Embedded {
    /// The table of this name and profile.
    pub(crate) fn find(name: &str, profile: Profile) -> Result<&'static Embedded> {
        let fits = |table: &&Embedded| table.name == name && table.profile.is_none_or(|p| p == profile);
        let mut names = EMBEDDED.map(|table| table.name).to_vec();
        names.dedup();
        let error =
            || SettingsError(format!("there is no experiment {name}; there are {}", names.join(", "))).into();
        EMBEDDED.iter().find(fits).ok_or_else(error)
    }
}

/// A table, lowered.
pub(crate) enum TableFile {
    /// Table 1.
    Layers(Vec<NetworkSpec>),
    /// Table 2.
    Parameters(Vec<NetworkSpec>),
    /// A table that needs training.
    Trained(TrainedTable),
}

/// A table that needs training.
pub(crate) struct TrainedTable {
    pub(crate) plan: TablePlan,
    /// The set that is made if no data set is given.
    pub(crate) synthetic: Option<SyntheticConfig>,
}

#[derive(Deserialize)]
#[serde(tag = "table", rename_all = "lowercase")]
enum Raw {
    Table1(Networks),
    Table2(Networks),
    Table3(Box<Trained>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Networks {
    configs: Vec<Config>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trained {
    title: String,
    profile: String,
    synthetic: Option<Synthetic>,
    /// What all runs share: a run's file, in part.
    base: Table,
    runs: Vec<RunEntry>,
    evaluate: Evaluate,
    rows: Vec<RowEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Synthetic {
    seed: u64,
    train_per_class: usize,
    val_per_class: usize,
}

#[derive(Deserialize)]
struct RunEntry {
    name: String,
    /// What this run says itself, in the place of what the base says.
    #[serde(flatten)]
    own: Table,
}

/// What all rows share of their evaluation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Evaluate {
    protocol: Protocol,
    flip: bool,
    filter: Filter,
    dense_pool: DensePool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowEntry {
    run: String,
    test_sides: Vec<usize>,
    paper: String,
}

pub(super) fn parse(text: &str, set: &[String]) -> Result<TableFile> {
    let specs = |n: Networks| n.configs.into_iter().map(NetworkSpec::paper).collect();
    let over = table(set)?;
    // What is set for all runs stands over what a run says itself, too.
    let base = over.get("base").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    Ok(match parse_with::<Raw>(text, &over)? {
        Raw::Table1(networks) => TableFile::Layers(specs(networks)),
        Raw::Table2(networks) => TableFile::Parameters(specs(networks)),
        Raw::Table3(trained) => TableFile::Trained(trained.lower("table3", &base, set)?),
    })
}

impl Trained {
    fn lower(self, name: &str, over: &Table, set: &[String]) -> Result<TrainedTable> {
        let mut runs = Vec::new();
        for entry in self.runs {
            let mut table = self.base.clone();
            merge(&mut table, entry.own);
            merge(&mut table, over.clone());
            let of_run = || format!("run {}", entry.name);
            let raw: RunFile = from_table(table).with_context(of_run)?;
            if raw.data.dataset.is_some() {
                let what = "data.dataset has no place in a table; give --dataset DIR";
                return Err(SettingsError(what.into())).with_context(of_run);
            }
            runs.push(lower::run(&entry.name, raw, lower::From::Runs).with_context(of_run)?);
        }
        let Evaluate { protocol, flip, filter, dense_pool } = self.evaluate;
        let row = |entry: RowEntry| {
            let test_sides = entry.test_sides;
            let evaluation = Evaluation { protocol, test_sides, flip, filter, dense_pool };
            RowPlan { run: entry.run, evaluation, paper: entry.paper }
        };
        let rows = self.rows.into_iter().map(row).collect();
        let (name, title, profile, changes) = (name.into(), self.title, self.profile, set.to_vec());
        let plan = TablePlan { name, title, profile, changes, runs, rows };
        plan.ordered()?;
        let synthetic = self.synthetic.map(|s| {
            let Synthetic { seed, train_per_class, val_per_class } = s;
            SyntheticConfig { seed, train_per_class, val_per_class }
        });
        Ok(TrainedTable { plan, synthetic })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tables_that_come_with_the_program_are_sound() {
        for table in &EMBEDDED {
            let file = parse(table.text, &[]).unwrap_or_else(|e| panic!("{}: {e:#}", table.file));
            if let TableFile::Trained(trained) = file {
                let names: Vec<&str> = trained.plan.rows.iter().map(|r| r.paper.as_str()).collect();
                let paper = vgg_experiment::paper::TABLE_3.map(|row| row.name);
                assert_eq!(names, paper, "{}", table.file);
                assert_eq!(trained.plan.runs.len(), 12);
            }
        }
    }

    #[test]
    fn the_paper_profile_is_the_papers() {
        let table = Embedded::find("table3", Profile::Paper).unwrap();
        let TableFile::Trained(TrainedTable { plan, .. }) = parse(table.text, &[]).unwrap() else { panic!() };
        assert_eq!(plan.scaled(), None);
        for (row, paper) in plan.rows.iter().zip(vgg_experiment::paper::TABLE_3) {
            let run = plan.run(&row.run).unwrap();
            let [low, high] = run.data.train_side;
            let side = if low == high { vec![low] } else { vec![low, high] };
            assert_eq!(
                (side.as_slice(), row.evaluation.test_sides.as_slice()),
                (paper.train_side, paper.test_sides)
            );
            assert_eq!(run.network.spec(1000).unwrap(), NetworkSpec::paper(run.network.config));
            assert_eq!((run.batch, run.train.max_epochs, run.data.colour_shift_std), (256, 74, 0.1));
            let from = match row.paper.split_once('/').unwrap() {
                ("A" | "A-LRN", _) => None,
                (_, "256") => Some("A/256".to_owned()),
                (config, "384") => Some(format!("{config}/256")),
                (config, _) => Some(format!("{config}/384")),
            };
            assert_eq!(run.parent().map(str::to_owned), from, "{}", row.run);
        }
    }
}
