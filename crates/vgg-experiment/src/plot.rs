//! Plots of a table's rows, as SVG.

use std::path::Path;

use plotters::prelude::*;
use vgg_layers::Config;
use vgg_train::EpochMetrics;

use crate::{Result, Row, sides};

/// Size of a plot.
const SIZE: (u32, u32) = (720, 420);
/// Colours that are told apart with any eyes (Okabe & Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];

/// A picture with what it shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// The picture.
    pub svg: String,
}

/// Points by the name of their line.
type Series = Vec<(String, Vec<(f64, f64)>)>;

/// The plots of a table whose runs are in `out`: the error by depth and training scale where rows differ in them, else row by
/// row; the errors of validation as they learned.
///
/// # Errors
/// [`crate::Error::File`] if the metrics of a run cannot be read.
pub(crate) fn plots(table: &str, rows: &[Row], out: &Path) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    let mut add = |title: &str, x: &str, ticks: Vec<String>, series: Series| {
        let y = "top-1 error, %";
        plots.extend(draw((x, y), &ticks, &series).map(|svg| Plot { title: title.to_owned(), svg }));
    };
    if matches!(table, "table3" | "table4") {
        add("Error by depth", "weight layers", Vec::new(), by_depth(rows));
        let (ticks, series) = by_scale(rows);
        add("Error by training scale", "S", ticks, series);
    } else {
        let (ticks, series) = by_row(rows);
        add("Error by protocol and row", "", ticks, series);
    }
    add("Validation error as they learned", "epoch", Vec::new(), curves(rows, out)?);
    Ok(plots)
}

fn by_depth(rows: &[Row]) -> Series {
    let mut series = Series::new();
    for row in rows.iter().filter(|row| row.config != "A-LRN") {
        let Ok(config) = Config::from_name(&row.config) else { continue };
        // C and D are equally deep; C has 1x1 convolutions where D has 3x3.
        let of = format!("S = {}{}", sides(&row.train_side), if row.config == "C" { ", C" } else { "" });
        push(&mut series, of, (config.weight_layers() as f64, row.top1_error));
    }
    series.retain(|(_, points)| points.len() > 1);
    series
}

fn by_scale(rows: &[Row]) -> (Vec<String>, Series) {
    let mut ticks: Vec<String> = Vec::new();
    let mut series = Series::new();
    for row in rows {
        let scale = sides(&row.train_side);
        if !ticks.contains(&scale) {
            ticks.push(scale.clone());
        }
        let at = ticks.iter().position(|tick| *tick == scale).unwrap_or(0);
        push(&mut series, row.config.clone(), (at as f64, row.top1_error));
    }
    series.retain(|(_, points)| points.len() > 1);
    (ticks, series)
}

fn by_row(rows: &[Row]) -> (Vec<String>, Series) {
    let mut series = vec![("ours".to_owned(), Vec::new()), ("the paper's".to_owned(), Vec::new())];
    // What is only quoted is no result of ours to look at.
    let rows: Vec<&Row> = rows.iter().filter(|row| !row.members.is_empty()).collect();
    for (i, row) in rows.iter().enumerate() {
        series[0].1.extend(row.top1_error.map(|error| (i as f64, 100.0 * error)));
        series[1].1.extend(row.paper_top1_error.map(|error| (i as f64, 100.0 * error)));
    }
    series.retain(|(_, points)| !points.is_empty());
    let one_config = |row: &Row| row.members.iter().all(|m| m.config == row.members[0].config);
    let name = |(i, row): (usize, &&Row)| match one_config(row) {
        true if row.protocol == "centre" => row.config.clone(),
        true => format!("{} {}", row.members[0].config, row.protocol),
        false => (i + 1).to_string(),
    };
    (rows.iter().enumerate().map(name).collect(), series)
}

fn curves(rows: &[Row], out: &Path) -> Result<Series> {
    let mut series = Series::new();
    for member in rows.iter().flat_map(|row| &row.members).filter(|member| !member.run.is_empty()) {
        if series.iter().any(|(name, _)| *name == member.name) {
            continue;
        }
        let path = out.join(&member.run).join(vgg_train::METRICS_FILE);
        let text = vgg_files::read_bytes(&path)?;
        let epochs = String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect::<Vec<EpochMetrics>>();
        let points = epochs.iter().filter_map(|e| Some((e.epoch as f64, 100.0 * e.val_top1_error?)));
        series.push((member.name.clone(), points.collect()));
    }
    Ok(series)
}

fn push(series: &mut Series, name: String, (x, error): (f64, Option<f64>)) {
    let Some(error) = error else { return };
    let point = (x, 100.0 * error);
    match series.iter_mut().find(|(known, _)| *known == name) {
        Some((_, points)) => points.push(point),
        None => series.push((name, vec![point])),
    }
}

/// Lines with points; `ticks` name the places 0, 1, .. of the horizontal axis. `None` if there is nothing to draw.
fn draw((x_label, y_label): (&str, &str), ticks: &[String], series: &Series) -> Option<String> {
    let all = || series.iter().flat_map(|(_, points)| points.iter().copied());
    all().next()?;
    let bounds = |of: fn(&(f64, f64)) -> f64, margin: f64| {
        let (low, high) = all().map(|p| of(&p)).fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        let margin = ((high - low) * margin).max(0.5);
        (low - margin)..(high + margin)
    };
    let (x, y) = (bounds(|p| p.0, 0.05), bounds(|p| p.1, 0.1));
    let mut svg = String::new();
    let drawn = (|| -> std::result::Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(x, y)?;
        let name = |at: &f64| match ticks {
            [] => format!("{at:.0}"),
            _ if at.fract().abs() > 1e-9 => String::new(),
            ticks => ticks.get(*at as usize).cloned().unwrap_or_default(),
        };
        let labels = if ticks.is_empty() { 10 } else { 2 * ticks.len() + 1 };
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_desc(x_label)
            .y_desc(y_label)
            .x_labels(labels)
            .x_label_formatter(&name)
            .y_label_formatter(&|v| format!("{v:.0}"))
            .draw()?;
        for (i, (name, points)) in series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let style = colour.stroke_width(2);
            // More lines than colours: those of the second round are dashed.
            if i < COLOURS.len() {
                let key = move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style);
                chart.draw_series(LineSeries::new(points.iter().copied(), style))?.label(name).legend(key);
            } else {
                let key = move |(x, y)| PathElement::new(vec![(x, y), (x + 9, y)], style);
                let line = DashedLineSeries::new(points.iter().copied(), 6, 4, style);
                chart.draw_series(line)?.label(name).legend(key);
            }
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .border_style(RGBColor(200, 200, 200))
            .background_style(WHITE.mix(0.85))
            .draw()?;
        area.present()?;
        Ok(())
    })();
    drawn.ok().map(|()| svg)
}
