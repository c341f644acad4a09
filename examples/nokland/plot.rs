//! Pictures of finished runs: errors per epoch under each rule, and the angles to backpropagation.

use std::path::Path;

use plotters::prelude::*;

use crate::{
    axes,
    common::{
        Result,
        canvas::{self, Area, Drawn},
    },
    curves::{self, Curve},
    record::{Point, Record},
};

/// Draws the test and training errors.
pub fn errors(records: &[&Record], title: &str, path: &Path) -> Result<()> {
    let of = |record: &Record, error: fn(&Point) -> f64| record.points.iter().map(error).collect();
    let curves: Result<Vec<Curve>> = records
        .iter()
        .map(|record| {
            Ok(Curve {
                name: record.header.rule.clone(),
                test: of(record, |point| point.test_error),
                training: of(record, |point| point.train_error),
            })
        })
        .collect();
    curves::save(&curves?, title, path)
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
    axes::draw(&mut chart, ("epoch", 5), ("°", 6))?;
    for layer in 0..layers {
        let style = canvas::line(layer);
        let angle =
            |point: &Point| Some((point.epoch, *point.angles.as_ref()?.get(layer)?.as_ref()?));
        chart
            .draw_series(LineSeries::new(record.points.iter().filter_map(angle), style))?
            .label(format!("layer {}", layer + 1))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style.stroke_width(3)));
    }
    canvas::legend(&mut chart)
}
