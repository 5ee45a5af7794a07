//! Files that describe a table: which networks, or which runs, how they follow from each other, and what is measured.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use toml::Table;
use vgg_data::Filter;
use vgg_data::synthetic::SyntheticConfig;
use vgg_eval::{DensePool, Evaluation, Protocol};
use vgg_experiment::{MemberPlan, RowPlan, RunPlan, TablePlan};
use vgg_layers::{Config, NetworkSpec};

use super::overrides::{from_table, merge, parse as parse_with, table};
use super::raw::RunFile;
use super::{SettingsError, lower};

/// A recipe for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// Seconds: shows that everything works; the networks learn nothing.
    Smoke,
    /// Small networks that learn: all tables in less than 40 minutes on two cores, table3 in about six.
    Mini,
    /// The paper's own recipe.
    Paper,
}

/// Tables that come with the program and need no training.
const COMPUTED: [(&str, &str, &str); 2] = [
    ("table1", "table1.toml", include_str!("../../experiments/table1.toml")),
    ("table2", "table2.toml", include_str!("../../experiments/table2.toml")),
];

/// Recipes that come with the program: all tables that need training, by profile.
const RECIPES: [(Profile, &str, &str); 3] = [
    (Profile::Smoke, "smoke.toml", include_str!("../../experiments/smoke.toml")),
    (Profile::Mini, "mini.toml", include_str!("../../experiments/mini.toml")),
    (Profile::Paper, "paper.toml", include_str!("../../experiments/paper.toml")),
];

/// What is made by a command: a table, or all of a recipe's.
pub(crate) const ALL: &str = "all";

/// The text of the recipe that makes a table, or all of them, and the name of its file.
pub(crate) fn embedded(name: &str, profile: Profile) -> Result<(&'static str, &'static str)> {
    if let Some((_, file, text)) = COMPUTED.iter().find(|(table, ..)| *table == name) {
        return Ok((file, text));
    }
    let (_, file, text) = RECIPES.iter().find(|(p, ..)| *p == profile).unwrap_or(&RECIPES[1]);
    let tables = names(text)?;
    if name == ALL || tables.iter().any(|table| table == name) {
        return Ok((file, text));
    }
    let all = COMPUTED.iter().map(|(table, ..)| (*table).to_owned()).chain(tables).collect::<Vec<_>>();
    let what = format!("there is no experiment {name}; there are {} and {ALL}", all.join(", "));
    Err(SettingsError(what).into())
}

/// Names of the tables of a recipe, in the order of the paper.
fn names(text: &str) -> Result<Vec<String>> {
    let recipe: Table = from_table(toml::from_str(text).map_err(|e| SettingsError(e.to_string()))?)?;
    let tables = recipe.get("tables").and_then(toml::Value::as_table);
    let mut names: Vec<String> = tables.map(|t| t.keys().cloned().collect()).unwrap_or_default();
    // Those of the paper first.
    names.sort_by_key(|name| (!name.starts_with("table"), name.clone()));
    Ok(names)
}

/// A table, lowered.
pub(crate) enum TableFile {
    /// Table 1.
    Layers(Vec<NetworkSpec>),
    /// Table 2.
    Parameters(Vec<NetworkSpec>),
    /// Tables that need training, on one data set.
    Trained(TrainedTables),
}

