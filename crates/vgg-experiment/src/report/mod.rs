//! A finished table, as text, HTML, JSON and CSV.

mod html;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vgg_files::{write_bytes, write_json};

pub use html::html;

use crate::{Error, Finding, Plot, Result};

/// A table with a title, notes, cells for display and rows as data.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Stem of the file names, such as `table3`.
    pub name: String,
    /// Title of the table.
    pub title: String,
    /// Name of the recipe, if any.
    pub profile: Option<String>,
    /// Which of the paper's orderings the table shows: a summary, then a line for each; empty if there are none.
    pub statement: Vec<String>,
    /// Notes, such as the data set and settings that differ from the paper's.
    pub notes: Vec<String>,
    /// Column heads.
    pub columns: Vec<String>,
    /// Displayed cells, by row.
    pub cells: Vec<Vec<String>>,
    /// Field names of `rows`, in the order of the CSV columns.
    pub fields: Vec<&'static str>,
    /// Rows as JSON objects; errors are fractions.
    pub rows: Vec<Value>,
    /// The statement as data.
    pub findings: Vec<Finding>,
    /// Directories of each row's runs, relative to the table's.
    pub runs: Vec<Vec<String>>,
    /// Plots of the rows.
    pub plots: Vec<Plot>,
    /// Additional information for programs.
    pub about: Value,
}

impl Report {
    /// Writes `NAME.json`, `NAME.md`, `NAME.csv` and `NAME.html` to `dir`.
    ///
    /// # Errors
    /// [`Error::File`] if a file cannot be written; [`Error::Plan`] if the CSV writer fails.
    pub fn save(&self, dir: &Path) -> Result<[PathBuf; 4]> {
        let paths =
            ["json", "md", "csv", "html"].map(|extension| dir.join(format!("{}.{extension}", self.name)));
        write_json(&paths[0], &self.json())?;
        write_bytes(&paths[1], self.markdown().as_bytes())?;
        write_bytes(&paths[2], &self.csv()?)?;
        write_bytes(&paths[3], html(std::slice::from_ref(self)).as_bytes())?;
        Ok(paths)
    }

    /// The report as one JSON document.
    pub fn json(&self) -> Value {
        json!({
            "table": self.name,
            "title": self.title,
            "profile": self.profile,
            "findings": self.findings,
            "notes": self.notes,
            "about": self.about,
            "rows": self.rows,
        })
    }

    /// Title, table, statement and notes as Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: Vec<String> = self.columns.iter().map(|_| "---".to_owned()).collect();
        let cells: String = self.cells.iter().map(|cells| line(cells)).collect();
        let notes: String = self.notes.iter().map(|note| format!("- {note}\n")).collect();
        let statement = match self.statement.as_slice() {
            [] => String::new(),
            [summary, lines @ ..] => {
                format!(
                    "{summary}:\n\n{}\n",
                    lines.iter().map(|line| format!("- {line}\n")).collect::<String>()
                )
            }
        };
        format!("# {}\n\n{}{}{cells}\n{statement}{notes}", self.title, line(&self.columns), line(&rule))
    }

    /// The rows as CSV; lists within a cell are separated by semicolons.
    ///
    /// # Errors
    /// [`Error::Plan`] if the CSV writer fails.
    pub fn csv(&self) -> Result<Vec<u8>> {
        let failed = |e: &dyn std::fmt::Display| Error::Plan(format!("cannot write {}.csv: {e}", self.name));
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(&self.fields).map_err(|e| failed(&e))?;
        for row in &self.rows {
            csv.write_record(self.fields.iter().map(|field| plain(&row[*field]))).map_err(|e| failed(&e))?;
        }
        csv.into_inner().map_err(|e| failed(&e))
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(";"),
        other => other.to_string(),
    }
}
