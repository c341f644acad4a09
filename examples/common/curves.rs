//! A picture of errors per epoch, a line for each learning rule, as SVG.

use std::path::Path;

use feedback_alignment::FeedbackRule;
use plotters::{coord::combinators::BindKeyPoints, prelude::*};

use crate::common::{
    Result,
    canvas::{self, AXIS, Area, Drawn, GRID},
};

const SIZE: (u32, u32) = (800, 500);

/// Errors in percent that get a line across the plot. The axis is logarithmic: learning goes
/// from 90 % to 2 %, and the rules differ most at the lower end.
const TICKS: [f64; 13] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// The errors after each epoch, in percent.
pub struct Curve {
    /// Of the rule.
    pub name: String,
    pub test: Vec<f64>,
    /// None at all if they were not counted.
    pub training: Vec<f64>,
}

/// Draws test errors as full lines and training errors as pale ones into a file, whose folder is
/// made if there is none.
pub fn save(curves: &[Curve], title: &str, path: &Path) -> Result<()> {
    canvas::save(path, SIZE, |sheet| draw(curves, title, sheet))
}

fn draw<'a>(curves: &[Curve], title: &str, sheet: &Area<'a>) -> Drawn<'a> {
    let (low, high) = bounds(curves);
    let epochs = curves.iter().map(|curve| curve.test.len()).max().unwrap_or(1).max(2);
    let pale = curves.iter().any(|curve| !curve.training.is_empty());
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
        .y_desc(if pale { "error (pale: training)" } else { "test error" })
        .y_label_formatter(&|percent| format!("{percent} %"))
        .draw()?;

    for (number, curve) in curves.iter().enumerate() {
        let style = line(&curve.name, number);
        let pale = ShapeStyle { color: style.color.mix(0.35), ..style };
        let series = |errors: &[f64], style| {
            let inside = errors.iter().map(|error| error.clamp(low, high));
            LineSeries::new((1..).zip(inside.collect::<Vec<_>>()), style)
        };
        chart.draw_series(series(&curve.training, pale))?;
        chart
            .draw_series(series(&curve.test, style))?
            .label(curve.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 25, y)], style.stroke_width(3)));
    }
    canvas::legend(&mut chart)
}

/// The ticks around all test errors; what is below, as training errors that go down to nothing,
/// is drawn at the lower edge.
fn bounds(curves: &[Curve]) -> (f64, f64) {
    let errors = || curves.iter().flat_map(|curve| &curve.test).copied().filter(|&e| e > 0.0);
    let (min, max) = (errors().fold(100.0, f64::min), errors().fold(1.0, f64::max));
    let trained = curves.iter().any(|curve| !curve.training.is_empty());
    let room = if trained { 5.0 } else { 1.0 };
    let low = TICKS.into_iter().rev().find(|&tick| tick < min / room).unwrap_or(TICKS[0]);
    let high = TICKS.into_iter().find(|&tick| tick >= max).unwrap_or(100.0);
    (low, high)
}

/// The same colour for a rule of the library in every plot, any for others.
fn line(name: &str, number: usize) -> ShapeStyle {
    canvas::line(
        FeedbackRule::nokland()
            .into_iter()
            .position(|rule| rule.to_string() == name)
            .unwrap_or(number),
    )
}
