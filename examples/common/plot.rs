//! A picture of the test error per epoch: one line for each rule, as SVG.

use std::{error::Error, fs, path::Path};

use feedback_alignment::FeedbackRule;
use plotters::{coord::combinators::BindKeyPoints, prelude::*};

use super::{Result, Run};

const SIZE: (u32, u32) = (800, 500);

/// Colours that the colour-blind can tell apart (Okabe and Ito 2008), in the order of the rules.
const COLOURS: [RGBColor; 4] =
    [RGBColor(60, 60, 60), RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];

const GRID: RGBColor = RGBColor(225, 225, 225);
const AXIS: RGBColor = RGBColor(120, 120, 120);

/// Errors in percent that get a line across the plot. The axis is logarithmic: learning goes
/// from 90 % to 2 %, and the rules differ most at the lower end.
const TICKS: [f64; 10] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// Draws the plot into a file, whose folder is made if there is none.
pub fn save(runs: &[Run], title: &str, path: &Path) -> Result<()> {
    let mut svg = String::new();
    draw(runs, title, &mut svg).map_err(|error| format!("cannot draw the plot: {error}"))?;
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, svg))
        .map_err(|error| format!("cannot write the plot to {}: {error}", path.display()).into())
}

fn draw<'a>(runs: &[Run], title: &str, svg: &'a mut String) -> Result<(), Box<dyn Error + 'a>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;

    let (low, high) = bounds(runs);
    let epochs = runs.iter().map(|run| run.test_errors.len()).max().unwrap_or(1).max(2);
    let ticks = TICKS.into_iter().filter(|tick| (low..=high).contains(tick)).collect();
    let mut chart = ChartBuilder::on(&root)
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
        let style = ShapeStyle { color: colour(run.rule), filled: true, stroke_width: 2 };
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
    root.present()?;
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
fn colour(rule: FeedbackRule) -> RGBAColor {
    let index = FeedbackRule::all().position(|other| other == rule).unwrap_or(0);
    COLOURS[index % COLOURS.len()].into()
}
