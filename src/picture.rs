//! Pictures of routes.

use std::fmt::Write as _;

use crate::{
    route::{Hop, Magnitudes, Route, Through},
    signal::Signal,
};

// Lengths in pixels.
const MIDDLE: f64 = 70.0; // The middle of the column of layers.
const BOX: (f64, f64) = (56.0, 34.0); // Width and height of a layer's box.
const PITCH: f64 = 74.0; // From one row to the next.
const LANE: f64 = 26.0; // From one vertical line to the next.
const LETTER: f64 = 8.0;
const ROUND: f64 = 7.0; // Radius of a corner.
const HEAD: f64 = 7.0; // Length of an arrow's head.

/// The attributes that all paths of one kind share.
const FORWARD: &str = r##"stroke="#999" fill="none" stroke-width="2""##;
const FEEDBACK: &str = r#"stroke="currentColor" fill="none" stroke-width="2""#;

impl Route {
    /// A drawing of the route, as the text of an SVG image. Layers go from the input at the bottom to
    /// the output at the top. Forward connections are grey. Feedback has the colour of the surrounding
    /// text, and each hop shows its matrix. A dashed line is a matrix that changes in training. Layers
    /// are counted from 1, as in papers: the hop to layer `0` leads to `h₁`.
    ///
    /// The image can be a file of its own or part of a page.
    ///
    /// ```
    /// use feedback_alignment::FeedbackRule;
    ///
    /// let picture = FeedbackRule::Dfa.route(3)?.picture();
    /// assert!(picture.starts_with("<svg") && picture.contains("B₂"));
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    #[must_use]
    pub fn picture(&self) -> String {
        let drawing = Drawing::new(self);
        let mut svg = String::new();
        drawing.write(&mut svg).map_or_else(|_| String::new(), |()| svg) // A string takes all text.
    }
}

/// The layout of the drawing.
struct Drawing<'a> {
    route: &'a Route,
    /// The signals that come from the output, from the row above it upwards. The error is the first.
    sources: Vec<Signal>,
    /// The feedback, in the order in which it is drawn.
    lines: Vec<Line>,
    width: f64,
}

/// A hop as a line: it leaves a row to the right, goes along a lane, and enters another row.
struct Line {
    hop: Hop,
    from: usize,
    to: usize,
    /// Number of its lane, from the left.
    lane: usize,
}

impl<'a> Drawing<'a> {
    fn new(route: &'a Route) -> Self {
        let mut sources = vec![Signal::Error];
        for signal in route.hops().iter().map(|hop| hop.signal) {
            if signal.layer().is_none() && !sources.contains(&signal) {
                sources.push(signal);
            }
        }
        let row_of = |signal: Signal| match signal.layer() {
            Some(layer) => layer + 1,
            None => {
                route.layer_count() + 1 + sources.iter().position(|&one| one == signal).unwrap_or(0)
            }
        };
        let ends = |hop: &Hop| (row_of(hop.signal), hop.to + 1);
        let mut hops = route.hops().to_vec();
        hops.sort_by_key(|hop| ends(hop).0.abs_diff(ends(hop).1)); // Short lines inside long ones.
        let mut lines: Vec<Line> = Vec::new();
        for hop in hops {
            let (from, to) = ends(&hop);
            let (low, high) = (from.min(to), from.max(to));
            let taken = |lane| {
                lines.iter().any(|line| {
                    line.lane == lane
                        && line.from.min(line.to) < high
                        && low < line.from.max(line.to)
                })
            };
            let lane = (0..lines.len()).find(|&lane| !taken(lane)).unwrap_or(lines.len());
            lines.push(Line { hop, from, to, lane });
        }
        let mut drawing = Self { route, sources, lines, width: 0.0 };
        let lanes = drawing.lines.iter().map(|line| line.lane + 1).max().unwrap_or(0);
        drawing.width = drawing.lane(lanes) + 4.0;
        drawing
    }

    fn rows(&self) -> usize {
        self.route.layer_count()
            + 1
            + if self.route.layer_count() == 0 { 0 } else { self.sources.len() }
    }

    /// The vertical middle of a row. Rows are counted from the input.
    fn y(&self, row: usize) -> f64 {
        let from_top = self.rows() - 1 - row;
        #[allow(clippy::cast_precision_loss)] // Rows are few.
        let rows = from_top as f64;
        4.0 + BOX.1 / 2.0 + rows * PITCH
    }

