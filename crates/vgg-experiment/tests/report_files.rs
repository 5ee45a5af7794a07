//! The files of a report: names, Markdown, CSV and HTML.

use serde_json::{Value, json};
use vgg_experiment::{Plot, Report, html};

/// A report of two rows, one with two runs and one with none. Every text contains reserved HTML characters.
fn report() -> Report {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    Report {
        name: "table<6>".into(),
        title: "Fusion & \"more\"".into(),
        profile: None,
        statement: texts(&["1 of 2 < 3", "D > E: -1.0 points"]),
        findings: Vec::new(),
        notes: texts(&["the first <note>", "the second"]),
        columns: texts(&["config & label", "top-1 error, %", "paper: top-1, %", "test set: top-5, %"]),
        cells: vec![texts(&["D < E", "25.6", "24.8", "n/a"]), texts(&["\"others\"", "", "27.9", ""])],
        fields: vec!["config", "sides", "error"],
        rows: vec![
            json!({ "config": "D, E", "sides": [256, 512], "error": 0.256, "more": 1 }),
            json!({ "config": "a \"b\"", "sides": [], "error": null }),
        ],
        runs: vec![texts(&["runs/D&1", "runs/E-2"]), Vec::new()],
        plots: vec![
            Plot { title: "Error > 0".into(), svg: "<svg id=\"one\"></svg>".into() },
            Plot { title: "Another".into(), svg: "<svg id=\"two\"></svg>".into() },
        ],
        about: json!({ "device": "none" }),
    }
}

#[test]
fn markdown_is_title_table_statement_and_notes() {
    let expected = "\
# Fusion & \"more\"

| config & label | top-1 error, % | paper: top-1, % | test set: top-5, % |
| --- | --- | --- | --- |
| D < E | 25.6 | 24.8 | n/a |
| \"others\" |  | 27.9 |  |

1 of 2 < 3:

- D > E: -1.0 points

- the first <note>
- the second
";
    assert_eq!(report().markdown(), expected);
}

#[test]
fn csv_has_the_fields_in_order_and_lists_with_semicolons() {
    let csv = String::from_utf8(report().csv().unwrap()).unwrap();
    assert_eq!(csv, "config,sides,error\n\"D, E\",256;512,0.256\n\"a \"\"b\"\"\",,\n");
}

#[test]
fn four_files_are_named_after_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let report = Report { name: "table6".into(), ..report() };
    let paths = report.save(dir.path()).unwrap();
    let names = ["table6.json", "table6.md", "table6.csv", "table6.html"];
    assert_eq!(paths, names.map(|name| dir.path().join(name)));
    let mut found: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, ["table6.csv", "table6.html", "table6.json", "table6.md"]);
    let [document, markdown, csv, page] =
        names.map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap());
    let expected = json!({
        "table": "table6",
        "title": "Fusion & \"more\"",
        "profile": null,
        "findings": [],
        "notes": ["the first <note>", "the second"],
        "about": { "device": "none" },
        "rows": report.rows,
    });
    assert_eq!(serde_json::from_str::<Value>(&document).unwrap(), expected);
    assert_eq!(markdown, report.markdown());
    assert_eq!(csv.as_bytes(), report.csv().unwrap());
    assert_eq!(page, html(std::slice::from_ref(&report)));
    std::fs::remove_dir_all(dir.path()).unwrap();
    std::fs::write(dir.path(), "").unwrap();
    assert!(report.save(dir.path()).is_err(), "a file must not be taken for a folder");
}

fn plain(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

/// The texts between each `open` and the next `close`.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    text.split(open).skip(1).map(|rest| rest.split_once(close).unwrap().0).collect()
}

/// The links in a piece of HTML: targets and texts.
fn links(html: &str) -> Vec<(String, String)> {
    let one = |link: &str| {
        let (to, text) = link.split_once("\">").unwrap();
        (plain(to), plain(text))
    };
    between(html, "<a href=\"", "</a>").into_iter().map(one).collect()
}

/// The text of a cell, and its target if it is a link.
fn cell(html: &str) -> (String, Option<String>) {
    match links(html).as_slice() {
        [(to, text)] if html.starts_with("<a ") && html.ends_with("</a>") => (text.clone(), Some(to.clone())),
        _ => (plain(html), None),
    }
}

