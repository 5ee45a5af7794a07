//! Plots, parsed back from their SVG: series, points, intervals and axes.

mod fixture;

use std::path::Path;

use fixture::rows::{member, row};
use fixture::svg::{Picture, Series};
use fixture::{alone, write_set};
use vgg_experiment::{Dataset, Plot, Row, TablePlan, report};

/// The plots of a table whose runs are in `out`.
fn plots(table: &str, rows: &[Row], out: &Path) -> Vec<Plot> {
    write_set(&out.join("set"), 1, 1);
    let dataset = Dataset::open(&out.join("set"), 0).unwrap();
    let plan = TablePlan {
        name: table.into(),
        title: "A table".into(),
        profile: "test".into(),
        changes: Vec::new(),
        runs: Vec::new(),
        rows: Vec::new(),
    };
    alone(&dataset, |context| report(&plan, rows, out, context)).unwrap().plots
}

fn titles(plots: &[Plot]) -> Vec<&str> {
    plots.iter().map(|plot| plot.title.as_str()).collect()
}

/// Asserts the heights of a series' points, and with `intervals` also the intervals of [`row`].
#[track_caller]
fn check_heights(picture: &Picture, series: &Series, percents: &[f64], intervals: bool) {
    let tolerance = picture.y_tolerance();
    let close = |pixel: f64, value: f64| (picture.y(pixel) - value).abs() <= tolerance;
    assert_eq!(series.points.len(), percents.len(), "{}", series.name);
    for (point, percent) in series.points.iter().zip(percents) {
        assert!(close(point.1, *percent), "{}: {} is not {percent}", series.name, picture.y(point.1));
    }
    assert_eq!(series.bars.len(), if intervals { percents.len() } else { 0 }, "{}", series.name);
    for (bar, percent) in series.bars.iter().zip(percents) {
        let [low, high] = bar;
        assert!(close(low.1, percent - 1.25), "{}: from {}", series.name, picture.y(low.1));
        assert!(close(high.1, percent + 3.0), "{}: to {}", series.name, picture.y(high.1));
    }
    for (bar, point) in series.bars.iter().zip(&series.points) {
        assert!(bar.iter().all(|end| end.0 == point.0), "{}: an interval is not at its point", series.name);
    }
}

/// Asserts that one line connects the points of a series in order.
#[track_caller]
fn check_line(series: &Series) {
    let [line] = series.lines.as_slice() else { panic!("{}: {:?}", series.name, series.lines) };
    assert_eq!(*line, series.points, "{}", series.name);
}

fn names(picture: &Picture) -> Vec<&str> {
    picture.series.iter().map(|series| series.name.as_str()).collect()
}

/// Rows of Table 3: each configuration, one custom row, and one that diverged.
fn rows_of_table_3() -> Vec<Row> {
    let jitter = [256, 512];
    let mut diverged = row("B", &[384], &[384], 0.25);
    diverged.top1_error = None;
    vec![
        row("A", &[256], &[256], 0.50),
        row("A-LRN", &[256], &[256], 0.55),
        row("B", &[256], &[256], 0.45),
        row("C", &jitter, &[384], 0.30),
        row("C", &[256], &[256], 0.40),
        row("D", &[256], &[256], 0.35),
        row("D", &jitter, &[384], 0.20),
        row("E", &[256], &[256], 0.25),
        row("E", &jitter, &[384], 0.15),
        row("of my own", &[384], &[384], 0.10),
        diverged,
    ]
}