    /// The horizontal place of a lane. The first one leaves room for the longest label.
    #[allow(clippy::cast_precision_loss)] // Letters and lanes are few.
    fn lane(&self, lane: usize) -> f64 {
        let letters = |line: &Line| self.label(line.hop).chars().count();
        let longest = self.lines.iter().map(letters).max().unwrap_or(0) as f64;
        MIDDLE + BOX.0 / 2.0 + HEAD + 12.0 + LETTER * longest + LANE * lane as f64
    }

    /// The lines that meet a row, from top to bottom. Lines from above come before those from below, in
    /// an order without crossings.
    fn at(&self, row: usize) -> Vec<usize> {
        let mut here: Vec<usize> = (0..self.lines.len())
            .filter(|&one| self.lines[one].from == row || self.lines[one].to == row)
            .collect();
        here.sort_by_key(|&one| {
            let Line { from, to, lane, .. } = self.lines[one];
            let from_below = from.min(to) < row;
            (from_below, if from_below { self.lines.len() - lane } else { lane })
        });
        here
    }

    /// The height at which a line meets a row.
    #[allow(clippy::cast_precision_loss)] // Lines at a row are few.
    fn port(&self, line: usize, row: usize) -> f64 {
        let here = self.at(row);
        let place = here.iter().position(|&one| one == line).unwrap_or(0) as f64;
        let y = self.y(row) + BOX.1 * ((place + 1.0) / (here.len() as f64 + 1.0) - 0.5);
        (10.0 * y).round() / 10.0
    }

    /// The horizontal place at which lines leave a row: the edge of a box, or of a word.
    #[allow(clippy::cast_precision_loss)] // Words are short.
    fn edge(&self, row: usize) -> f64 {
        let half = match row.checked_sub(self.route.layer_count() + 1) {
            Some(number) => LETTER / 2.0 * name(self.sources[number]).chars().count() as f64,
            None => BOX.0 / 2.0,
        };
        MIDDLE + half + 5.0
    }

    /// The matrix of a hop, in the notation of papers.
    fn label(&self, hop: Hop) -> String {
        let own = index(hop.to + 1);
        let weights = || {
            let owner = self.route.owner(hop);
            format!("W{}{}", index(owner + 1), if owner == hop.to { "" } else { "ᵀ" })
        };
        match hop.through {
            Through::Weights => weights(),
            Through::Signs(Magnitudes::Uniform) => format!("sign {}", weights()),
            Through::Signs(Magnitudes::Fixed | Magnitudes::New) => {
                format!("|B{own}| sign {}", weights())
            }
            Through::LowRank(_) => format!("U{own}V{own}"),
            Through::Shared => "B".into(),
            Through::Product(_) => format!("R{own}ᵀB{own}ᵀ"),
            Through::Sparse(_) => format!("sparse B{own}"),
            Through::LikeWeights
            | Through::Matrix
            | Through::KolenPollack
            | Through::DirectKolenPollack
            | Through::Jacobian
            | Through::Mirror => format!("B{own}"),
        }
    }

