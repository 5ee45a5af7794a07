//! The tables of Simonyan & Zisserman as graphs of cached runs.
//!
//! A [`TablePlan`] says which runs a table takes, what each starts from, and which evaluations make its rows.
//! [`make_table`] trains and evaluates what is not there yet: a run is kept in a directory that is named by the hash of
//! all that determines it, so stopping and starting again goes on, and tables share runs. A [`Report`] is the table for
//! people and programs, with the paper's numbers beside ours.
//!
//! A [`RunPlan`] is the one type of a run's settings: it is read from TOML ([`read_run`]), names the run, and is recorded in its
//! `run.json`, which can be read again. Nothing is printed.

#![warn(clippy::unwrap_used)]

mod architecture;
mod dataset;
mod error;
mod identity;
pub mod paper;
mod plot;
mod ranks;
mod report;
mod results;
mod run;
mod run_plan;
mod scales;
mod settings;
mod table;
mod table_name;
mod table_plan;

pub use architecture::{table1, table2};
pub use dataset::Dataset;
pub use error::{Error, Result};
pub use plot::Plot;
pub use report::{Report, html};
pub use results::report;
pub use run::{FinishedRun, PreparedRun, RunContext, RunEvent};
pub use run_plan::{
    DataPlan, InitPlan, NetworkPlan, OptimizerPlan, PixelScale, RunLength, RunPlan, ValidationPlan,
};
pub use scales::{test_scales_text, train_scale_text};
pub use settings::{
    ALL_TABLES, Preset, Profile, Recipe, TrainedTables, embedded_recipe, preset_run, profile_recipe,
    read_recipe, read_run,
};
pub use table::{Event, Member, Row, make_table};
pub use table_name::TableName;
pub use table_plan::{MemberPlan, RowPlan, TablePlan};
