//! The tables of Simonyan & Zisserman as graphs of cached runs.
//!
//! A [`TablePlan`] says which runs a table takes, what each starts from, and which evaluations make its rows.
//! [`make_table`] trains and evaluates what is not there yet: a run is kept in a directory that is named by the hash of
//! all that determines it, so stopping and starting again goes on, and tables share runs. A [`Report`] is the table for
//! people and programs, with the paper's numbers beside ours.
//!
//! Nothing is printed, and no file of settings is read: that is for the application.

#![warn(clippy::unwrap_used)]

mod architecture;
mod dataset;
mod error;
mod html;
pub mod paper;
mod plan;
mod plot;
mod ranks;
mod report;
mod results;
mod run;
mod table;

pub use architecture::{paper_networks, table1, table2};
pub use dataset::Dataset;
pub use error::{Error, Result};
pub use html::html;
pub use plan::{
    DataPlan, InitPlan, MemberPlan, NetworkPlan, PixelScale, RowPlan, RunPlan, Source, Start, TablePlan,
};
pub use plot::Plot;
pub use report::Report;
pub use results::{listed, report, sides};
pub use run::{Context, FinishedRun, PreparedRun, RunEvent};
pub use table::{Event, Member, Row, make_table};
