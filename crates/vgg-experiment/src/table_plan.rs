//! What a table takes: training runs, how they follow from each other, and which of them make its rows.

use serde::Serialize;
use vgg_eval::Evaluation;

use crate::{Error, Result, RunPlan, TableName};

/// A table of the paper whose rows need training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TablePlan {
    /// Stem of its files, too.
    pub name: TableName,
    /// What it is, for people.
    pub title: String,
    /// Which recipe, such as `mini`.
    pub profile: String,
    /// What was changed in the recipe, such as `base.run.seed=2`.
    pub changes: Vec<String>,
    /// The runs in any order.
    pub runs: Vec<RunPlan>,
    /// The rows in order.
    pub rows: Vec<RowPlan>,
}

/// One row of a table: what its networks say, on average.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowPlan {
    /// What it is called, if that is not the configuration.
    pub label: Option<String>,
    /// Networks with their protocols; the row is the mean of their posteriors.
    pub members: Vec<MemberPlan>,
    /// Which row of the paper stands beside it, such as `C/256`.
    pub paper: String,
}

/// A network of a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemberPlan {
    /// The run whose network is evaluated.
    pub run: String,
    /// How.
    pub evaluation: Evaluation,
}

impl RunPlan {
    /// The run of the same table that this one starts from.
    pub fn parent(&self) -> Option<&str> {
        self.network.init.from.as_deref()
    }
}

impl TablePlan {
    /// The run of this name.
    ///
    /// # Errors
    /// [`Error::Plan`] if there is none.
    pub fn run(&self, name: &str) -> Result<&RunPlan> {
        let known = || self.runs.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.runs.iter().find(|run| run.name == name);
        found.ok_or_else(|| Error::Plan(format!("there is no run {name}; there are {}", known())))
    }

    /// Leaves out the runs that no row needs, neither itself nor as what another starts from.
    ///
    /// # Errors
    /// [`Error::Plan`] if a row or a run names one that is not there.
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

    /// The runs in an order in which each comes after the one that it starts from, otherwise as planned.
    ///
    /// # Errors
    /// [`Error::Plan`] if a name is missing or stands twice, or runs wait for each other; those of
    /// [`RunPlan::check`] and of the evaluations.
    pub fn ordered(&self) -> Result<Vec<&RunPlan>> {
        let mut ordered: Vec<&RunPlan> = Vec::new();
        for run in &self.runs {
            run.check()?;
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