#[test]
fn errors_are_drawn_by_depth() {
    let dir = tempfile::tempdir().unwrap();
    for table in ["table3", "table4"] {
        let plots = plots(table, &rows_of_table_3(), dir.path());
        assert_eq!(titles(&plots), ["Error by depth", "Error by training scale"]);
        let picture = Picture::read(&plots[0].svg);
        assert_eq!((picture.x_title.as_str(), picture.y_title.as_str()), ("weight layers", "top-1 error, %"));
        let expected: [(&str, &[f64], &[f64]); 4] = [
            ("S = 256", &[11.0, 13.0, 16.0, 19.0], &[50.0, 45.0, 35.0, 25.0]),
            ("S = [256;512], C", &[16.0], &[30.0]),
            ("S = 256, C", &[16.0], &[40.0]),
            ("S = [256;512]", &[16.0, 19.0], &[20.0, 15.0]),
        ];
        assert_eq!(names(&picture), expected.map(|(name, ..)| name));
        for (series, (_, layers, percents)) in picture.series.iter().zip(expected) {
            check_heights(&picture, series, percents, true);
            check_line(series);
            for (point, layers) in series.points.iter().zip(layers) {
                let x = picture.x(point.0);
                assert!((x - layers).abs() <= picture.tolerance()[0], "{}: {x} is not {layers}", series.name);
            }
        }
        let ticks: Vec<&str> = picture.x_ticks.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(ticks, ["11", "12", "13", "14", "15", "16", "17", "18", "19"]);
        assert!(picture.names.is_empty());
    }
}

#[test]
fn axes_have_a_margin_of_five_percent() {
    let dir = tempfile::tempdir().unwrap();
    let plots = plots("table3", &rows_of_table_3(), dir.path());
    let picture = Picture::read(&plots[0].svg);
    let [left, right, top, bottom] = picture.area;
    let [x_tolerance, y_tolerance] = picture.tolerance();
    // Layers 11 to 19; the margin is at least 0.5.
    let ends = [(picture.x(left), 10.5), (picture.x(right), 19.5)];
    assert!(ends.iter().all(|(x, end)| (x - end).abs() <= x_tolerance), "{ends:?}");
    // Intervals from 13.75 to 53 %.
    let margin = (53.0 - 13.75) / 20.0;
    let ends = [(picture.y(bottom), 13.75 - margin), (picture.y(top), 53.0 + margin)];
    assert!(ends.iter().all(|(y, end)| (y - end).abs() <= y_tolerance), "{ends:?}");
    for (value, pixel) in &picture.y_ticks {
        assert!(
            (picture.y(*pixel) - value).abs() <= y_tolerance,
            "labels are not in proportion: {:?}",
            picture.y_ticks
        );
    }
}

#[test]
fn errors_are_drawn_by_training_scale() {
    let dir = tempfile::tempdir().unwrap();
    let plots = plots("table3", &rows_of_table_3(), dir.path());
    let picture = Picture::read(&plots[1].svg);
    assert_eq!((picture.x_title.as_str(), picture.y_title.as_str()), ("S", "top-1 error, %"));
    let ticks: Vec<&str> = picture.x_ticks.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(ticks, ["256", "[256;512]", "384"]);
    let expected: [(&str, &[&str], &[f64]); 7] = [
        ("A", &["256"], &[50.0]),
        ("A-LRN", &["256"], &[55.0]),
        ("B", &["256"], &[45.0]),
        ("C", &["[256;512]", "256"], &[30.0, 40.0]),
        ("D", &["256", "[256;512]"], &[35.0, 20.0]),
        ("E", &["256", "[256;512]"], &[25.0, 15.0]),
        ("of my own", &["384"], &[10.0]),
    ];
    assert_eq!(names(&picture), expected.map(|(name, ..)| name));
    let mut colours: Vec<&str> = picture.series.iter().map(|series| series.colour.as_str()).collect();
    for (series, (_, scales, percents)) in picture.series.iter().zip(expected) {
        check_heights(&picture, series, percents, true);
        check_line(series);
        let at: Vec<&str> = series.points.iter().map(|point| picture.label_at(point.0)).collect();
        assert_eq!(at, scales, "{}", series.name);
    }
    colours.sort_unstable();
    colours.dedup();
    assert_eq!(colours.len(), 7, "seven series have seven colours");
    // Categories are at 0, 1 and 2, on an axis from -0.5 to 2.5.
    let [left, right, ..] = picture.area;
    let third = (right - left) / 3.0;
    for (i, (text, x)) in picture.x_ticks.iter().enumerate() {
        assert!((x - left - third * (i as f64 + 0.5)).abs() <= 1.5, "{text} is at {x}");
    }
}

