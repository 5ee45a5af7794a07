//! Tables on stdout.

use std::io::Write as _;

use super::out::out;
use comfy_table::{ContentArrangement, Table, presets};
use vgg_experiment::Report;

pub(crate) fn print_report(report: &Report) -> std::io::Result<()> {
    writeln!(out(), "{}", report.title)?;
    print_table(&report.columns, &report.cells)?;
    if let [summary, lines @ ..] = report.statement.as_slice() {
        writeln!(out(), "{summary}:")?;
        for line in lines {
            writeln!(out(), "- {line}")?;
        }
        writeln!(out())?;
    }
    for note in &report.notes {
        writeln!(out(), "- {note}")?;
    }
    Ok(())
}

pub(crate) fn print_table(columns: &[String], cells: &[Vec<String>]) -> std::io::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns)
        .add_rows(cells);
    writeln!(out(), "{table}")
}
