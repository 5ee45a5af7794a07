//! Recipes of tables: their networks or runs, the dependencies between runs, and the evaluations.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Table;
use vgg_data::synthetic::SyntheticConfig;
use vgg_data::{Geometry, Interpolation};
use vgg_eval::{DensePool, Evaluation, Protocol};
use vgg_layers::{Config, NetworkSpec};

use super::overrides::{from_table, merge, parse as parse_with, table};
use crate::{Error, MemberPlan, Result, RowPlan, RunPlan, TableName, TablePlan};

/// A built-in recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Runs in seconds to test the whole pipeline; the networks learn nothing.
    Smoke,
    /// Small networks that learn: all tables in less than 40 minutes on two cores, table3 in about six.
    Mini,
    /// The paper's settings.
    Paper,
}

impl Profile {
    /// All profiles by name.
    pub const ALL: [(&str, Profile); 3] =
        [("smoke", Profile::Smoke), ("mini", Profile::Mini), ("paper", Profile::Paper)];

    /// The recipe of all tables that need training: its name in messages, and its text.
    fn recipe(self) -> (&'static str, &'static str) {
        match self {
            Profile::Smoke => ("profile smoke", include_str!("../../experiments/smoke.toml")),
            Profile::Mini => ("profile mini", include_str!("../../experiments/mini.toml")),
            Profile::Paper => ("profile paper", include_str!("../../experiments/paper.toml")),
        }
    }
}

/// Built-in tables that need no training: name and recipe.
const COMPUTED: [(&str, &str); 2] = [
    ("table1", include_str!("../../experiments/table1.toml")),
    ("table2", include_str!("../../experiments/table2.toml")),
];

/// Stands for all tables of a recipe.
pub const ALL_TABLES: &str = "all";

/// The built-in recipe for a table, or for all: its name in messages, such as `profile mini`, and its text.
///
/// # Errors
/// [`Error::Plan`] if there is no such table.
pub fn embedded_recipe(profile: Profile, table: &str) -> Result<(&'static str, &'static str)> {
    if let Some(computed) = COMPUTED.iter().find(|(name, _)| *name == table) {
        return Ok(*computed);
    }
    let (name, text) = profile.recipe();
    let tables = names(text)?;
    if table == ALL_TABLES || tables.iter().any(|name| name == table) {
        return Ok((name, text));
    }
    let all = COMPUTED.iter().map(|(name, _)| (*name).to_owned()).chain(tables).collect::<Vec<_>>();
    Err(Error::Plan(format!("no experiment {table}; choose one of {}, {ALL_TABLES}", all.join(", "))))
}

/// Names of the tables of a recipe: the paper's tables, then others.
fn names(text: &str) -> Result<Vec<String>> {
    let recipe: Table = toml::from_str(text).map_err(|e| Error::Plan(e.to_string()))?;
    let tables = recipe.get("tables").and_then(toml::Value::as_table);
    let mut names: Vec<String> = tables.map(|t| t.keys().cloned().collect()).unwrap_or_default();
    // The paper's tables first.
    names.sort_by_key(|name| (!name.starts_with("table"), name.clone()));
    Ok(names)
}

/// The tables of a recipe.
pub enum Recipe {
    /// Table 1, computed.
    Layers(Vec<NetworkSpec>),
    /// Table 2, computed.
    Parameters(Vec<NetworkSpec>),
    /// Tables that need training, on one data set.
    Trained(TrainedTables),
}

/// Tables that need training.
pub struct TrainedTables {
    /// The tables in order.
    pub plans: Vec<TablePlan>,
    /// The synthetic data set to generate if no data set is given.
    pub synthetic: Option<SyntheticConfig>,
}

/// A recipe file of a computed table.
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

/// A recipe file of tables that need training.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainedFile {
    profile: String,
    synthetic: Option<SyntheticConfig>,
    /// Settings shared by all runs: part of a run's settings file.
    base: Table,
    /// Settings of each run, which override the base.
    runs: Vec<Table>,
    evaluate: Evaluate,
    tables: BTreeMap<String, TableEntry>,
}

/// Evaluation settings shared by all tables.
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

/// Parses a recipe and selects one table, or all.
pub(super) fn parse(text: &str, name: &str, set: &[String]) -> Result<Recipe> {
    let over = table(set)?;
    // `base` overrides also take precedence over the runs' own settings.
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
            let what = || Error::Plan(format!("the recipe has no table {name}; its tables are {}", known()));
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

    /// Builds a run from the base, its own settings and the overrides.
    fn run(&self, own: &Table, over: &Table) -> Result<RunPlan> {
        let Some(name) = own.get("name").and_then(toml::Value::as_str) else {
            return Err(Error::Plan("a run of the recipe has no name".into()));
        };
        let mut table = self.base.clone();
        merge(&mut table, own.clone());
        merge(&mut table, over.clone());
        let run: RunPlan = from_table(table).map_err(|e| e.of_run(name))?;
        if run.data.dataset.is_some() {
            let what = "data.dataset is not allowed in a recipe: all runs share one data set";
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
            geometry: Geometry::Paper,
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
                let what = "a row needs either run and test_scales, or members with run and test_scales each";
                return Err(Error::Plan(what.into()));
            }
        };
        let paper = self.paper.clone().or_else(|| self.run.clone()).unwrap_or_default();
        Ok(RowPlan { label: self.label.clone(), members, paper })
    }
}
