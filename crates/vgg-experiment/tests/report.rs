//! Reports of rows: columns, cells and notes of each table, and the same values in JSON, CSV and Markdown.

mod fixture;

use std::path::Path;

use fixture::rows::{member, row};
use fixture::{alone, paper_run, write_set};
use serde_json::{Value, json};
use vgg_experiment::{
    Dataset, Report, Row, SeedResult, TablePlan, combine_seeds, report, test_scales_text, train_scale_text,
};
use vgg_layers::{Config, Device};

fn plan(table: &str, changes: &[&str]) -> TablePlan {
    TablePlan {
        name: table.into(),
        title: format!("The title of {table}"),
        profile: "mini".into(),
        changes: changes.iter().map(|change| (*change).to_owned()).collect(),
        runs: vec![paper_run("A/256", Config::A)],
        rows: Vec::new(),
    }
}

/// Writes empty metrics of a run.
fn write_run(out: &Path, run: &str) {
    std::fs::create_dir_all(out.join(run)).unwrap();
    std::fs::write(out.join(run).join("metrics.jsonl"), "").unwrap();
}

/// A report of rows with made-up runs, and its data set.
fn report_of(plan: &TablePlan, rows: &[Row]) -> (Report, Dataset) {
    let dir = tempfile::tempdir().unwrap();
    write_set(&dir.path().join("set"), 2, 3);
    let dataset = Dataset::open(&dir.path().join("set"), 0).unwrap();
    for member in rows.iter().flat_map(|row| &row.members).filter(|member| !member.run.is_empty()) {
        write_run(dir.path(), &member.run);
    }
    (alone(&dataset, |context| report(plan, rows, dir.path(), context)).unwrap(), dataset)
}

/// Four rows: a fused one above the paper's error, one below it, one that diverged, and a quoted one.
fn rows() -> Vec<Row> {
    let mut fused = row("D + E", &[256, 512], &[224, 256, 288], 0.2564);
    fused.top1_ci = Some([0.2439, 0.2861]);
    fused.top5_ci = Some([0.0512, 0.0777]);
    fused.protocol = "dense and multi-crop".into();
    fused.paper_top1_error = Some(0.2482);
    fused.members = vec![member("D", "runs/D-1"), member("E", "runs/E-2"), member("D", "runs/D-1")];
    fused.run = "runs/D-1".into();
    let mut below = row("C", &[384], &[384], 0.1953);
    below.top1_ci = Some([0.1832, 0.2074]);
    below.paper_train_scale = vec![384];
    below.paper_test_scales = vec![352, 416];
    below.paper_top1_error = Some(0.2779);
    below.paper_top5_error = None;
    below.paper_test_top5_error = None;
    below.epochs = 74;
    below.members = vec![member("C", "runs/C-3")];
    below.run = "runs/C-3".into();
    let mut diverged = row("B, unlike \"A\"", &[], &[], 0.5);
    diverged.top1_error = None;
    diverged.top5_error = None;
    diverged.top1_ci = None;
    diverged.top5_ci = None;
    diverged.paper_test_scales = Vec::new();
    diverged.note = Some("the loss is not finite".into());
    diverged.epochs = 0;
    let mut quoted = diverged.clone();
    quoted.config = "of others".into();
    quoted.members.clear();
    quoted.paper_top1_error = None;
    quoted.note = Some("quoted from the paper".into());
    vec![fused, below, diverged, quoted]
}

const SERVER: &str = "n/a (needs the ILSVRC server)";

/// Each column: head, and cells of [`rows`].
const COLUMNS: [[&str; 5]; 15] = [
    ["config", "D + E", "C", "B, unlike \"A\"", "of others"],
    ["S", "[256;512]", "384", "", ""],
    ["Q", "224,256,288", "384", "", ""],
    ["protocol", "dense and multi-crop", "dense", "dense", "dense"],
    ["top-1 error, %", "25.6", "19.5", "", ""],
    ["95 % interval", "24.4 to 28.6", "18.3 to 20.7", "", ""],
    ["top-5 error, %", "6.4", "4.9", "", ""],
    ["test set: top-5, %", SERVER, SERVER, SERVER, ""],
    ["paper: S, Q", "[256;512], 224,256,288", "384, 352,416", "", ""],
    ["paper: top-1, %", "24.8", "27.8", "31.2", ""],
    ["paper: top-5, %", "10.4", "", "10.4", "10.4"],
    ["paper: test, top-5, %", "7.3", "", "7.3", "7.3"],
    ["top-1 minus paper", "+0.8", "-8.3", "", ""],
    ["epochs", "11", "74", "0", "0"],
    ["note", "", "", "the loss is not finite", "quoted from the paper"],
];

