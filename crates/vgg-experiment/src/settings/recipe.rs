//! Recipes of tables: which networks, or which runs, how they follow from each other, and what is measured.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Table;
use vgg_data::Interpolation;
use vgg_data::synthetic::SyntheticConfig;
use vgg_eval::{DensePool, Evaluation, Protocol};
use vgg_layers::{Config, NetworkSpec};

use super::overrides::{from_table, merge, parse as parse_with, table};
use crate::{Error, MemberPlan, Result, RowPlan, RunPlan, TableName, TablePlan};

/// A recipe that comes with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Seconds: shows that everything works; the networks learn nothing.
    Smoke,
    /// Small networks that learn: all tables in less than 40 minutes on two cores, table3 in about six.
    Mini,
    /// The paper's own recipe.
    Paper,
}

impl Profile {
    /// All profiles by name.
    pub const ALL: [(&str, Profile); 3] =
        [("smoke", Profile::Smoke), ("mini", Profile::Mini), ("paper", Profile::Paper)];

    /// Its file: all tables that need training.
    fn file(self) -> (&'static str, &'static str) {
        match self {
            Profile::Smoke => ("smoke.toml", include_str!("../../experiments/smoke.toml")),
            Profile::Mini => ("mini.toml", include_str!("../../experiments/mini.toml")),
            Profile::Paper => ("paper.toml", include_str!("../../experiments/paper.toml")),
        }
    }
}

/// Tables that come with the program and need no training.
const COMPUTED: [(&str, &str, &str); 2] = [
    ("table1", "table1.toml", include_str!("../../experiments/table1.toml")),
    ("table2", "table2.toml", include_str!("../../experiments/table2.toml")),
];

/// In the place of a table's name: all tables of a recipe.
pub const ALL_TABLES: &str = "all";

/// The name and the text of the recipe that makes a table, or all of them.
///
/// # Errors
/// [`Error::Plan`] if there is no such table.
pub fn embedded_recipe(profile: Profile, table: &str) -> Result<(&'static str, &'static str)> {
    if let Some((_, file, text)) = COMPUTED.iter().find(|(name, ..)| *name == table) {
        return Ok((file, text));
    }
    let (file, text) = profile.file();
    let tables = names(text)?;
    if table == ALL_TABLES || tables.iter().any(|name| name == table) {
        return Ok((file, text));
    }
    let all = COMPUTED.iter().map(|(name, ..)| (*name).to_owned()).chain(tables).collect::<Vec<_>>();
    Err(Error::Plan(format!("there is no experiment {table}; there are {} and {ALL_TABLES}", all.join(", "))))
}

/// Names of the tables of a recipe, in the order of the paper.
fn names(text: &str) -> Result<Vec<String>> {
    let recipe: Table = toml::from_str(text).map_err(|e| Error::Plan(e.to_string()))?;
    let tables = recipe.get("tables").and_then(toml::Value::as_table);
    let mut names: Vec<String> = tables.map(|t| t.keys().cloned().collect()).unwrap_or_default();
    // Those of the paper first.
    names.sort_by_key(|name| (!name.starts_with("table"), name.clone()));
    Ok(names)
}

/// What a recipe makes.
pub enum Recipe {
    /// Table 1.
    Layers(Vec<NetworkSpec>),
    /// Table 2.
    Parameters(Vec<NetworkSpec>),
    /// Tables that need training, on one data set.
    Trained(TrainedTables),
}

/// Tables that need training.
pub struct TrainedTables {
    /// The tables in order.
    pub plans: Vec<TablePlan>,
    /// The set that is made if no data set is given.
    pub synthetic: Option<SyntheticConfig>,
}

/// A file of tables that need no training.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ComputedFile {
    table: ComputedTable,
    configs: Vec<Config>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ComputedTable {
    Table1,
    Table2,
}

/// A file of tables that need training.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainedFile {
    profile: String,
    synthetic: Option<SyntheticConfig>,
    /// What all runs share: a run's file, in part.
    base: Table,
    /// What each run says itself, in the place of what the base says.
    runs: Vec<Table>,
    evaluate: Evaluate,
    tables: BTreeMap<String, TableEntry>,
}

