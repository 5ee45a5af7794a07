//! Reports as a self-contained HTML page.

use std::fmt::Write as _;

use super::Report;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#222}\
h1{font-size:1.4rem}h2{font-size:1.2rem;margin-top:2.5rem}h3{font-size:1rem}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}\
th{border-bottom:2px solid #888;font-weight:600}th:first-child,td:first-child{text-align:left}\
.scroll{overflow-x:auto}a{color:inherit;text-decoration-color:#9bc}svg{max-width:100%;height:auto}\
ul{color:#444;font-size:.9rem}nav a{margin-right:1rem}";

/// An HTML page with the tables, plots and notes of all reports. Our numbers link to the directories of their
/// runs, relative to the page.
pub fn html(reports: &[Report]) -> String {
    let title = match reports {
        [one] => one.title.clone(),
        _ => "Tables of Simonyan & Zisserman, compared with our results".to_owned(),
    };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{0}</title><style>{STYLE}</style></head>\n\
         <body><h1>{0}</h1>\n",
        escaped(&title)
    );
    if reports.len() > 1 {
        let links =
            reports.iter().map(|r| format!("<a href=\"#{}\">{}</a>", escaped(&r.name), escaped(&r.name)));
        push(&mut page, format_args!("<nav>{}</nav>\n", links.collect::<String>()));
    }
    for report in reports {
        if reports.len() > 1 {
            push(
                &mut page,
                format_args!("<h2 id=\"{}\">{}</h2>\n", escaped(&report.name), escaped(&report.title)),
            );
        }
        statement(&mut page, report);
        table(&mut page, report);
        for plot in &report.plots {
            push(&mut page, format_args!("<h3>{}</h3>\n{}\n", escaped(&plot.title), plot.svg));
        }
        let notes: String = report.notes.iter().map(|note| format!("<li>{}</li>", escaped(note))).collect();
        push(&mut page, format_args!("<ul>{notes}</ul>\n"));
    }
    page.push_str("</body></html>\n");
    page
}

fn statement(page: &mut String, report: &Report) {
    let [summary, lines @ ..] = report.statement.as_slice() else { return };
    let lines: String = lines.iter().map(|line| format!("<li>{}</li>", escaped(line))).collect();
    push(page, format_args!("<p>{}:</p><ul>{lines}</ul>\n", escaped(summary)));
}

fn table(page: &mut String, report: &Report) {
    let heads: String = report.columns.iter().map(|head| format!("<th>{}</th>", escaped(head))).collect();
    let several = report.runs.iter().any(|runs| runs.len() > 1);
    let further = if several { "<th>networks</th>" } else { "" };
    push(
        page,
        format_args!("<div class=\"scroll\"><table><thead><tr>{heads}{further}</tr></thead><tbody>\n"),
    );
    for (i, cells) in report.cells.iter().enumerate() {
        let runs: Vec<&str> =
            report.runs.get(i).map(|runs| runs.iter().map(String::as_str).collect()).unwrap_or_default();
        let cells: String = cells
            .iter()
            .zip(&report.columns)
            .map(|(cell, head)| match runs.first() {
                Some(run)
                    if !(cell.is_empty() || head.starts_with("paper") || head.starts_with("test set")) =>
                {
                    format!("<td><a href=\"{}/run.json\">{}</a></td>", escaped(run), escaped(cell))
                }
                _ => format!("<td>{}</td>", escaped(cell)),
            })
            .collect();
        let named = |run: &&str| run.rsplit('/').next().unwrap_or(run).to_owned();
        let links = runs
            .iter()
            .map(|run| format!("<a href=\"{}/run.json\">{}</a>", escaped(run), escaped(&named(run))));
        let links: Vec<String> = if runs.len() > 1 { links.collect() } else { Vec::new() };
        let further = if several { format!("<td>{}</td>", links.join(" ")) } else { String::new() };
        push(page, format_args!("<tr>{cells}{further}</tr>\n"));
    }
    page.push_str("</tbody></table></div>\n");
}

fn push(page: &mut String, text: std::fmt::Arguments) {
    // Writing to a string does not fail.
    let _ = page.write_fmt(text);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