#[test]
fn errors_are_drawn_by_row_with_the_papers() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows: Vec<Row> = [("A", 0.5), ("B", 0.4), ("C", 0.25), ("D", 0.2)]
        .map(|(name, error)| row(name, &[256], &[256], error))
        .into();
    let papers = [Some(0.35), Some(0.15), None, Some(0.45)];
    for (row, paper) in rows.iter_mut().zip(papers) {
        row.paper_top1_error = paper;
    }
    rows[1].protocol = "centre".into();
    rows[2].protocol = "dense and multi-crop".into();
    rows[3].top1_error = None;
    let mut quoted = row("of others", &[], &[], 0.3);
    quoted.members.clear();
    rows.insert(1, quoted);
    for table in ["table5", "table6", "table7", "init", "shallow"] {
        let plots = plots(table, &rows, dir.path());
        assert_eq!(titles(&plots), ["Error by protocol and row"]);
        let picture = Picture::read(&plots[0].svg);
        assert_eq!((picture.x_title.as_str(), picture.y_title.as_str()), ("", "top-1 error, %"));
        assert_eq!(names(&picture), ["ours, 95 % interval", "paper"]);
        let gaps = picture.text_heights.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.clone().all(|gap| gap >= 12.0), "texts overlap: {:?}", picture.text_heights);
        assert_eq!(gaps.count(), 2 + 4 - 1);
        assert_eq!(picture.names, ["1  A, dense", "2  B", "3  C, dense and multi-crop", "4  D, dense"]);
        let ticks: Vec<&str> = picture.x_ticks.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(ticks, ["1", "2", "3", "4"]);
        let [ours, theirs] = picture.series.as_slice() else { panic!() };
        check_heights(&picture, ours, &[50.0, 40.0, 25.0], true);
        check_heights(&picture, theirs, &[35.0, 15.0, 45.0], false);
        let at = |series: &Series| {
            series.points.iter().map(|p| picture.label_at(p.0).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            (at(ours), at(theirs)),
            (["1", "2", "3"].map(str::to_owned).into(), ["1", "2", "4"].map(str::to_owned).into())
        );
        assert!(
            picture.series.iter().all(|series| series.lines.is_empty()),
            "unordered rows must not be connected"
        );
    }
}

/// Writes the metrics of a run with a validation error per epoch, if any. Training errors differ from them.
fn write_metrics(out: &Path, run: &str, errors: &[(usize, Option<f64>)]) {
    let mut text = String::new();
    for (epoch, error) in errors {
        let error = error.map_or("null".to_owned(), |error| error.to_string());
        text += &format!(
            "{{\"epoch\":{epoch},\"step\":{},\"lr\":0.01,\"train_loss\":0.9,\"train_top1_error\":0.05,\
             \"val_top1_error\":{error},\"val_top5_error\":0.02,\"val_loss\":0.7,\"skipped\":0}}\n",
            17 * epoch
        );
    }
    std::fs::create_dir_all(out.join(run)).unwrap();
    std::fs::write(out.join(run).join("metrics.jsonl"), text).unwrap();
}

#[test]
fn validation_errors_are_drawn_by_epoch() {
    let dir = tempfile::tempdir().unwrap();
    write_metrics(dir.path(), "runs/a", &[(1, Some(0.9)), (2, Some(0.5)), (3, None), (4, Some(0.6))]);
    write_metrics(dir.path(), "runs/b", &[(1, None), (2, Some(0.8)), (3, Some(0.7))]);
    let torn = dir.path().join("runs/b/metrics.jsonl");
    let text = std::fs::read_to_string(&torn).unwrap();
    std::fs::write(&torn, text + "{\"epoch\":4,\"val_to").unwrap();
    let mut rows = vec![row("A", &[256], &[256], 0.5), row("B", &[256], &[256], 0.4)];
    rows[0].members = vec![member("D/256", "runs/b"), member("untrained", "")];
    rows[1].members = vec![member("A/256", "runs/a"), member("D/256", "runs/b")];
    for table in ["table3", "table6"] {
        let plots = plots(table, &rows, dir.path());
        let plot = plots.last().unwrap();
        assert_eq!(plot.title, "Validation error by epoch");
        let picture = Picture::read(&plot.svg);
        assert_eq!((picture.x_title.as_str(), picture.y_title.as_str()), ("epoch", "top-1 error, %"));
        assert_eq!(names(&picture), ["D/256", "A/256"]);
        let expected =
            [([2.0, 3.0].as_slice(), [80.0, 70.0].as_slice()), (&[1.0, 2.0, 4.0], &[90.0, 50.0, 60.0])];
        for (series, (epochs, percents)) in picture.series.iter().zip(expected) {
            check_heights(&picture, series, percents, false);
            check_line(series);
            for (point, epoch) in series.points.iter().zip(epochs) {
                let x = picture.x(point.0);
                assert!((x - epoch).abs() <= picture.tolerance()[0], "{}: {x} is not {epoch}", series.name);
            }
        }
    }
    std::fs::remove_file(torn).unwrap();
    write_set(&dir.path().join("set"), 1, 1);
    let dataset = Dataset::open(&dir.path().join("set"), 0).unwrap();
    let plan = TablePlan {
        name: "table3".into(),
        title: String::new(),
        profile: String::new(),
        changes: Vec::new(),
        runs: Vec::new(),
        rows: Vec::new(),
    };
    let error = alone(&dataset, |context| report(&plan, &rows, dir.path(), context)).unwrap_err();
    assert!(error.to_string().contains("runs/b/metrics.jsonl does not exist"), "{error}");
}

