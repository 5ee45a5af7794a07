//! Terminal output and signal handling.

mod note;
mod out;
mod progress;
mod signals;
mod table;
mod training;

pub(crate) use note::{be_quiet, is_quiet, note, warning};
pub(crate) use out::{out, take_stdout_error};
pub(crate) use progress::{Progress, clock};
pub(crate) use signals::Interrupt;
pub(crate) use table::{print_report, print_table};
pub(crate) use training::TrainingView;