/// Tables that need training.
pub(crate) struct TrainedTables {
    pub(crate) plans: Vec<TablePlan>,
    /// The set that is made if no data set is given.
    pub(crate) synthetic: Option<SyntheticConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Networks {
    table: ComputedTable,
    configs: Vec<Config>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ComputedTable {
    Table1,
    Table2,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    profile: String,
    synthetic: Option<Synthetic>,
    /// What all runs share: a run's file, in part.
    base: Table,
    runs: Vec<RunEntry>,
    evaluate: Evaluate,
    tables: BTreeMap<String, TableEntry>,
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
    /// Whether it is a result that the loss does not stay finite.
    #[serde(default)]
    may_diverge: bool,
    /// What this run says itself, in the place of what the base says.
    #[serde(flatten)]
    own: Table,
}

/// What all tables share of their evaluation.
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
    test_sides: Option<Vec<usize>>,
    protocol: Option<Protocol>,
    #[serde(default)]
    members: Vec<MemberEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberEntry {
    run: String,
    test_sides: Vec<usize>,
    protocol: Option<Protocol>,
}

/// Reads the tables of a file: the one of this name, or all of them.
pub(super) fn parse(text: &str, name: &str, set: &[String]) -> Result<TableFile> {
    let over = table(set)?;
    // What is set for all runs stands over what a run says itself, too.
    let base = over.get("base").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let computed = toml::from_str::<Table>(text).is_ok_and(|file| file.contains_key("configs"));
    if computed {
        let Networks { table, configs } = parse_with::<Networks>(text, &over)?;
        let specs = configs.into_iter().map(NetworkSpec::paper).collect();
        return Ok(match table {
            ComputedTable::Table1 => TableFile::Layers(specs),
            ComputedTable::Table2 => TableFile::Parameters(specs),
        });
    }
    let wanted = if name == ALL { names(text)? } else { vec![name.to_owned()] };
    Ok(TableFile::Trained(parse_with::<Recipe>(text, &over)?.lower(&wanted, &base, set)?))
}

impl Recipe {
    fn lower(self, wanted: &[String], over: &Table, set: &[String]) -> Result<TrainedTables> {
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
            let run = lower::run(&entry.name, raw, lower::From::Runs).with_context(of_run)?;
            runs.push(RunPlan { may_diverge: entry.may_diverge, ..run });
        }
        let mut plans = Vec::new();
        for name in wanted {
            let known = || self.tables.keys().cloned().collect::<Vec<_>>().join(", ");
            let what = || SettingsError(format!("the recipe has no table {name}; it has {}", known()));
            let entry = self.tables.get(name).ok_or_else(what)?;
            let rows = entry.rows.iter().map(|row| row.lower(entry, &self.evaluate));
            let plan = TablePlan {
                name: name.clone(),
                title: entry.title.clone(),
                profile: self.profile.clone(),
                changes: set.to_vec(),
                runs: runs.clone(),
                rows: rows.collect::<Result<_>>().with_context(|| format!("table {name}"))?,
            };
            plan.ordered()?;
            plans.push(plan.needed()?);
        }
        let synthetic = self.synthetic.map(|s| {
            let Synthetic { seed, train_per_class, val_per_class } = s;
            SyntheticConfig { seed, train_per_class, val_per_class }
        });
        Ok(TrainedTables { plans, synthetic })
    }
}

impl RowEntry {
    fn lower(&self, table: &TableEntry, all: &Evaluate) -> Result<RowPlan> {
        let evaluation = |test_sides: &[usize], protocol: Option<Protocol>| Evaluation {
            protocol: protocol.or(table.protocol).unwrap_or(all.protocol),
            test_sides: test_sides.to_vec(),
            flip: table.flip.unwrap_or(all.flip),
            filter: all.filter,
            dense_pool: all.dense_pool,
            pool_rounding: None,
        };
        let members = match (&self.run, &self.test_sides, self.members.as_slice()) {
            (Some(run), Some(sides), []) => {
                vec![MemberPlan { run: run.clone(), evaluation: evaluation(sides, self.protocol) }]
            }
            (None, None, members @ [_, ..]) if self.protocol.is_none() => members
                .iter()
                .map(|m| MemberPlan { run: m.run.clone(), evaluation: evaluation(&m.test_sides, m.protocol) })
                .collect(),
            _ => {
                let what = "a row has either run and test_sides, or members of which each has them";
                return Err(SettingsError(what.into()).into());
            }
        };
        let paper = self.paper.clone().or_else(|| self.run.clone()).unwrap_or_default();
        Ok(RowPlan { label: self.label.clone(), members, paper })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vgg_experiment::paper;

    fn plans(profile: Profile) -> Vec<TablePlan> {
        let (_, text) = embedded(ALL, profile).unwrap();
        let TableFile::Trained(tables) = parse(text, ALL, &[]).unwrap() else { panic!() };
        tables.plans
    }

    #[test]
    fn all_tables_that_come_with_the_program_are_sound() {
        for profile in [Profile::Smoke, Profile::Mini, Profile::Paper] {
            let plans = plans(profile);
            let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
            assert_eq!(names, ["table3", "table4", "table5", "table6", "table7", "init", "shallow"]);
            for plan in plans {
                // Every row of the paper's, in its order.
                let ours: Vec<&str> = plan.rows.iter().map(|row| row.paper.as_str()).collect();
                let theirs: Vec<&str> = paper::rows(&plan.name).iter().map(|row| row.name).collect();
                assert!(theirs.is_empty() || ours == theirs, "{}: {ours:?}", plan.name);
            }
        }
        for (name, _, text) in COMPUTED {
            assert!(parse(text, name, &[]).is_ok(), "{name}");
        }
    }

    #[test]
    fn the_paper_profile_is_the_papers() {
        let plans = plans(Profile::Paper);
        assert_eq!(plans[0].scaled(), None);
        assert_eq!(plans[0].runs.len(), 12);
        for plan in &plans[..2] {
            for (row, theirs) in plan.rows.iter().zip(paper::rows(&plan.name)) {
                let [member] = row.members.as_slice() else { panic!() };
                let run = plan.run(&member.run).unwrap();
                let sides = (run.train_side(), member.evaluation.test_sides.clone());
                assert_eq!(sides, (theirs.train_side.to_vec(), theirs.test_sides.to_vec()));
                assert_eq!(run.network.spec(1000).unwrap(), NetworkSpec::paper(run.network.config));
                assert_eq!((run.batch, run.train.max_epochs, run.data.colour_shift_std), (256, 74, 0.1));
                let from = match row.paper.split_once('/').unwrap() {
                    ("A" | "A-LRN", _) => None,
                    (_, "256") => Some("A/256".to_owned()),
                    (config, "384") => Some(format!("{config}/256")),
                    (config, _) => Some(format!("{config}/384")),
                };
                assert_eq!(run.parent().map(str::to_owned), from, "{}", member.run);
            }
        }
        let submission = &plans[3].rows[0];
        assert_eq!(submission.members.len(), 7);
        let head = plans[3].run("D/jitter-fc").unwrap();
        assert_eq!(head.train_layers.as_deref().unwrap_or_default(), ["fc6", "fc7", "fc8"]);
        assert_eq!(plans[3].rows[3].members.len(), 4);
    }
}
