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

/// Draws the test and training errors: a line for each rule, over its seeds.
pub fn errors(runs: &[Vec<&Record>], title: &str, path: &Path) -> Result<()> {
    let of = |records: &[&Record], error: fn(&Point) -> f64| {
        let each = records.iter().map(|record| record.points.iter().map(error).collect());
        each.collect()
    };
    let curve = |records: &Vec<&Record>| Curve {
        name: records[0].header.rule.clone(),
        test: of(records, |point| point.test_error),
        training: of(records, |point| point.train_error),
    };
    curves::save(&runs.iter().map(curve).collect::<Vec<_>>(), title, path)
}

/// Draws the angle of each hidden layer's delta to backpropagation's, a panel for each rule.
pub fn angles(records: &[&Record], title: &str, path: &Path) -> Result<()> {
    let width = u32::try_from(records.len()).unwrap_or(1) * 320;
    canvas::save(path, (width.max(480) + 130, 380), |sheet| {
        let sheet = sheet.margin(8, 0, 0, 0).titled(title, ("sans-serif", 20))?;
        let layers = records.iter().map(|record| layers(record)).max().unwrap_or(0);
        let key = (0..layers).map(|layer| (format!("layer {}", layer + 1), canvas::line(layer)));
        let panels = canvas::with_key(&sheet, &key.collect::<Vec<_>>())?;
        let panels = panels.split_evenly((1, records.len()));
        let points = records.iter().flat_map(|record| &record.points);
        let all = points.filter_map(|point| point.angles.as_ref()).flatten().flatten();
        let top = if all.copied().fold(0.0, f64::max) > 100.0 { 180.0 } else { 100.0 };
        let ends = records.iter().filter_map(|record| Some(record.points.last()?.epoch));
        let ranges = (ends.max().unwrap_or(2).max(2), top);
        let mut both = records.iter().zip(&panels);
        both.try_for_each(|(record, panel)| draw_angles(record, ranges, panel))
    })
}

/// Number of hidden layers whose angles were measured.
fn layers(record: &Record) -> usize {
    record.points[0].angles.as_ref().map_or(0, Vec::len)
}

/// One rule, with epochs up to `last` and angles up to `top`, the same for all.
fn draw_angles<'a>(record: &Record, (last, top): (u64, f64), panel: &Area<'a>) -> Drawn<'a> {
    let mut chart = ChartBuilder::on(panel)
        .caption(&record.header.rule, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(60)
        .build_cartesian_2d(1..last, 0.0..top)?;
    axes::draw(&mut chart, ("epoch", 5), ("angle", "°", 6))?;
    for layer in 0..layers(record) {
        let angle =
            |point: &Point| Some((point.epoch, *point.angles.as_ref()?.get(layer)?.as_ref()?));
        let points = record.points.iter().filter_map(angle);
        chart.draw_series(LineSeries::new(points, canvas::line(layer)))?;
    }
    Ok(())
}