#[test]
fn each_table_has_its_columns_with_the_values_of_its_rows() {
    let scales = ["config", "S", "Q"];
    let ours = ["top-1 error, %", "95 % interval", "top-5 error, %"];
    let theirs = ["paper: top-1, %", "paper: top-5, %"];
    let with_scales = |more: &[&'static str]| [scales.as_slice(), more].concat();
    let single = [ours.as_slice(), &["paper: S, Q"], &theirs, &["top-1 minus paper", "epochs"]].concat();
    let fused = [
        ["config", "protocol"].as_slice(),
        &ours,
        &["test set: top-5, %"],
        &theirs,
        &["paper: test, top-5, %", "top-1 minus paper"],
    ]
    .concat();
    let other = [["protocol"].as_slice(), &ours, &["epochs", "note"]].concat();
    let expected = [
        ("table3", with_scales(&single)),
        ("table4", with_scales(&single)),
        ("table5", with_scales(&[["protocol"].as_slice(), &ours, &theirs, &["top-1 minus paper"]].concat())),
        ("table6", fused.clone()),
        ("table7", [fused.as_slice(), &["note"]].concat()),
        ("shallow", with_scales(&other)),
        ("init", with_scales(&other)),
    ];
    for (table, heads) in expected {
        let (report, _) = report_of(&plan(table, &[]), &rows());
        assert_eq!(report.columns, heads, "{table}");
        assert_eq!(report.cells.len(), 4, "{table}");
        for (i, cells) in report.cells.iter().enumerate() {
            let cell = |head: &&str| COLUMNS.iter().find(|column| column[0] == *head).unwrap()[i + 1];
            let expected: Vec<&str> = heads.iter().map(cell).collect();
            assert_eq!(*cells, expected, "row {i} of {table}");
        }
    }
}

#[test]
fn report_has_notes_runs_and_metadata() {
    let mut plan = plan("table6", &["base.run.seed=2", "base.optimizer.batch=8"]);
    plan.runs[0].network.width = 0.5;
    let (report, dataset) = report_of(&plan, &rows());
    assert_eq!(report.name, "table6");
    assert_eq!(report.title, "The title of table6");
    assert_eq!(report.profile.as_deref(), Some("mini"));
    assert_eq!(
        report.notes,
        [
            "data set set: 10 classes, 20 training images, 30 test images; chance error 90.0 %",
            "S and Q: training and test scales (smallest image sides); the paper's columns are for \
             ILSVRC-2012 with 1000 classes, to compare rows with each other",
            "95 % Wilson intervals cover the choice of the test images; the spread over seeds is not measured",
            "overridden settings: base.run.seed=2, base.optimizer.batch=8",
            "profile mini; differs from the paper (in brackets): width 0.5 (1)",
        ]
    );
    assert_eq!(report.runs, [vec!["runs/D-1", "runs/E-2"], vec!["runs/C-3"], vec![], vec![]]);
    let about = &report.about;
    assert_eq!(about["dataset"]["path"], json!(dataset.train.root()));
    assert_eq!(about["dataset"]["hash"], dataset.hash.as_str());
    assert_eq!(about["dataset"]["classes"], json!(dataset.train.classes()));
    assert_eq!(about["device"], Device::cpu(1).unwrap().to_string());
    assert_eq!(about["jpeg_decoder"], vgg_data::JPEG_DECODER);
    assert_eq!(about["changes"], json!(["base.run.seed=2", "base.optimizer.batch=8"]));
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(about.as_object().unwrap().len(), 5);
}

#[test]
fn shallow_network_is_compared_with_b() {
    let rows = |shallow: f64, deep: f64| {
        vec![
            row("B-5x5", &[256], &[256], shallow),
            row("B", &[256], &[256], deep),
            row("B", &[256], &[256], 0.9),
        ]
    };
    let last = |table: &str, rows: &[Row]| report_of(&plan(table, &[]), rows).0.notes.last().unwrap().clone();
    let note = |points: &str| {
        format!(
            "top-1 error of B-5x5 minus that of B: {points} points; the paper reports +7, without the errors"
        )
    };
    assert_eq!(last("shallow", &rows(0.54, 0.46)), note("+8.0"));
    assert_eq!(last("shallow", &rows(0.25, 0.375)), note("-12.5"));
    assert!(last("init", &rows(0.54, 0.46)).starts_with("95 % Wilson intervals"));
    assert!(last("shallow", &rows(0.54, 0.46)[1..]).starts_with("95 % Wilson intervals"));
}

/// The field names of a row in files, as documented.
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

#[test]
fn json_holds_the_values_of_rows() {
    let (report, _) = report_of(&plan("table6", &[]), &rows());
    let document = report.json();
    assert_eq!(document["table"], "table6");
    assert_eq!(document["title"], "The title of table6");
    assert_eq!(document["profile"], "mini");
    assert_eq!(document["notes"], json!(report.notes));
    assert_eq!(document["about"], report.about);
    assert_eq!(document.as_object().unwrap().len(), 7);
    let members = |name: &str, run: &str| {
        json!({ "name": name, "config": "D", "train_scale": [384], "test_scales": [352, 416],
            "protocol": "multi-crop", "run": run, "posteriors": format!("{run}/posteriors-1.safetensors") })
    };
    let first = json!({
        "config": "D + E", "train_scale": [256, 512], "test_scales": [224, 256, 288],
        "protocol": "dense and multi-crop", "top1_error": 0.2564, "top5_error": 0.0641,
        "top1_std": null, "top1_ci": [0.2439, 0.2861], "top5_ci": [0.0512, 0.0777], "paper_row": "B/256", "paper_top1_error": 0.2482,
        "paper_top5_error": 0.104, "paper_test_top5_error": 0.073, "paper_train_scale": [256, 512],
        "paper_test_scales": [224, 256, 288], "epochs": 11, "seed": 6, "by_seed": [{ "seed": 6, "top1_error": 0.2564, "top5_error": 0.0641 }], "n": 480, "skipped": 2,
        "run": "runs/D-1", "members": [members("D", "runs/D-1"), members("E", "runs/E-2"), members("D", "runs/D-1")],
        "note": null,
    });
    assert_eq!(document["rows"][0], first);
    let back: Vec<Row> = serde_json::from_value(document["rows"].clone()).unwrap();
    assert_eq!(back, rows());
    for row in document["rows"].as_array().unwrap() {
        let mut names: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = FIELDS;
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }
}

#[test]
fn csv_holds_the_values_of_rows() {
    let (report, _) = report_of(&plan("table7", &[]), &rows());
    assert_eq!(report.fields, FIELDS);
    let bytes = report.csv().unwrap();
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    assert_eq!(reader.headers().unwrap(), FIELDS.as_slice());
    let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(records.len(), 4);
    let cell = |i: usize, field: &str| &records[i][FIELDS.iter().position(|name| *name == field).unwrap()];
    for (i, row) in rows().iter().enumerate() {
        let list = |values: &[usize]| values.iter().map(usize::to_string).collect::<Vec<_>>().join(";");
        let float = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let ends = |ends: Option<[f64; 2]>| ends.map_or(String::new(), |[low, high]| format!("{low};{high}"));
        assert_eq!(cell(i, "config"), row.config);
        assert_eq!(cell(i, "train_scale"), list(&row.train_scale));
        assert_eq!(cell(i, "test_scales"), list(&row.test_scales));
        assert_eq!(cell(i, "protocol"), row.protocol);
        assert_eq!(cell(i, "top1_error"), float(row.top1_error));
        assert_eq!(cell(i, "top5_error"), float(row.top5_error));
        assert_eq!(cell(i, "top1_ci"), ends(row.top1_ci));
        assert_eq!(cell(i, "top5_ci"), ends(row.top5_ci));
        assert_eq!(cell(i, "paper_top1_error"), float(row.paper_top1_error));
        assert_eq!(cell(i, "paper_top5_error"), float(row.paper_top5_error));
        assert_eq!(cell(i, "paper_test_top5_error"), float(row.paper_test_top5_error));
        assert_eq!(cell(i, "paper_train_scale"), list(&row.paper_train_scale));
        assert_eq!(cell(i, "paper_test_scales"), list(&row.paper_test_scales));
        let numbers = [row.epochs, row.seed as usize, row.n, row.skipped].map(|number| number.to_string());
        assert_eq!(["epochs", "seed", "n", "skipped"].map(|field| cell(i, field).to_owned()), numbers);
        assert_eq!(
            (cell(i, "run"), cell(i, "note")),
            (row.run.as_str(), row.note.as_deref().unwrap_or_default())
        );
        let members: Vec<String> = row.members.iter().map(|member| json!(member).to_string()).collect();
        assert_eq!(cell(i, "members"), members.join(";"));
    }
    assert_eq!((cell(0, "top1_ci"), cell(0, "paper_test_scales")), ("0.2439;0.2861", "224;256;288"));
}

#[test]
fn scales_are_written_as_in_the_paper() {
    assert_eq!(train_scale_text(&[256, 512]), "[256;512]");
    assert_eq!((train_scale_text(&[384]).as_str(), train_scale_text(&[]).as_str()), ("384", ""));
    assert_eq!(train_scale_text(&[224, 256, 288]), "224,256,288");
    assert_eq!(
        (
            test_scales_text(&[256, 512]).as_str(),
            test_scales_text(&[224]).as_str(),
            test_scales_text(&[]).as_str()
        ),
        ("256,512", "224", "")
    );
}

#[test]
fn chance_error_follows_from_the_number_of_classes() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 1, 1);
    for split in ["train", "val"] {
        for class in 3..10 {
            std::fs::remove_dir_all(dir.path().join(split).join(format!("class{class}"))).unwrap();
        }
    }
    let dataset = Dataset::open(dir.path(), 0).unwrap();
    let report = alone(&dataset, |context| report(&plan("init", &[]), &[], dir.path(), context)).unwrap();
    assert!(report.notes[0].ends_with(": 3 classes, 3 training images, 3 test images; chance error 66.7 %"));
    assert_eq!(
        (report.notes.len(), report.rows, report.cells),
        (3, Vec::<Value>::new(), Vec::<Vec<String>>::new())
    );
}