    fn write(&self, svg: &mut String) -> std::fmt::Result {
        let (width, height) = (self.width, self.y(0) + BOX.1 / 2.0 + 4.0);
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" font-family="sans-serif" font-size="15">"#
        )?;
        writeln!(svg, "<title>The route {}</title>", escaped(&self.route.to_string()))?;
        for row in 0..=self.route.layer_count() {
            self.layer(row, svg)?;
        }
        if self.route.layer_count() > 0 {
            for number in 0..self.sources.len() {
                self.source(number, svg)?;
            }
        }
        for number in 0..self.lines.len() {
            self.line(number, svg)?;
        }
        writeln!(svg, "</svg>")
    }

    /// Draws a layer, and the connection that leads up to it.
    fn layer(&self, row: usize, svg: &mut String) -> std::fmt::Result {
        let y = self.y(row);
        let name = match row {
            0 => "x".to_owned(),
            _ if row == self.route.layer_count() => "ŷ".to_owned(),
            _ => format!("h{}", index(row)),
        };
        let (left, top) = (MIDDLE - BOX.0 / 2.0, y - BOX.1 / 2.0);
        writeln!(
            svg,
            r#"<rect x="{left}" y="{top}" width="{}" height="{}" rx="6" {FORWARD}/>"#,
            BOX.0, BOX.1
        )?;
        text(svg, (MIDDLE, y + 5.0), "middle", "currentColor", &name)?;
        if row == 0 {
            return Ok(());
        }
        let (tip, tail) = (y + BOX.1 / 2.0, self.y(row - 1) - BOX.1 / 2.0);
        writeln!(svg, r#"<path d="M{MIDDLE} {tail}V{}" {FORWARD}/>"#, tip + HEAD)?;
        head_up(svg, (MIDDLE, tip), "#999")?;
        text(
            svg,
            (MIDDLE - 9.0, f64::midpoint(tip, tail) + 5.0),
            "end",
            "#999",
            &format!("W{}", index(row)),
        )
    }

    /// Draws a signal of the output: the error above the output, a signal made from it above the error,
    /// and the target, which nothing leads to.
    fn source(&self, number: usize, svg: &mut String) -> std::fmt::Result {
        let row = self.route.layer_count() + 1 + number;
        let signal = self.sources[number];
        let y = self.y(row);
        text(svg, (MIDDLE, y + 5.0), "middle", "currentColor", name(signal))?;
        // Signals further up show by their names that they are made from the error.
        if signal == Signal::Target || number > 1 {
            return Ok(());
        }
        let (tip, tail) = (y + BOX.1 / 2.0, self.y(row - 1) - BOX.1 / 2.0);
        let (style, colour) =
            if number == 0 { (FORWARD, "#999") } else { (FEEDBACK, "currentColor") };
        writeln!(svg, r#"<path d="M{MIDDLE} {tail}V{}" {style}/>"#, tip + HEAD)?;
        head_up(svg, (MIDDLE, tip), colour)
    }

    fn line(&self, number: usize, svg: &mut String) -> std::fmt::Result {
        let line = &self.lines[number];
        let (start, end) = (self.port(number, line.from), self.port(number, line.to));
        let (out, edge) = (self.edge(line.from), MIDDLE + BOX.0 / 2.0);
        let lane = self.lane(line.lane);
        let turn = if end > start { ROUND } else { -ROUND };
        let sweep = u8::from(end > start);
        let changes = line.hop.through.learns()
            || matches!(line.hop.through, Through::Signs(_) | Through::Mirror);
        let dashes = if changes { r#" stroke-dasharray="5 4""# } else { "" };
        writeln!(
            svg,
            r#"<path d="M{} {start}H{}A{ROUND} {ROUND} 0 0 {sweep} {lane} {}V{}A{ROUND} {ROUND} 0 0 {sweep} {} {end}H{}" {FEEDBACK}{dashes}/>"#,
            out,
            lane - ROUND,
            start + turn,
            end - turn,
            lane - ROUND,
            edge + HEAD,
        )?;
        writeln!(svg, r#"<path d="M{edge} {end}l{HEAD} -4v8z" fill="currentColor"/>"#)?;
        let at = self.at(line.to);
        let below = at.len() > 1 && at.last() == Some(&number); // Above it is another line.
        let beside = if below { end + 16.0 } else { end - 5.0 };
        let label = self.label(line.hop);
        text(svg, (edge + HEAD + 4.0, beside), "start", "currentColor", &label)
    }
}

/// The name of a signal of the output.
fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::ErrorSign => "sign e",
        Signal::ErrorTernary(_) => "ternary e",
        Signal::ErrorCentred(_) => "e − ē",
        Signal::Target => "target t",
        Signal::Error | Signal::Delta(_) => "e",
    }
}

fn text(
    svg: &mut String,
    (x, y): (f64, f64),
    anchor: &str,
    colour: &str,
    text: &str,
) -> std::fmt::Result {
    writeln!(svg, r#"<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{text}</text>"#)
}

fn head_up(svg: &mut String, (x, tip): (f64, f64), colour: &str) -> std::fmt::Result {
    writeln!(svg, r#"<path d="M{x} {tip}l-4 {HEAD}h8z" fill="{colour}"/>"#)
}

/// A number as an index: 12 is ₁₂.
fn index(number: usize) -> String {
    let digit = |digit: u8| char::from_u32(u32::from('₀') + u32::from(digit - b'0'));
    number.to_string().bytes().filter_map(digit).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('>', "&gt;")
}