#[test]
fn long_run_has_few_labels_at_integer_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let epochs: Vec<(usize, Option<f64>)> = (1..=74).map(|epoch| (epoch, Some(0.9 / epoch as f64))).collect();
    write_metrics(dir.path(), "runs/a", &epochs);
    let mut rows = vec![row("A", &[256], &[256], 0.5)];
    rows[0].members = vec![member("A/256", "runs/a")];
    let plots = plots("table5", &rows, dir.path());
    let picture = Picture::read(&plots[1].svg);
    assert!((5..=16).contains(&picture.x_ticks.len()), "{:?}", picture.x_ticks);
    for (text, x) in &picture.x_ticks {
        let epoch: f64 = text.parse::<u32>().unwrap().into();
        assert!((picture.x(*x) - epoch).abs() <= picture.tolerance()[0], "{text} is at {x}");
    }
    assert_eq!(picture.series[0].points.len(), 74);
}

#[test]
fn the_eighth_curve_is_dashed_in_the_first_colour() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = vec![row("A", &[256], &[256], 0.5)];
    rows[0].members.clear();
    for i in 0..8 {
        let error = 0.1 + 0.1 * f64::from(i);
        write_metrics(dir.path(), &format!("runs/{i}"), &[(1, Some(error)), (2, Some(error))]);
        rows[0].members.push(member(&format!("run {i}"), &format!("runs/{i}")));
    }
    let plots = plots("table5", &rows, dir.path());
    let picture = Picture::read(&plots[1].svg);
    let lengths: Vec<f64> = picture.series.iter().map(|series| series.key_length).collect();
    assert_eq!(lengths, [18.0, 18.0, 18.0, 18.0, 18.0, 18.0, 18.0, 8.0]);
    for (i, series) in picture.series[1..7].iter().enumerate() {
        check_heights(&picture, series, &[20.0 + 10.0 * i as f64; 2], false);
        check_line(series);
    }
    let [first, .., eighth] = picture.series.as_slice() else { panic!() };
    assert_eq!(first.colour, eighth.colour);
    check_heights(&picture, eighth, &[10.0, 10.0, 80.0, 80.0], false);
    let dashes = eighth.lines.iter().filter(|line| line[0].1 == eighth.points[2].1).count();
    assert!(dashes > 10, "{dashes} dashes");
    assert_eq!(first.lines[0], first.points[..2]);
}

#[test]
fn nothing_is_drawn_of_rows_without_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut none = row("A", &[256], &[256], 0.5);
    none.top1_error = None;
    none.paper_top1_error = None;
    for table in ["table3", "table5"] {
        assert_eq!(plots(table, &[none.clone()], dir.path()), []);
        assert_eq!(plots(table, &[], dir.path()), []);
    }
    none.paper_top1_error = Some(0.5);
    assert_eq!(titles(&plots("table3", &[none.clone()], dir.path())), [""; 0]);
    assert_eq!(titles(&plots("table5", &[none], dir.path())), ["Error by protocol and row"]);
}
