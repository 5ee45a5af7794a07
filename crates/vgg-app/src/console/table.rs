//! A table on stdout.

use std::io::Write as _;

use super::out::out;
use comfy_table::{ContentArrangement, Table, presets};
use vgg_experiment::Report;

/// Prints title, table and notes.
pub(crate) fn print_table(report: &Report) -> std::io::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(&report.columns)
        .add_rows(&report.cells);
    writeln!(out(), "{}\n{table}", report.title)?;
    for note in &report.notes {
        writeln!(out(), "- {note}")?;
    }
    Ok(())
}
