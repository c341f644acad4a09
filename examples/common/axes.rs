//! The axes of a panel of angles, cosines or errors.

use plotters::{
    coord::{ranged1d::ValueFormatter, types::RangedCoordf64},
    prelude::*,
};

use crate::common::canvas::{AXIS, Drawn, GRID};

/// Lines across the panel, and beside each axis what it shows and so many numbers, those at the left
/// with a unit.
pub fn draw<'a, 'b: 'a, X: Ranged + ValueFormatter<X::ValueType>>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, RangedCoordf64>>,
    (name, across): (&str, usize),
    (quantity, unit, up): (&str, &str, usize),
) -> Drawn<'b> {
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 16))
        .x_desc(name)
        .y_desc(quantity)
        .x_labels(across)
        .y_labels(up)
        .y_label_formatter(&|value| format!("{value}{unit}"))
        .draw()?;
    Ok(())
}
