//! The plan of a table: its training runs, their dependencies, and its rows.

use serde::Serialize;
use vgg_eval::Evaluation;

use crate::{Error, Result, RunPlan, TableName};

/// The plan of a table whose rows need training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TablePlan {
    /// Name, also the stem of its files.
    pub name: TableName,
    /// Title of the table.
    pub title: String,
    /// Name of the recipe, such as `mini`.
    pub profile: String,
    /// Overridden settings, such as `base.run.seed=2`.
    pub changes: Vec<String>,
    /// The runs, in any order.
    pub runs: Vec<RunPlan>,
    /// The rows, in order.
    pub rows: Vec<RowPlan>,
}

/// A row of a table: one network, or the fusion of several.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowPlan {
    /// Label, if it is not the configuration.
    pub label: Option<String>,
    /// The networks and their protocols. The row evaluates the mean of their posteriors.
    pub members: Vec<MemberPlan>,
    /// The corresponding row of the paper, such as `C/256`.
    pub paper: String,
}

/// A network of a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemberPlan {
    /// Name of the run whose network is evaluated.
    pub run: String,
    /// The evaluation settings.
    pub evaluation: Evaluation,
}

impl RunPlan {
    /// The run of the same table that this run starts from.
    pub fn parent(&self) -> Option<&str> {
        self.network.init.from.as_deref()
    }
}

impl TablePlan {
    /// The run with this name.
    ///
    /// # Errors
    /// [`Error::Plan`] if the table has no run with this name.
    pub fn run(&self, name: &str) -> Result<&RunPlan> {
        let known = || self.runs.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.runs.iter().find(|run| run.name == name);
        found.ok_or_else(|| Error::Plan(format!("there is no run {name}; runs: {}", known())))
    }

    /// Removes runs that no row needs, directly or as the parent of another run.
    ///
    /// # Errors
    /// [`Error::Plan`] if a row or a run names a missing run.
    pub fn needed(mut self) -> Result<TablePlan> {
        let mut names: Vec<String> =
            self.rows.iter().flat_map(|row| &row.members).map(|member| member.run.clone()).collect();
        let mut next = 0;
        while next < names.len() {
            let parent = self.run(&names[next])?.parent().map(str::to_owned);
            names.extend(parent.filter(|parent| !names.contains(parent)));
            next += 1;
        }
        self.runs.retain(|run| names.contains(&run.name));
        Ok(self)
    }

    /// The runs, each after its parent, otherwise in the planned order.
    ///
    /// # Errors
    /// [`Error::Plan`] if a name is missing or duplicate, or runs start from each other in a cycle; the
    /// errors of [`RunPlan::check`] and of the evaluations.
    pub fn ordered(&self) -> Result<Vec<&RunPlan>> {
        let mut ordered: Vec<&RunPlan> = Vec::new();
        for run in &self.runs {
            run.check().map_err(|e| e.of_run(&run.name))?;
            if self.runs.iter().filter(|other| other.name == run.name).count() > 1 {
                return Err(Error::Plan(format!("two runs are named {}", run.name)));
            }
        }
        for row in &self.rows {
            if row.members.is_empty() {
                return Err(Error::Plan(format!("row {} has no network", row.paper)));
            }
            for member in &row.members {
                member.evaluation.views(self.run(&member.run)?.data.crop)?;
            }
        }
        for run in &self.runs {
            let mut chain = vec![run];
            while let Some(parent) = chain[chain.len() - 1].parent() {
                let child = chain[chain.len() - 1];
                let parent = self.run(parent)?;
                let classes = child.network.classes.or(parent.network.classes).unwrap_or(1000);
                if let Some(map) = &child.network.init.layers {
                    map.check(&parent.spec(classes)?, &child.spec(classes)?)?;
                }
                if chain.iter().any(|link| link.name == parent.name) {
                    return Err(Error::Plan(format!("run {} starts from itself", parent.name)));
                }
                chain.push(parent);
            }
            let fresh = chain.into_iter().rev().filter(|link| !ordered.iter().any(|o| o.name == link.name));
            ordered.extend(fresh.collect::<Vec<_>>());
        }
        Ok(ordered)
    }
}
