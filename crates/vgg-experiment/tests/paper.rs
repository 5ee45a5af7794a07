//! The paper's Tables 2 to 7, transcribed a second time in percent as printed.

use vgg_experiment::TableName;
use vgg_experiment::paper::{self, PaperRow};

/// A printed row: name, S, Q, top-1, top-5 and test-set top-5 error; empty or 0 if not printed.
type Printed = (&'static str, &'static [usize], &'static [usize], f64, f64, f64);

#[track_caller]
fn check(rows: &[PaperRow], printed: &[Printed]) {
    let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    let theirs: Vec<&str> = printed.iter().map(|row| row.0).collect();
    assert_eq!(names, theirs);
    for (row, (name, train, test, top1, top5, on_test)) in rows.iter().zip(printed) {
        assert_eq!((row.train_scale, row.test_scales), (*train, *test), "scales of {name}");
        let ours = [row.top1_error, row.top5_error, row.test_top5_error];
        // Ten times the percentage is an integer.
        let tenths = ours.map(|share| share.map_or(0, |share| (1000.0 * share).round() as i64));
        let printed = [top1, top5, on_test].map(|percent| (10.0 * percent).round() as i64);
        assert_eq!(tenths, printed, "errors of {name}");
        for share in ours.into_iter().flatten() {
            assert!((1000.0 * share - (1000.0 * share).round()).abs() < 1e-9, "{name}: {share}");
        }
    }
}

#[test]
fn table_3_matches_the_paper() {
    check(
        paper::rows(&TableName::Table3),
        &[
            ("A/256", &[256], &[256], 29.6, 10.4, 0.0),
            ("A-LRN/256", &[256], &[256], 29.7, 10.5, 0.0),
            ("B/256", &[256], &[256], 28.7, 9.9, 0.0),
            ("C/256", &[256], &[256], 28.1, 9.4, 0.0),
            ("C/384", &[384], &[384], 28.1, 9.3, 0.0),
            ("C/jitter", &[256, 512], &[384], 27.3, 8.8, 0.0),
            ("D/256", &[256], &[256], 27.0, 8.8, 0.0),
            ("D/384", &[384], &[384], 26.8, 8.7, 0.0),
            ("D/jitter", &[256, 512], &[384], 25.6, 8.1, 0.0),
            ("E/256", &[256], &[256], 27.3, 9.0, 0.0),
            ("E/384", &[384], &[384], 26.9, 8.7, 0.0),
            ("E/jitter", &[256, 512], &[384], 25.5, 8.0, 0.0),
        ],
    );
}

#[test]
fn table_4_matches_the_paper() {
    check(
        paper::rows(&TableName::Table4),
        &[
            ("B/256", &[256], &[224, 256, 288], 28.2, 9.6, 0.0),
            ("C/256", &[256], &[224, 256, 288], 27.7, 9.2, 0.0),
            ("C/384", &[384], &[352, 384, 416], 27.8, 9.2, 0.0),
            ("C/jitter", &[256, 512], &[256, 384, 512], 26.3, 8.2, 0.0),
            ("D/256", &[256], &[224, 256, 288], 26.6, 8.6, 0.0),
            ("D/384", &[384], &[352, 384, 416], 26.5, 8.6, 0.0),
            ("D/jitter", &[256, 512], &[256, 384, 512], 24.8, 7.5, 0.0),
            ("E/256", &[256], &[224, 256, 288], 26.9, 8.7, 0.0),
            ("E/384", &[384], &[352, 384, 416], 26.7, 8.6, 0.0),
            ("E/jitter", &[256, 512], &[256, 384, 512], 24.8, 7.5, 0.0),
        ],
    );
}

#[test]
fn table_5_matches_the_paper() {
    check(
        paper::rows(&TableName::Table5),
        &[
            ("D/dense", &[256, 512], &[256, 384, 512], 24.8, 7.5, 0.0),
            ("D/multi-crop", &[256, 512], &[256, 384, 512], 24.6, 7.5, 0.0),
            ("D/combined", &[256, 512], &[256, 384, 512], 24.4, 7.2, 0.0),
            ("E/dense", &[256, 512], &[256, 384, 512], 24.8, 7.5, 0.0),
            ("E/multi-crop", &[256, 512], &[256, 384, 512], 24.6, 7.4, 0.0),
            ("E/combined", &[256, 512], &[256, 384, 512], 24.4, 7.1, 0.0),
        ],
    );
}

#[test]
fn tables_6_and_7_match_the_paper() {
    check(
        paper::rows(&TableName::Table6),
        &[
            ("submission", &[], &[], 24.7, 7.5, 7.3),
            ("D+E/dense", &[256, 512], &[256, 384, 512], 24.0, 7.1, 7.0),
            ("D+E/multi-crop", &[256, 512], &[256, 384, 512], 23.9, 7.2, 0.0),
            ("D+E/combined", &[256, 512], &[256, 384, 512], 23.7, 6.8, 6.8),
        ],
    );
    check(
        paper::rows(&TableName::Table7),
        &[
            ("2 networks", &[256, 512], &[256, 384, 512], 23.7, 6.8, 6.8),
            ("1 network", &[256, 512], &[256, 384, 512], 24.4, 7.1, 7.0),
            ("submission", &[], &[], 24.7, 7.5, 7.3),
        ],
    );
}

#[test]
fn quoted_rows_of_table_7_match_the_paper() {
    check(
        &paper::TABLE_7_OTHERS,
        &[
            // The paper prints one value for both the validation and the test set.
            ("GoogLeNet, 1 network", &[], &[], 0.0, 7.9, 7.9),
            ("GoogLeNet, 7 networks", &[], &[], 0.0, 6.7, 6.7),
            ("MSRA, 11 networks", &[], &[], 0.0, 0.0, 8.1),
            ("MSRA, 1 network", &[], &[], 27.9, 9.1, 9.1),
            ("Clarifai, several networks", &[], &[], 0.0, 0.0, 11.7),
            ("Clarifai, 1 network", &[], &[], 0.0, 0.0, 12.5),
            ("Zeiler & Fergus, 6 networks", &[], &[], 36.0, 14.7, 14.8),
            ("Zeiler & Fergus, 1 network", &[], &[], 37.5, 16.0, 16.1),
            ("OverFeat, 7 networks", &[], &[], 34.0, 13.2, 13.6),
            ("OverFeat, 1 network", &[], &[], 35.7, 14.2, 0.0),
            ("Krizhevsky et al., 5 networks", &[], &[], 38.1, 16.4, 16.4),
            ("Krizhevsky et al., 1 network", &[], &[], 40.7, 18.2, 0.0),
            ("Clarifai, with further data", &[], &[], 0.0, 0.0, 11.2),
        ],
    );
}

#[test]
fn parameters_and_the_shallow_network_match_the_paper() {
    let printed = [("A", 133), ("A-LRN", 133), ("B", 133), ("C", 134), ("D", 138), ("E", 144)];
    assert_eq!(paper::TABLE_2, printed);
    assert_eq!(paper::SHALLOW_TOP1_DIFFERENCE, 0.07);
}

#[test]
fn rows_are_found_by_name_and_unknown_names_rejected() {
    let found = |table: &str, name: &str| paper::row_of(&table.into(), name).unwrap().unwrap();
    assert_eq!(found("table3", "C/384").top5_error, Some(0.093));
    assert_eq!(found("table4", "C/384").top5_error, Some(0.092));
    assert_eq!(found("table6", "submission"), found("table7", "submission"));
    for table in ["table3", "table4", "table5", "table6", "table7"] {
        for row in paper::rows(&table.into()) {
            assert_eq!(found(table, row.name), row);
        }
        let error = paper::row_of(&table.into(), "F/256").unwrap_err().to_string();
        let rows: Vec<&str> = paper::rows(&table.into()).iter().map(|row| row.name).collect();
        assert_eq!(error, format!("the paper's {table} has no row F/256; its rows are {}", rows.join(", ")));
    }
    for table in ["init", "shallow", "table8", "table2", ""] {
        assert!(paper::rows(&table.into()).is_empty());
        assert_eq!(paper::row_of(&table.into(), "A/256").unwrap(), None);
    }
}
