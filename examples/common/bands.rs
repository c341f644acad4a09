//! Lines over several seeds: the mean, in a band from the smallest to the largest.

use plotters::prelude::*;

use crate::common::canvas::{self, Drawn};

/// Draws one quantity, a list of points for each seed; `place` says where a number stands.
pub fn draw<'a, 'b: 'a, X: Ranged, Y: Ranged<ValueType = f64>>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
    seeds: &[Vec<(X::ValueType, f64)>],
    place: impl Fn(f64) -> f64,
    line: ShapeStyle,
) -> Drawn<'b>
where
    X::ValueType: Clone + 'static,
{
    let points = over_seeds(seeds);
    let places = |of: fn(&Point<X::ValueType>) -> f64| -> Vec<(X::ValueType, f64)> {
        points.iter().map(|point| (point.at.clone(), place(of(point)))).collect()
    };
    if seeds.len() > 1 {
        let mut edge = places(|point| point.smallest);
        edge.extend(places(|point| point.largest).into_iter().rev());
        chart.draw_series([Polygon::new(edge, band(line))])?;
    }
    chart.draw_series(LineSeries::new(places(|point| point.mean), line))?;
    Ok(())
}

/// What a key says of so many seeds: nothing of a single one.
pub fn key(seeds: usize) -> Option<(String, ShapeStyle)> {
    let style = band(canvas::line(0)).stroke_width(12);
    (seeds > 1).then(|| (format!("{seeds} seeds"), style))
}

fn band(line: ShapeStyle) -> ShapeStyle {
    ShapeStyle { color: line.color.mix(0.2), ..line }
}

/// What the seeds came to at one place.
struct Point<X> {
    at: X,
    smallest: f64,
    mean: f64,
    largest: f64,
}

/// Point by point, up to the last of the longest run; a run that has ended keeps its last number.
fn over_seeds<X: Clone>(seeds: &[Vec<(X, f64)>]) -> Vec<Point<X>> {
    let runs: Vec<_> = seeds.iter().filter(|run| !run.is_empty()).collect();
    let Some(longest) = runs.iter().max_by_key(|run| run.len()) else { return Vec::new() };
    let points = longest.iter().enumerate().map(|(index, (at, _))| {
        let numbers = || runs.iter().map(|run| run[index.min(run.len() - 1)].1);
        Point {
            at: at.clone(),
            smallest: numbers().fold(f64::INFINITY, f64::min),
            mean: numbers().sum::<f64>() / runs.len() as f64,
            largest: numbers().fold(f64::NEG_INFINITY, f64::max),
        }
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_that_has_ended_keeps_its_last_number() {
        let points = over_seeds(&[vec![(1, 4.0), (2, 2.0)], vec![(1, 8.0), (2, 6.0), (3, 0.0)]]);
        let found: Vec<_> = points.iter().map(|p| (p.at, p.smallest, p.mean, p.largest)).collect();
        assert_eq!(found, [(1, 4.0, 6.0, 8.0), (2, 2.0, 4.0, 6.0), (3, 0.0, 1.0, 2.0)]);
    }
}