#[test]
fn statement_counts_the_orderings() {
    let table = |seed: u64, errors: [f64; 2]| -> Vec<Row> {
        let rows = ["A/256", "B/256"].into_iter().zip(errors);
        let row = |(name, error): (&str, f64)| Row {
            paper_row: name.into(),
            seed,
            by_seed: vec![SeedResult { seed, top1_error: Some(error), top5_error: None }],
            ..row("A", &[256], &[256], error)
        };
        rows.map(row).collect()
    };
    let statement = |rows: &[Row]| report_of(&plan("table3", &[]), rows).0.statement;
    assert_eq!(
        statement(&table(1, [0.25, 0.125])),
        [
            "1 of 1 orderings are as in the paper. One seed decides none of them; --seeds 3 measures the spread",
            "B is better than A: -12.5 points, as in the paper",
        ]
    );
    let rows = combine_seeds(vec![table(1, [0.25, 0.125]), table(2, [0.25, 0.126]), table(3, [0.25, 0.124])]);
    assert_eq!(
        statement(&rows),
        [
            "Of 1 orderings in the paper, 1 hold, 0 are contradicted and 0 are undecided over 3 seeds; the means of 1 \
             are as in the paper",
            "B is better than A: -12.5 points (-12.7 to -12.3), holds",
        ]
    );
    let (report, _) = report_of(&plan("table3", &[]), &rows);
    assert_eq!(report.cells[1][3], "12.5 ± 0.1");
    assert_eq!(
        report.notes[2],
        "errors: means over seeds 1, 2, 3 ± sample standard deviation; 95 % intervals cover the choice of the seed and \
         of the test images"
    );
    assert!(statement(&[]).is_empty());
}
