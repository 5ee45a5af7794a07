//! Reproduction of the paper's tables as graphs of cached training runs.
//!
//! A [`TablePlan`] lists the runs of a table, the run that each one starts from, and the evaluations of its
//! rows. [`make_table`] trains and evaluates what is missing. Each run has a directory named by the hash of
//! everything that determines it, so that an interrupted table can be resumed and tables share runs. A
//! [`Report`] presents the rows with the paper's numbers, as text and as data.
//!
//! A [`RunPlan`] holds a run's settings: [`read_run`] reads it from TOML, and the run's `run.json` records it
//! in a form that can be read again. This crate prints nothing.

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod architecture;
mod dataset;
mod error;
mod findings;
mod identity;
pub mod paper;
mod plot;
mod ranks;
mod report;
mod results;
mod row;
mod run;
mod run_plan;
mod scales;
mod seeds;
mod settings;
mod table;
mod table_name;
mod table_plan;

pub use architecture::{table1, table2};
pub use dataset::{Dataset, DatasetOptions};
pub use error::{Error, Result};
pub use findings::{Finding, Verdict, findings};
pub use plot::Plot;
pub use report::{Report, html};
pub use results::report;
pub use row::{Member, Row, SeedResult};
pub use run::{FinishedRun, PreparedRun, RunContext, RunEvent};
pub use run_plan::{
    DataPlan, InitPlan, NetworkPlan, OptimizerPlan, PixelScale, RunLength, RunPlan, ValidationPlan,
};
pub use scales::{test_scales_text, train_scale_text};
pub use seeds::{MAX_SEEDS, combine_seeds};
pub use settings::{
    ALL_TABLES, Preset, Profile, Recipe, TrainedTables, embedded_recipe, preset_run, profile_recipe,
    read_recipe, read_run,
};
pub use table::{Event, make_table};
pub use table_name::TableName;
pub use table_plan::{MemberPlan, RowPlan, TablePlan};
