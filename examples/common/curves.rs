//! A picture of errors per epoch, a line for each learning rule, as SVG.

use std::path::Path;

use feedback_alignment::FeedbackRule;
use plotters::{coord::combinators::BindKeyPoints, prelude::*};

use crate::{
    bands,
    common::{
        Result,
        canvas::{self, AXIS, Area, Drawn, GRID},
    },
};

const SIZE: (u32, u32) = (860, 500);

/// Errors in percent that get a line across the plot.
const TICKS: [f64; 13] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// The errors after each epoch, in percent; a list for each seed.
pub struct Curve {
    /// Of the rule.
    pub name: String,
    pub test: Vec<Vec<f64>>,
    /// None at all if they were not counted.
    pub training: Vec<Vec<f64>>,
}

/// Draws test errors as full lines and training errors as pale ones into a file, whose folder is
/// made if there is none. Of several seeds the line is the mean, in a band from the smallest to the
/// largest.
pub fn save(curves: &[Curve], title: &str, path: &Path) -> Result<()> {
    canvas::save(path, SIZE, |sheet| draw(curves, title, sheet))
}

fn draw<'a>(curves: &[Curve], title: &str, sheet: &Area<'a>) -> Drawn<'a> {
    let axis = Axis::around(curves);
    let lengths = curves.iter().flat_map(|curve| &curve.test).map(Vec::len);
    let epochs = lengths.max().unwrap_or(1).max(2);
    let sheet = sheet.margin(8, 0, 0, 0).titled(title, ("sans-serif", 23))?;
    let sheet = canvas::with_key(&sheet, &key(curves))?;
    let mut chart = ChartBuilder::on(&sheet)
        .margin(15)
        .x_label_area_size(50)
        .y_label_area_size(85)
        .build_cartesian_2d(1..epochs, axis.range().log_scale().with_key_points(axis.places()))?;

    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .label_style(("sans-serif", 17))
        .axis_desc_style(("sans-serif", 19))
        .x_desc("epoch")
        .y_desc(axis.description())
        .y_label_formatter(&|&place| axis.label(place))
        .draw()?;

    for (number, curve) in curves.iter().enumerate() {
        let line = line(&curve.name, number);
        for (seeds, line) in [(&curve.training, pale(line)), (&curve.test, line)] {
            let numbered = |errors: &Vec<f64>| (1..).zip(errors.iter().copied()).collect();
            let seeds: Vec<_> = seeds.iter().map(numbered).collect();
            bands::draw(&mut chart, &seeds, |error| axis.place(error), line)?;
        }
    }
    Ok(())
}

/// A line of training errors.
fn pale(line: ShapeStyle) -> ShapeStyle {
    ShapeStyle { color: line.color.mix(0.35), ..line }
}

/// Which line is which.
fn key(curves: &[Curve]) -> Vec<(String, ShapeStyle)> {
    let named = |(number, curve): (usize, &Curve)| (curve.name.clone(), line(&curve.name, number));
    let mut entries: Vec<_> = curves.iter().enumerate().map(named).collect();
    if curves.iter().any(|curve| !curve.training.is_empty()) {
        entries.push(("training".into(), pale(canvas::line(0))));
    }
    let seeds = curves.iter().map(|curve| curve.test.len()).max().unwrap_or(0);
    entries.extend(bands::key(seeds));
    entries
}

/// Where errors stand. Logarithmic, since learning goes from 90 % to 2 % and the rules differ most at
/// the lower end; if some are below the lowest tick it is linear from there down to zero, which a
/// logarithm does not reach.
struct Axis {
    low: f64,
    high: f64,
    has_zero: bool,
    /// What is shown.
    quantity: &'static str,
}

impl Axis {
    fn around(curves: &[Curve]) -> Self {
        let test = || curves.iter().flat_map(|curve| &curve.test).flatten().copied();
        let training = || curves.iter().flat_map(|curve| &curve.training).flatten().copied();
        let (min, max) =
            (test().filter(|&e| e > 0.0).fold(100.0, f64::min), test().fold(1.0, f64::max));
        // Training errors may take some room, but not squeeze what the tests show.
        let (room, quantity) =
            if training().next().is_some() { (5.0, "error") } else { (1.0, "test error") };
        let low = TICKS.into_iter().rev().find(|&tick| tick < min / room).unwrap_or(TICKS[0]);
        let high = TICKS.into_iter().find(|&tick| tick >= max).unwrap_or(100.0);
        Self { low, high, has_zero: test().chain(training()).any(|error| error < low), quantity }
    }

    /// The number in whose place on a logarithmic axis an error stands: from the lowest tick to zero it
    /// is as far as from there to twice as much.
    fn place(&self, error: f64) -> f64 {
        if error < self.low {
            self.low * (error / self.low - 1.0).exp2()
        } else {
            error.min(self.high)
        }
    }

    fn range(&self) -> std::ops::Range<f64> {
        let bottom = if self.has_zero { 0.0 } else { self.low };
        self.place(bottom)..self.place(self.high)
    }

    /// The errors that get a line across the plot.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        let zero = self.has_zero.then_some(0.0);
        let inside = TICKS.into_iter().filter(|tick| (self.low..=self.high).contains(tick));
        zero.into_iter().chain(inside)
    }

    fn places(&self) -> Vec<f64> {
        self.ticks().map(|tick| self.place(tick)).collect()
    }

    /// Of the tick at a place.
    fn label(&self, place: f64) -> String {
        let distance = |tick: f64| (self.place(tick) - place).abs();
        let nearest = self.ticks().min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
        nearest.map_or(String::new(), |tick| format!("{tick} %"))
    }

    fn description(&self) -> String {
        if self.has_zero {
            format!("{}, logarithmic, below {} % linear", self.quantity, self.low)
        } else {
            format!("{}, logarithmic", self.quantity)
        }
    }
}

/// The same colour for each of the first four rules in every plot, another for others.
fn line(name: &str, number: usize) -> ShapeStyle {
    let rules = FeedbackRule::nokland();
    let place = rules.iter().position(|rule| rule.to_string() == name);
    canvas::line(place.unwrap_or(rules.len() + number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(test: &[f64], training: &[f64]) -> Axis {
        let (test, training) = (vec![test.to_vec()], vec![training.to_vec()]);
        Axis::around(&[Curve { name: "BP".into(), test, training }])
    }

    #[test]
    fn errors_keep_their_order_and_zero_is_the_lowest_and_has_a_label() {
        let axis = axis(&[90.0, 9.0, 3.0], &[80.0, 0.3, 0.02, 0.0]);
        assert!(axis.has_zero);
        let errors = [0.0, 0.02, 0.3, 0.5, 3.0, 9.0, 80.0, 90.0];
        assert!(errors.map(|error| axis.place(error)).is_sorted_by(|a, b| a < b));
        assert_eq!(axis.range(), axis.place(0.0)..axis.place(100.0));
        assert_eq!(axis.label(axis.place(0.0)), "0 %");
        for tick in axis.ticks() {
            assert_eq!(axis.label(axis.place(tick)), format!("{tick} %"));
        }
    }

    #[test]
    fn without_small_errors_the_axis_is_logarithmic_alone() {
        let axis = axis(&[90.0, 9.0, 3.0], &[]);
        assert_eq!((axis.has_zero, axis.low, axis.high), (false, 2.0, 100.0));
        assert_eq!([2.0, 7.0, 90.0].map(|error| axis.place(error)), [2.0, 7.0, 90.0]);
    }
}
