//! Builds the report of a table from its rows and the paper's values.

use std::path::Path;

use serde_json::json;
use vgg_error::printable;
use vgg_train::Schedule;

use crate::findings::statement;
use crate::plot::plots;
use crate::{
    PixelScale, Report, Result, Row, RunContext, RunPlan, TableName, TablePlan, findings, paper,
    test_scales_text, train_scale_text,
};

/// Fields of a row, in the order of the CSV columns.
const FIELDS: [&str; 23] = [
    "config",
    "train_scale",
    "test_scales",
    "protocol",
    "top1_error",
    "top5_error",
    "top1_std",
    "top1_ci",
    "top5_ci",
    "paper_row",
    "paper_top1_error",
    "paper_top5_error",
    "paper_test_top5_error",
    "paper_train_scale",
    "paper_test_scales",
    "epochs",
    "seed",
    "by_seed",
    "n",
    "skipped",
    "run",
    "members",
    "note",
];

/// A displayed column: head, and cell of a row.
type Column = (&'static str, fn(&Row) -> String);

const CONFIG: Column = ("config", |row| row.config.clone());
const S: Column = ("S", |row| train_scale_text(&row.train_scale));
const Q: Column = ("Q", |row| test_scales_text(&row.test_scales));
const PROTOCOL: Column = ("protocol", |row| row.protocol.clone());
const TOP1: Column = ("top-1 error, %", |row| match row.top1_std {
    Some(std) => format!("{} ± {}", percent(row.top1_error), percent(Some(std))),
    None => percent(row.top1_error),
});
const INTERVAL: Column = ("95 % interval", |row| match row.top1_ci {
    Some([low, high]) => format!("{} to {}", percent(Some(low)), percent(Some(high))),
    None => String::new(),
});
const TOP5: Column = ("top-5 error, %", |row| percent(row.top5_error));
const PAPER_SIDES: Column = ("paper: S, Q", |row| match row.paper_test_scales.as_slice() {
    [] => String::new(),
    test => format!("{}, {}", train_scale_text(&row.paper_train_scale), test_scales_text(test)),
});
const PAPER_TOP1: Column = ("paper: top-1, %", |row| percent(row.paper_top1_error));
const PAPER_TOP5: Column = ("paper: top-5, %", |row| percent(row.paper_top5_error));
const DIFFERENCE: Column = ("top-1 minus paper", |row| match (row.top1_error, row.paper_top1_error) {
    (Some(ours), Some(theirs)) => format!("{:+.1}", 100.0 * (ours - theirs)),
    _ => String::new(),
});
const TEST: Column = ("test set: top-5, %", |row| {
    if row.members.is_empty() { String::new() } else { "n/a (needs the ILSVRC server)".to_owned() }
});
const PAPER_TEST: Column = ("paper: test, top-5, %", |row| percent(row.paper_test_top5_error));
const EPOCHS: Column = ("epochs", |row| row.epochs.to_string());
const NOTE: Column = ("note", |row| row.note.clone().unwrap_or_default());

/// The columns of a table.
fn columns(table: &TableName) -> Vec<Column> {
    match table {
        TableName::Table3 | TableName::Table4 => {
            vec![CONFIG, S, Q, TOP1, INTERVAL, TOP5, PAPER_SIDES, PAPER_TOP1, PAPER_TOP5, DIFFERENCE, EPOCHS]
        }
        TableName::Table6 | TableName::Table7 => {
            let mut columns = vec![
                CONFIG, PROTOCOL, TOP1, INTERVAL, TOP5, TEST, PAPER_TOP1, PAPER_TOP5, PAPER_TEST, DIFFERENCE,
            ];
            columns.extend((*table == TableName::Table7).then_some(NOTE));
            columns
        }
        TableName::Table5 => {
            vec![CONFIG, S, Q, PROTOCOL, TOP1, INTERVAL, TOP5, PAPER_TOP1, PAPER_TOP5, DIFFERENCE]
        }
        _ => vec![CONFIG, S, Q, PROTOCOL, TOP1, INTERVAL, TOP5, EPOCHS, NOTE],
    }
}

/// Builds the report of a table. The notes list the settings that differ from the paper's.
///
/// # Errors
/// [`crate::Error::File`] if the metrics of a run in `out` cannot be read.
pub fn report(plan: &TablePlan, rows: &[Row], out: &Path, context: &RunContext) -> Result<Report> {
    let dataset = context.dataset;
    let classes = dataset.train.classes().len();
    let mut notes = vec![
        format!(
            "data set {}: {classes} classes, {} training images, {} test images; chance error {:.1} %",
            dataset.name(),
            dataset.train.len(),
            dataset.val.len(),
            100.0 * (1.0 - 1.0 / classes as f64)
        ),
        "S and Q: training and test scales (smallest image sides); the paper's columns are for ILSVRC-2012 \
         with 1000 classes, to compare rows with each other"
            .to_owned(),
        intervals(rows),
    ];
    if !plan.changes.is_empty() {
        notes.push(format!("overridden settings: {}", plan.changes.join(", ")));
    }
    notes.extend(plan.differences_from_paper());
    notes.extend(shallow(&plan.name, rows));
    let columns = columns(&plan.name);
    let findings = findings(&plan.name, rows);
    Ok(Report {
        name: plan.name.to_string(),
        title: plan.title.clone(),
        profile: Some(plan.profile.clone()),
        statement: statement(&findings),
        notes,
        columns: columns.iter().map(|(head, _)| (*head).to_owned()).collect(),
        cells: rows.iter().map(|row| columns.iter().map(|(_, cell)| cell(row)).collect()).collect(),
        fields: FIELDS.to_vec(),
        rows: rows.iter().map(|row| json!(row)).collect(),
        about: json!({
            "dataset": { "path": printable(dataset.train.root()).to_string(), "hash": dataset.hash, "classes": dataset.train.classes() },
            "device": context.device.to_string(),
            "jpeg_decoder": vgg_data::JPEG_DECODER,
            "changes": plan.changes,
            "version": env!("CARGO_PKG_VERSION"),
        }),
        findings,
        runs: rows.iter().map(runs).collect(),
        plots: plots(&plan.name, rows, out)?,
    })
}

/// What the errors and their intervals cover.
fn intervals(rows: &[Row]) -> String {
    let seeds = rows.first().map_or(&[][..], |row| &row.by_seed);
    match seeds {
        [_, _, ..] => {
            let seeds: Vec<String> = seeds.iter().map(|result| result.seed.to_string()).collect();
            format!(
                "errors: means over seeds {} ± sample standard deviation; 95 % intervals cover the choice of the seed and of \
                 the test images",
                seeds.join(", ")
            )
        }
        _ => {
            "95 % Wilson intervals cover the choice of the test images; the spread over seeds is not measured"
                .to_owned()
        }
    }
}

/// The directories of a row's runs, without duplicates.
fn runs(row: &Row) -> Vec<String> {
    let mut runs: Vec<String> = Vec::new();
    for member in row.members.iter().filter(|member| !member.run.is_empty()) {
        if !runs.contains(&member.run) {
            runs.push(member.run.clone());
        }
    }
    runs
}

/// The difference between B and its shallow variant, as a note.
fn shallow(table: &TableName, rows: &[Row]) -> Option<String> {
    let error = |config: &str| rows.iter().find(|row| row.config == config)?.top1_error;
    let difference = 100.0 * (error("B-5x5")? - error("B")?);
    let theirs = 100.0 * paper::SHALLOW_TOP1_DIFFERENCE;
    (*table == TableName::Shallow).then(|| {
        format!("top-1 error of B-5x5 minus that of B: {difference:+.1} points; the paper reports {theirs:+.0}, without the errors")
    })
}

fn percent(share: Option<f64>) -> String {
    share.map_or(String::new(), |share| format!("{:.1}", 100.0 * share))
}

impl TablePlan {
    /// The settings that differ from the paper's, each with the paper's value in brackets; several values if
    /// the runs differ. `None` if there are no differences.
    pub fn differences_from_paper(&self) -> Option<String> {
        let mut what = Vec::new();
        let mut compare = |name: &str, theirs: &str, ours: &dyn Fn(&RunPlan) -> String| {
            let ours = distinct(self.runs.iter().map(ours));
            // A table may use a subset of the paper's runs.
            let among = ours.split(", ").all(|value| theirs.split(", ").any(|their| their == value));
            if ours != theirs && !among {
                what.push(format!("{name} {ours} ({theirs})"));
            }
        };
        compare("width", "1", &|run| run.network.width.to_string());
        compare("fc6 and fc7", "[4096, 4096]", &|run| format!("{:?}", run.network.head));
        compare("crop", "224", &|run| run.data.crop.to_string());
        compare("S", "256, 384, [256;512]", &|run| train_scale_text(&run.train_scale()));
        compare("dropout", "0.5", &|run| run.network.dropout.to_string());
        compare("LRN", "AlexNet", &|run| format!("{:?}", run.network.lrn_style));
        compare("pool rounding", "Floor", &|run| format!("{:?}", run.network.pool_rounding));
        compare("initialisation", "gaussian-0.01", &|run| run.network.init.scheme.name().to_owned());
        compare("pixels", "mean subtracted", &|run| match run.data.pixel_scale {
            PixelScale::Fixed(1.0) => "mean subtracted".to_owned(),
            PixelScale::Fixed(scale) => format!("scaled by {scale}"),
            PixelScale::UnitVariance => "of unit variance".to_owned(),
            PixelScale::Inherit => "as in the initial weights".to_owned(),
            PixelScale::Torchvision => "as in torchvision".to_owned(),
        });
        compare("interpolation", "Bilinear", &|run| format!("{:?}", run.data.interpolation));
        compare("horizontal flip", "true", &|run| run.data.flip.to_string());
        compare("PCA jitter std", "0.1", &|run| run.data.pca_jitter_std.to_string());
        compare("batch", "256", &|run| run.optimizer.batch.to_string());
        compare("momentum", "0.9", &|run| run.optimizer.momentum.to_string());
        compare("weight decay", "0.0005", &|run| run.optimizer.weight_decay.to_string());
        compare("bias decay", "false", &|run| run.optimizer.decay_biases.to_string());
        compare("bias lr multiplier", "1", &|run| run.optimizer.bias_lr_mult.to_string());
        compare("momentum variant", "Caffe", &|run| format!("{:?}", run.optimizer.momentum_variant));
        compare("initial learning rate", "0.01, 0.001", &|run| rate(run).0.to_string());
        compare("lr reduced", "when validation stops improving", &|run| rate(run).1.to_owned());
        compare("max epochs", "74", &|run| run.run.max_epochs.to_string());
        let profile = &self.profile;
        let what = what.join("; ");
        (!what.is_empty()).then(|| format!("profile {profile}; differs from the paper (in brackets): {what}"))
    }
}

/// The distinct values in order of first appearance.
fn distinct(values: impl Iterator<Item = String>) -> String {
    let mut list: Vec<String> = Vec::new();
    for value in values {
        if !list.contains(&value) {
            list.push(value);
        }
    }
    list.join(", ")
}

/// The initial learning rate, and how it is reduced.
fn rate(run: &RunPlan) -> (f64, &'static str) {
    match run.schedule {
        Schedule::Constant { lr } => (lr, "never"),
        Schedule::Steps { lr, .. } => (lr, "at fixed epochs"),
        Schedule::Plateau { lr, .. } => (lr, "when validation stops improving"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_several_runs_are_listed_once() {
        assert_eq!(distinct(["16", "16", "10", "16"].map(str::to_owned).into_iter()), "16, 10");
    }
}
