//! A finished table in the forms in which people and programs read it.

mod html;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vgg_files::{write_bytes, write_json};

pub use html::html;

use crate::{Error, Plot, Result};

/// A table with a title, notes, cells for people, and rows for programs.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Stem of its files, such as `table3`.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Which recipe made it, if that matters.
    pub profile: Option<String>,
    /// What a reader must know: the data set, what was scaled down.
    pub notes: Vec<String>,
    /// Heads of the columns.
    pub columns: Vec<String>,
    /// Cells, as they are shown.
    pub cells: Vec<Vec<String>>,
    /// Names of the fields of the rows, in the order of the CSV file.
    pub fields: Vec<&'static str>,
    /// Rows: one object each, errors as fractions.
    pub rows: Vec<Value>,
    /// Directories of the runs that made each row, below that of the table.
    pub runs: Vec<Vec<String>>,
    /// Pictures of the rows.
    pub plots: Vec<Plot>,
    /// Whatever else a program may want to know.
    pub about: Value,
}

impl Report {
    /// Writes `NAME.json`, `NAME.md`, `NAME.csv` and `NAME.html` to `dir`.
    ///
    /// # Errors
    /// [`Error::File`] if one cannot be written.
    pub fn save(&self, dir: &Path) -> Result<[PathBuf; 4]> {
        let paths =
            ["json", "md", "csv", "html"].map(|extension| dir.join(format!("{}.{extension}", self.name)));
        write_json(&paths[0], &self.json())?;
        write_bytes(&paths[1], self.markdown().as_bytes())?;
        write_bytes(&paths[2], &self.csv()?)?;
        write_bytes(&paths[3], html(std::slice::from_ref(self)).as_bytes())?;
        Ok(paths)
    }

    /// One document with everything.
    pub fn json(&self) -> Value {
        json!({
            "table": self.name,
            "title": self.title,
            "profile": self.profile,
            "notes": self.notes,
            "about": self.about,
            "rows": self.rows,
        })
    }

    /// Title, table and notes.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: Vec<String> = self.columns.iter().map(|_| "---".to_owned()).collect();
        let cells: String = self.cells.iter().map(|cells| line(cells)).collect();
        let notes: String = self.notes.iter().map(|note| format!("- {note}\n")).collect();
        format!("# {}\n\n{}{}{cells}\n{notes}", self.title, line(&self.columns), line(&rule))
    }

    /// The rows; lists within a cell are separated by semicolons.
    ///
    /// # Errors
    /// [`Error::Plan`] in no case that is known.
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
