//! Table 3: one test scale, dense evaluation.

use serde_json::json;
use vgg_layers::{Init, NetworkSpec};
use vgg_train::Schedule;

use crate::{Context, Error, PixelScale, Report, Result, Row, RunPlan, TablePlan};

/// Fields of a row, in the order of the CSV file.
const FIELDS: [&str; 15] = [
    "config",
    "train_side",
    "test_sides",
    "protocol",
    "top1_error",
    "top5_error",
    "top1_ci",
    "paper_top1_error",
    "paper_top5_error",
    "paper_train_side",
    "paper_test_sides",
    "epochs",
    "seed",
    "n",
    "run",
];
const COLUMNS: [&str; 10] = [
    "config",
    "S",
    "Q",
    "top-1 error, %",
    "95 % interval",
    "top-5 error, %",
    "paper: S, Q",
    "paper: top-1, %",
    "paper: top-5, %",
    "epochs",
];

/// Table 3 from its rows, with what the profile scaled down in the notes.
///
/// # Errors
/// [`Error::Plan`] if the plan has no runs.
pub fn table3(plan: &TablePlan, rows: &[Row], context: &Context) -> Result<Report> {
    let dataset = context.dataset;
    let classes = dataset.train.classes().len();
    let mut notes = vec![
        format!(
            "data set {}: {classes} classes, {} training images, {} test images; chance is {:.1} %",
            dataset.name(),
            dataset.train.len(),
            dataset.val.len(),
            100.0 * (1.0 - 1.0 / classes as f64)
        ),
        "S and Q: smallest image side in training and test; intervals are Wilson's; the paper's columns are \
         ILSVRC-2012 with 1000 classes and stand there for comparison between rows"
            .to_owned(),
    ];
    notes.extend(scaled(plan)?);
    Ok(Report {
        name: plan.name.clone(),
        title: plan.title.clone(),
        profile: Some(plan.profile.clone()),
        notes,
        columns: COLUMNS.map(str::to_owned).to_vec(),
        cells: rows.iter().map(cells).collect(),
        fields: FIELDS.to_vec(),
        rows: rows.iter().map(|row| json!(row)).collect(),
        about: json!({
            "dataset": { "path": dataset.train.root(), "hash": dataset.hash, "classes": dataset.train.classes() },
            "device": context.device.describe(),
            "version": env!("CARGO_PKG_VERSION"),
        }),
    })
}

fn cells(row: &Row) -> Vec<String> {
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let [low, high] = row.top1_ci;
    vec![
        row.config.clone(),
        sides(&row.train_side),
        row.test_sides.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
        percent(row.top1_error),
        format!("{} to {}", percent(low), percent(high)),
        percent(row.top5_error),
        format!("{}, {}", sides(&row.paper_train_side), sides(&row.paper_test_sides)),
        percent(row.paper_top1_error),
        percent(row.paper_top5_error),
        row.epochs.to_string(),
    ]
}

fn sides(train: &[usize]) -> String {
    match train {
        [low, high] => format!("[{low};{high}]"),
        _ => train.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
    }
}

/// What differs from the paper's recipe, each with the paper's value in brackets.
fn scaled(plan: &TablePlan) -> Result<Option<String>> {
    let first = plan.runs.first().ok_or_else(|| Error::Plan("the plan has no runs".into()))?;
    let (network, paper) = (&first.network, NetworkSpec::paper(first.network.config));
    let mut what = Vec::new();
    let mut differs = |name: &str, ours: String, theirs: String| {
        if ours != theirs {
            what.push(format!("{name} {ours} ({theirs})"));
        }
    };
    differs("width", network.width.to_string(), paper.width.to_string());
    differs("fc6 and fc7", format!("{:?}", network.head), format!("{:?}", paper.head));
    differs("crop", network.crop.to_string(), paper.crop.to_string());
    differs("batch", first.batch.to_string(), "256".into());
    differs("dropout", network.dropout.to_string(), paper.dropout.to_string());
    differs("first learning rate", rate(first).to_string(), "0.01".into());
    differs("weight decay", first.train.sgd.weight_decay.to_string(), "0.0005".into());
    differs("momentum", first.train.sgd.momentum.to_string(), "0.9".into());
    differs("colour shift", first.data.colour_shift_std.to_string(), "0.1".into());
    differs("epochs at most", epochs(plan), "74".into());
    match first.train.schedule {
        Schedule::Plateau { .. } => (),
        Schedule::Steps { .. } => {
            what.push("rate cut at fixed epochs (when validation stops improving)".into())
        }
        Schedule::Constant { .. } => what.push("constant rate (cut when validation stops improving)".into()),
    }
    if first.data.pixel_scale != PixelScale::Fixed(1.0) {
        what.push("pixels scaled to unit variance (only the mean subtracted)".into());
    }
    if first.init.fresh != Init::Gaussian001 {
        what.push(format!("random weights by {} (normal, see deviations)", first.init.fresh.name()));
    }
    let sides = plan.rows.iter().any(|row| {
        let theirs = crate::paper::table3_row(&row.paper).map(|paper| paper.test_sides);
        theirs.is_ok_and(|theirs| theirs != row.evaluation.test_sides)
    });
    if sides {
        what.push("S and Q with the crop".into());
    }
    let profile = &plan.profile;
    Ok((!what.is_empty())
        .then(|| format!("profile {profile} scaled (the paper's in brackets): {}", what.join("; "))))
}

fn rate(run: &RunPlan) -> f64 {
    match run.train.schedule {
        Schedule::Constant { lr } | Schedule::Steps { lr, .. } | Schedule::Plateau { lr, .. } => lr,
    }
}

/// The range of the runs' epochs.
fn epochs(plan: &TablePlan) -> String {
    let epochs = || plan.runs.iter().map(|run| run.train.max_epochs);
    match (epochs().min(), epochs().max()) {
        (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
        (Some(least), _) => least.to_string(),
        _ => String::new(),
    }
}