/// What all tables share of their evaluation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Evaluate {
    protocol: Protocol,
    flip: bool,
    interpolation: Interpolation,
    dense_pool: DensePool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableEntry {
    title: String,
    protocol: Option<Protocol>,
    flip: Option<bool>,
    rows: Vec<RowEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowEntry {
    label: Option<String>,
    paper: Option<String>,
    run: Option<String>,
    test_scales: Option<Vec<usize>>,
    protocol: Option<Protocol>,
    #[serde(default)]
    members: Vec<MemberEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberEntry {
    run: String,
    test_scales: Vec<usize>,
    protocol: Option<Protocol>,
}

/// Reads the tables of a file: the one of this name, or all of them.
pub(super) fn parse(text: &str, name: &str, set: &[String]) -> Result<Recipe> {
    let over = table(set)?;
    // What is set for all runs stands over what a run says itself, too.
    let base = over.get("base").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let computed = toml::from_str::<Table>(text).is_ok_and(|file| file.contains_key("configs"));
    if computed {
        let ComputedFile { table, configs } = parse_with(text, &over)?;
        let specs = configs.into_iter().map(NetworkSpec::paper).collect();
        return Ok(match table {
            ComputedTable::Table1 => Recipe::Layers(specs),
            ComputedTable::Table2 => Recipe::Parameters(specs),
        });
    }
    let wanted = if name == ALL_TABLES { names(text)? } else { vec![name.to_owned()] };
    Ok(Recipe::Trained(parse_with::<TrainedFile>(text, &over)?.resolve(&wanted, &base, set)?))
}

impl TrainedFile {
    fn resolve(self, wanted: &[String], over: &Table, set: &[String]) -> Result<TrainedTables> {
        let runs = self.runs.iter().map(|own| self.run(own, over)).collect::<Result<Vec<_>>>()?;
        let mut plans = Vec::new();
        for name in wanted {
            let known = || self.tables.keys().cloned().collect::<Vec<_>>().join(", ");
            let what = || Error::Plan(format!("the recipe has no table {name}; it has {}", known()));
            let entry = self.tables.get(name).ok_or_else(what)?;
            let rows = entry.rows.iter().map(|row| row.resolve(entry, &self.evaluate));
            let plan = TablePlan {
                name: TableName::from(name.as_str()),
                title: entry.title.clone(),
                profile: self.profile.clone(),
                changes: set.to_vec(),
                runs: runs.clone(),
                rows: rows.collect::<Result<_>>().map_err(|e| e.in_file(&format!("table {name}")))?,
            };
            plan.ordered()?;
            plans.push(plan.needed()?);
        }
        Ok(TrainedTables { plans, synthetic: self.synthetic })
    }

    /// A run: the base, what the run says itself, and what was set for all runs.
    fn run(&self, own: &Table, over: &Table) -> Result<RunPlan> {
        let Some(name) = own.get("name").and_then(toml::Value::as_str) else {
            return Err(Error::Plan("a run has no name".into()));
        };
        let mut table = self.base.clone();
        merge(&mut table, own.clone());
        merge(&mut table, over.clone());
        let run: RunPlan = from_table(table).map_err(|e| e.of_run(name))?;
        if run.data.dataset.is_some() {
            let what = "data.dataset has no place in a table, all runs of which share one data set";
            return Err(Error::Plan(what.into()).of_run(name));
        }
        Ok(run)
    }
}

impl RowEntry {
    fn resolve(&self, table: &TableEntry, all: &Evaluate) -> Result<RowPlan> {
        let evaluation = |test_scales: &[usize], protocol: Option<Protocol>| Evaluation {
            protocol: protocol.or(table.protocol).unwrap_or(all.protocol),
            test_scales: test_scales.to_vec(),
            flip: table.flip.unwrap_or(all.flip),
            interpolation: all.interpolation,
            dense_pool: all.dense_pool,
            pool_rounding: None,
        };
        let members = match (&self.run, &self.test_scales, self.members.as_slice()) {
            (Some(run), Some(sides), []) => {
                vec![MemberPlan { run: run.clone(), evaluation: evaluation(sides, self.protocol) }]
            }
            (None, None, members @ [_, ..]) if self.protocol.is_none() => members
                .iter()
                .map(|m| MemberPlan {
                    run: m.run.clone(),
                    evaluation: evaluation(&m.test_scales, m.protocol),
                })
                .collect(),
            _ => {
                let what = "a row has either run and test_scales, or members of which each has them";
                return Err(Error::Plan(what.into()));
            }
        };
        let paper = self.paper.clone().or_else(|| self.run.clone()).unwrap_or_default();
        Ok(RowPlan { label: self.label.clone(), members, paper })
    }
}
