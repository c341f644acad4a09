//! Pictures of finished runs: errors per epoch under each rule, and the angles to backpropagation.

use std::path::Path;

use feedback_alignment::FeedbackRule;
use plotters::{coord::combinators::BindKeyPoints, prelude::*};

use crate::{
    common::{
        Result,
        canvas::{self, AXIS, Area, Drawn, GRID},
    },
    record::Record,
};

/// Errors in percent that get a line across the plot.
const TICKS: [f64; 13] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// Draws test errors as full lines and training errors as pale ones.
pub fn errors(records: &[&Record], title: &str, path: &Path) -> Result<()> {
    canvas::save(path, (800, 500), |sheet| draw_errors(records, title, sheet))
}

fn draw_errors<'a>(records: &[&Record], title: &str, sheet: &Area<'a>) -> Drawn<'a> {
    let points = || records.iter().flat_map(|record| &record.points);
    let last = points().map(|point| point.epoch).max().unwrap_or(1).max(2);
    let test = || points().map(|point| point.test_error);
    let (min, max) = (test().fold(100.0, f64::min), test().fold(1.0, f64::max));
    // Training errors go down to nothing; the picture ends where the test errors do not.
    let low = TICKS.into_iter().rev().find(|&tick| tick < min / 5.0).unwrap_or(TICKS[0]);
    let high = TICKS.into_iter().find(|&tick| tick >= max).unwrap_or(100.0);
    let ticks = TICKS.into_iter().filter(|tick| (low..=high).contains(tick)).collect();
    let mut chart = ChartBuilder::on(sheet)
        .caption(title, ("sans-serif", 22))
        .margin(15)
        .margin_right(30)
        .x_label_area_size(50)
        .y_label_area_size(70)
        .build_cartesian_2d(1..last, (low..high).log_scale().with_key_points(ticks))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .label_style(("sans-serif", 16))
        .axis_desc_style(("sans-serif", 18))
        .x_desc("epoch")
        .y_desc("error (pale: training)")
        .y_label_formatter(&|percent| format!("{percent} %"))
        .draw()?;
    for record in records {
        let style = line(&record.header.rule);
        let pale = ShapeStyle { color: style.color.mix(0.35), ..style };
        let series = |error: fn(&crate::record::Point) -> f64| {
            record.points.iter().map(move |point| (point.epoch, error(point).clamp(low, high)))
        };
        chart.draw_series(LineSeries::new(series(|point| point.train_error), pale))?;
        chart
            .draw_series(LineSeries::new(series(|point| point.test_error), style))?
            .label(record.header.rule.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 25, y)], style.stroke_width(3)));
    }
    legend(&mut chart)
}

/// Draws the angle of each hidden layer's delta to backpropagation's, a panel for each rule.
pub fn angles(records: &[&Record], title: &str, path: &Path) -> Result<()> {
    let width = u32::try_from(records.len()).unwrap_or(1) * 320;
    canvas::save(path, (width.max(480), 380), |sheet| {
        let panels = sheet.titled(title, ("sans-serif", 20))?.split_evenly((1, records.len()));
        records.iter().zip(&panels).try_for_each(|(record, panel)| draw_angles(record, panel))
    })
}

fn draw_angles<'a>(record: &Record, panel: &Area<'a>) -> Drawn<'a> {
    let last = record.points.last().map_or(2, |point| point.epoch.max(2));
    let layers = record.points[0].angles.as_ref().map_or(0, Vec::len);
    let mut chart = ChartBuilder::on(panel)
        .caption(&record.header.rule, ("sans-serif", 18))
        .margin(10)
        .margin_right(20)
        .x_label_area_size(45)
        .y_label_area_size(50)
        .build_cartesian_2d(1..last, 0.0..100.0)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .label_style(("sans-serif", 15))
        .x_desc("epoch")
        .x_labels(5)
        .y_labels(6)
        .y_label_formatter(&|degrees| format!("{degrees}°"))
        .draw()?;
    for layer in 0..layers {
        let style = canvas::line(layer);
        let angle = |point: &crate::record::Point| {
            Some((point.epoch, *point.angles.as_ref()?.get(layer)?.as_ref()?))
        };
        chart
            .draw_series(LineSeries::new(record.points.iter().filter_map(angle), style))?
            .label(format!("layer {}", layer + 1))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style.stroke_width(3)));
    }
    legend(&mut chart)
}

fn legend<'a, 'b: 'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
) -> Drawn<'b>
where
    X: plotters::coord::ranged1d::Ranged,
    Y: plotters::coord::ranged1d::Ranged,
{
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .legend_area_size(35)
        .label_font(("sans-serif", 17))
        .background_style(WHITE.mix(0.7))
        .border_style(GRID)
        .draw()?;
    Ok(())
}

/// The same colour for a rule in every plot.
fn line(rule: &str) -> ShapeStyle {
    canvas::line(FeedbackRule::all().position(|other| other.to_string() == rule).unwrap_or(0))
}
