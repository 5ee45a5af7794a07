//! SVG plots of a table's rows.

use std::path::Path;

use plotters::prelude::*;
use vgg_layers::Config;
use vgg_train::EpochMetrics;

use crate::{Result, Row, TableName, train_scale_text};

/// Width and height in pixels.
const SIZE: (u32, u32) = (860, 420);
/// A palette that is safe for colour-blind readers (Okabe & Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];

/// A plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// Title of the plot.
    pub title: String,
    /// The SVG document.
    pub svg: String,
}

/// A series of a plot, drawn as a line or as points.
struct Line {
    name: String,
    points: Vec<Point>,
}

/// A point with an optional confidence interval.
#[derive(Clone, Copy)]
struct Point {
    x: f64,
    y: f64,
    interval: Option<[f64; 2]>,
}

/// The horizontal axis.
enum Axis {
    /// Numeric; the title of the axis.
    Of(&'static str),
    /// Ordered categories at 0, 1, ..; the title of the axis and the categories. Lines connect them.
    Steps(&'static str, Vec<String>),
    /// Unordered categories.
    Kinds(Vec<String>),
}

/// The plots of a table whose runs are in `out`: top-1 error by depth and by training scale (Tables 3 and 4)
/// or by row, and the validation error by epoch.
///
/// # Errors
/// [`crate::Error::File`] if the metrics of a run cannot be read.
pub(crate) fn plots(table: &TableName, rows: &[Row], out: &Path) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    let mut add = |title: &str, axis: Axis, lines: Vec<Line>| {
        plots.extend(draw(&axis, &lines).map(|svg| Plot { title: title.to_owned(), svg }));
    };
    if matches!(table, TableName::Table3 | TableName::Table4) {
        add("Error by depth", Axis::Of("weight layers"), by_depth(rows));
        let (names, lines) = by_scale(rows);
        add("Error by training scale", Axis::Steps("S", names), lines);
    } else {
        let (names, lines) = by_row(rows);
        add("Error by protocol and row", Axis::Kinds(names), lines);
    }
    add("Validation error by epoch", Axis::Of("epoch"), curves(rows, out)?);
    Ok(plots)
}

fn by_depth(rows: &[Row]) -> Vec<Line> {
    let mut lines = Vec::new();
    for row in rows.iter().filter(|row| row.config != "A-LRN") {
        let Ok(config) = Config::from_name(&row.config) else { continue };
        // C and D are equally deep, but C has 1x1 convolutions where D has 3x3.
        let of = format!(
            "S = {}{}",
            train_scale_text(&row.train_scale),
            if row.config == "C" { ", C" } else { "" }
        );
        push(&mut lines, of, config.weight_layers() as f64, row);
    }
    lines
}

fn by_scale(rows: &[Row]) -> (Vec<String>, Vec<Line>) {
    let (mut names, mut lines) = (Vec::<String>::new(), Vec::new());
    for row in rows {
        let scale = train_scale_text(&row.train_scale);
        if !names.contains(&scale) {
            names.push(scale.clone());
        }
        let at = names.iter().position(|name| *name == scale).unwrap_or(0);
        push(&mut lines, row.config.clone(), at as f64, row);
    }
    (names, lines)
}

fn by_row(rows: &[Row]) -> (Vec<String>, Vec<Line>) {
    let line = |name: &str| Line { name: name.to_owned(), points: Vec::new() };
    let (mut ours, mut papers) = (line("ours, 95 % interval"), line("paper"));
    // Rows that only quote other authors have no result of ours.
    let rows: Vec<&Row> = rows.iter().filter(|row| !row.members.is_empty()).collect();
    for (i, row) in rows.iter().enumerate() {
        ours.points.extend(Point::of(i as f64, row));
        let paper = row.paper_top1_error.map(|e| Point { x: i as f64, y: 100.0 * e, interval: None });
        papers.points.extend(paper);
    }
    let name = |row: &&Row| match row.protocol.as_str() {
        "centre" => row.config.clone(),
        protocol => format!("{}, {protocol}", row.config),
    };
    (rows.iter().map(name).collect(), vec![ours, papers])
}

fn curves(rows: &[Row], out: &Path) -> Result<Vec<Line>> {
    let mut lines = Vec::<Line>::new();
    for member in rows.iter().flat_map(|row| &row.members).filter(|member| !member.run.is_empty()) {
        if lines.iter().any(|line| line.name == member.name) {
            continue;
        }
        let path = out.join(&member.run).join(vgg_train::METRICS_FILE);
        let text = vgg_files::read_bytes(&path)?;
        let epochs = String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect::<Vec<EpochMetrics>>();
        let point = |e: &EpochMetrics| {
            Some(Point { x: e.epoch as f64, y: 100.0 * e.val_top1_error?, interval: None })
        };
        lines.push(Line { name: member.name.clone(), points: epochs.iter().filter_map(point).collect() });
    }
    Ok(lines)
}

fn push(lines: &mut Vec<Line>, name: String, x: f64, row: &Row) {
    let Some(point) = Point::of(x, row) else { return };
    match lines.iter_mut().find(|line| line.name == name) {
        Some(line) => line.points.push(point),
        None => lines.push(Line { name, points: vec![point] }),
    }
}

impl Point {
    /// The top-1 error of a row in percent, with its interval.
    fn of(x: f64, row: &Row) -> Option<Point> {
        let interval = row.top1_ci.map(|ends| ends.map(|end| 100.0 * end));
        Some(Point { x, y: 100.0 * row.top1_error?, interval })
    }
}

/// Draws the lines and their legend; `None` if there is no point.
fn draw(axis: &Axis, lines: &[Line]) -> Option<String> {
    lines.iter().flat_map(|line| &line.points).next()?;
    let mut svg = String::new();
    let drawn = (|| -> std::result::Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let keys = match axis {
            Axis::Kinds(names) => names.as_slice(),
            _ => &[],
        };
        let (chart, beside) =
            area.split_horizontally((SIZE.0 - if keys.is_empty() { 170 } else { 300 }) as i32);
        draw_lines(&chart, axis, lines)?;
        draw_keys(&beside, lines, keys)?;
        area.present()?;
        Ok(())
    })();
    drawn.ok().map(|()| svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw_lines(area: &Area, axis: &Axis, lines: &[Line]) -> Drawn {
    let (x, y) = bounds(axis, lines);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(x.clone(), y)?;
    let whole = |at: &f64| (at - at.round()).abs() < 1e-9;
    let name = |at: &f64| match axis {
        _ if !whole(at) => String::new(),
        Axis::Of(_) => format!("{at:.0}"),
        Axis::Steps(_, names) => names.get(*at as usize).cloned().unwrap_or_default(),
        Axis::Kinds(names) => {
            if *at >= 0.0 && (*at as usize) < names.len() {
                format!("{:.0}", at + 1.0)
            } else {
                String::new()
            }
        }
    };
    // A label for every integer, or for every few.
    let labels = match axis {
        Axis::Of(_) => ((x.end - x.start).floor() as usize + 1).min(12),
        Axis::Steps(_, names) | Axis::Kinds(names) => 2 * names.len() + 1,
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_desc(match axis {
            Axis::Of(what) | Axis::Steps(what, _) => what,
            Axis::Kinds(_) => "",
        })
        .y_desc("top-1 error, %")
        .x_labels(labels)
        .x_label_formatter(&name)
        .y_label_formatter(&|v| format!("{v:.0}"))
        .draw()?;
    for (i, line) in lines.iter().enumerate() {
        let style = COLOURS[i % COLOURS.len()].stroke_width(2);
        let points = || line.points.iter().map(|p| (p.x, p.y));
        match axis {
            Axis::Kinds(_) => {}
            _ if i < COLOURS.len() => drop(chart.draw_series(LineSeries::new(points(), style))?),
            _ => drop(chart.draw_series(DashedLineSeries::new(points(), 6, 4, style))?),
        }
        let thin = COLOURS[i % COLOURS.len()].mix(0.6).stroke_width(1);
        let bars = line.points.iter().filter_map(|p| Some((p.x, p.interval?)));
        chart.draw_series(bars.map(|(x, [low, high])| PathElement::new(vec![(x, low), (x, high)], thin)))?;
        chart.draw_series(points().map(|point| Circle::new(point, 3, style.color.filled())))?;
    }
    Ok(())
}

/// The ranges of both axes.
fn bounds(axis: &Axis, lines: &[Line]) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
    let points = || lines.iter().flat_map(|line| &line.points);
    let range = |values: &mut dyn Iterator<Item = f64>, margin: f64| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        let margin = ((high - low) * margin).max(0.5);
        (low - margin)..(high + margin)
    };
    let x = match axis {
        Axis::Of(_) => range(&mut points().map(|p| p.x), 0.05),
        Axis::Steps(_, names) | Axis::Kinds(names) => -0.5..(names.len() as f64 - 0.5),
    };
    let y = range(&mut points().flat_map(|p| p.interval.unwrap_or([p.y; 2])), 0.05);
    (x, y)
}

/// Draws the legend and, below it, the names of unordered categories.
fn draw_keys(area: &Area, lines: &[Line], names: &[String]) -> Drawn {
    const LINE: i32 = 18;
    let font = ("sans-serif", 12).into_font();
    for (i, line) in lines.iter().enumerate() {
        let (y, style) = (24 + LINE * i as i32, COLOURS[i % COLOURS.len()].stroke_width(2));
        let length = if i < COLOURS.len() { 18 } else { 8 };
        area.draw(&PathElement::new(vec![(4, y), (4 + length, y)], style))?;
        area.draw(&Circle::new((13, y), 3, style.color.filled()))?;
        area.draw(&Text::new(line.name.clone(), (28, y - 6), font.clone()))?;
    }
    for (i, name) in names.iter().enumerate() {
        let y = 24 + LINE * (lines.len() + 1 + i) as i32;
        area.draw(&Text::new(format!("{}  {name}", i + 1), (4, y - 6), font.clone()))?;
    }
    Ok(())
}
