//! A picture of the test error per epoch: one line for each rule, as SVG.

use std::path::Path;

use feedback_alignment::FeedbackRule;
use plotters::{coord::combinators::BindKeyPoints, prelude::*};

use super::Run;
use crate::common::{
    Result,
    canvas::{self, AXIS, Area, Drawn, GRID},
};

const SIZE: (u32, u32) = (800, 500);

/// Errors in percent that get a line across the plot. The axis is logarithmic: learning goes
/// from 90 % to 2 %, and the rules differ most at the lower end.
const TICKS: [f64; 10] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// Draws the plot into a file, whose folder is made if there is none.
pub fn save(runs: &[Run], title: &str, path: &Path) -> Result<()> {
    canvas::save(path, SIZE, |sheet| draw(runs, title, sheet))
}

fn draw<'a>(runs: &[Run], title: &str, sheet: &Area<'a>) -> Drawn<'a> {
    let (low, high) = bounds(runs);
    let epochs = runs.iter().map(|run| run.test_errors.len()).max().unwrap_or(1).max(2);
    let ticks = TICKS.into_iter().filter(|tick| (low..=high).contains(tick)).collect();
    let mut chart = ChartBuilder::on(sheet)
        .caption(title, ("sans-serif", 25))
        .margin(15)
        .margin_right(30)
        .x_label_area_size(50)
        .y_label_area_size(70)
        .build_cartesian_2d(1..epochs, (low..high).log_scale().with_key_points(ticks))?;

    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .label_style(("sans-serif", 17))
        .axis_desc_style(("sans-serif", 19))
        .x_desc("epoch")
        .y_desc("test error")
        .y_label_formatter(&|percent| format!("{percent} %"))
        .draw()?;

    for run in runs {
        let style = line(run.rule);
        let points = run.test_errors.iter().map(|&error| error.clamp(low, high));
        chart
            .draw_series(LineSeries::new((1..).zip(points), style))?
            .label(run.rule.to_string())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 25, y)], style.stroke_width(3)));
    }

    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .legend_area_size(35)
        .label_font(("sans-serif", 19))
        .background_style(WHITE)
        .border_style(GRID)
        .draw()?;
    Ok(())
}

/// The ticks around all errors; a run without any error is drawn at the lower edge.
fn bounds(runs: &[Run]) -> (f64, f64) {
    let errors = || runs.iter().flat_map(|run| &run.test_errors).copied().filter(|&e| e > 0.0);
    let (min, max) = (errors().fold(100.0, f64::min), errors().fold(1.0, f64::max));
    let low = TICKS.into_iter().rev().find(|&tick| tick < min).unwrap_or(TICKS[0]);
    let high = TICKS.into_iter().find(|&tick| tick >= max).unwrap_or(100.0);
    (low, high)
}

/// The same colour for a rule in every plot.
fn line(rule: FeedbackRule) -> ShapeStyle {
    canvas::line(FeedbackRule::all().position(|other| other == rule).unwrap_or(0))
}