#[test]
fn page_links_our_cells_to_the_first_run() {
    let page = html(&[report()]);
    let [table] = between(&page, "<table>", "</table>")[..] else { panic!("one table") };
    let rows = between(table, "<tr>", "</tr>");
    let heads: Vec<String> = between(rows[0], "<th>", "</th>").into_iter().map(plain).collect();
    let expected = ["config & label", "top-1 error, %", "paper: top-1, %", "test set: top-5, %", "networks"];
    assert_eq!(heads, expected);
    let cells = |row: &str| between(row, "<td>", "</td>").into_iter().map(cell).collect::<Vec<_>>();
    let run = Some("runs/D&1/run.json".to_owned());
    let first = cells(rows[1]);
    assert_eq!(first[..2], [("D < E".to_owned(), run.clone()), ("25.6".to_owned(), run)]);
    assert_eq!(
        first[2..4],
        [("24.8".to_owned(), None), ("n/a".to_owned(), None)],
        "the paper's cells have no links"
    );
    let named = [("runs/D&1/run.json", "D&1"), ("runs/E-2/run.json", "E-2")];
    let named = named.map(|(to, text)| (to.to_owned(), text.to_owned()));
    let networks = between(rows[1], "<td>", "</td>")[4];
    assert_eq!(links(networks), named);
    assert!(networks.contains("</a> <a"), "links are not separated: {networks}");
    let others = ["\"others\"", "", "27.9", "", ""].map(|text| (text.to_owned(), None));
    assert_eq!(cells(rows[2]), others);
    assert_eq!((rows.len(), first.len()), (3, 5));
}

#[test]
fn networks_column_needs_a_row_with_several_runs() {
    let mut report = report();
    report.runs[0].truncate(1);
    let page = html(&[report.clone()]);
    assert!(!page.contains("networks"));
    assert_eq!(links(&page).len(), 2, "our two cells");
    report.runs.clear();
    assert_eq!(links(&html(&[report])), []);
}

#[test]
fn page_of_one_report_has_title_statement_plots_and_notes() {
    let page = html(&[report()]);
    assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"));
    assert!(page.ends_with("</body></html>\n"));
    assert_eq!(between(&page, "<title>", "</title>"), ["Fusion &amp; &quot;more&quot;"]);
    assert_eq!(between(&page, "<h1>", "</h1>"), ["Fusion &amp; &quot;more&quot;"]);
    let plots = "<h3>Error &gt; 0</h3>\n<svg id=\"one\"></svg>\n<h3>Another</h3>\n<svg id=\"two\"></svg>\n";
    assert!(page.contains(plots));
    let lists = ["D &gt; E: -1.0 points", "the first &lt;note&gt;", "the second"];
    assert_eq!(between(&page, "<li>", "</li>"), lists);
    let statement = page.find("<p>1 of 2 &lt; 3:</p><ul><li>D").unwrap();
    assert!(statement < page.find("<table>").unwrap(), "the statement stands above the table");
    let without = html(&[Report { statement: Vec::new(), ..report() }]);
    assert!(!without.contains("<p>"));
    assert!(!page.contains("<nav>") && !page.contains("<h2"));
    assert_eq!(between(&page, "<style>", "</style>").len(), 1);
    for reserved in ["<note>", "D < E", "D&1", "\"others\"", "\"more\"", "table<6>"] {
        assert!(!page.contains(reserved), "{reserved} is not escaped");
    }
}

#[test]
fn page_of_several_reports_links_to_each() {
    let other = Report { name: "table7".into(), title: "Others".into(), ..report() };
    let page = html(&[report(), other]);
    assert_eq!(
        between(&page, "<h1>", "</h1>"),
        ["Tables of Simonyan &amp; Zisserman, compared with our results"]
    );
    let [nav] = between(&page, "<nav>", "</nav>")[..] else { panic!("one nav") };
    let expected = [("#table<6>", "table<6>"), ("#table7", "table7")];
    assert_eq!(links(nav), expected.map(|(to, text)| (to.to_owned(), text.to_owned())));
    let heads = between(&page, "<h2 ", "</h2>");
    assert_eq!(heads, ["id=\"table&lt;6&gt;\">Fusion &amp; &quot;more&quot;", "id=\"table7\">Others"]);
    assert_eq!(between(&page, "<table>", "</table>").len(), 2);
    assert_eq!(between(&page, "<ul>", "</ul>").len(), 4, "statement and notes of each");
}
