//! A white sheet that becomes an SVG file, and how lines look on it.

use std::{error::Error, fs, path::Path};

use plotters::{coord::Shift, prelude::*};

use super::Result;

/// A part of the sheet.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What comes of drawing on it.
pub type Drawn<'a> = Result<(), Box<dyn Error + 'a>>;

/// Colours that the colour-blind can tell apart (Okabe and Ito 2008).
pub const COLOURS: [RGBColor; 6] = [
    RGBColor(60, 60, 60),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];

pub const GRID: RGBColor = RGBColor(225, 225, 225);
pub const AXIS: RGBColor = RGBColor(120, 120, 120);

/// Draws a picture into a file, whose folder is made if there is none.
pub fn save(
    path: &Path,
    size: (u32, u32),
    draw: impl for<'a> FnOnce(&Area<'a>) -> Drawn<'a>,
) -> Result<()> {
    let mut svg = String::new();
    on_sheet(&mut svg, size, draw).map_err(|error| format!("cannot draw the plot: {error}"))?;
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, svg))
        .map_err(|error| format!("cannot write the plot to {}: {error}", path.display()).into())
}

fn on_sheet<'a>(
    svg: &'a mut String,
    size: (u32, u32),
    draw: impl FnOnce(&Area<'a>) -> Drawn<'a>,
) -> Drawn<'a> {
    let sheet = SVGBackend::with_string(svg, size).into_drawing_area();
    sheet.fill(&WHITE)?;
    draw(&sheet)?;
    sheet.present()?;
    Ok(())
}

/// A line of one of the colours, which begin anew after the last, paler each time.
pub fn line(number: usize) -> ShapeStyle {
    let round = number / COLOURS.len();
    COLOURS[number % COLOURS.len()].mix(1.0 / (1 + round) as f64).stroke_width(2)
}

/// Says at the right of the sheet which line is which, and returns what is left of the sheet.
pub fn with_key<'a>(
    sheet: &Area<'a>,
    entries: &[(String, ShapeStyle)],
) -> Result<Area<'a>, Box<dyn Error + 'a>> {
    const FONT: i32 = 17;
    const TOP: i32 = 65;
    const LINE: usize = 26;
    let longest = entries.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let width = 60 + 9 * i32::try_from(longest)?;
    let (left, key) = sheet.split_horizontally(i32::try_from(sheet.dim_in_pixel().0)? - width);
    for ((name, style), y) in entries.iter().zip((TOP..).step_by(LINE)) {
        key.draw(&PathElement::new([(5, y), (30, y)], *style))?;
        key.draw(&Text::new(name.as_str(), (38, y - FONT / 2), ("sans-serif", FONT)))?;
    }
    Ok(left)
}
