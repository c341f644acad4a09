//! Why random feedback works: the network comes to agree with it.
//!
//! ```text
//! cargo run --release --example alignment
//! cargo run --release --example alignment -- --rule dfa --hidden 200,200,200,200 --epochs 40
//! cargo run --release --example alignment -- --angle feedback
//! ```
//!
//! Networks learn handwritten digits by FA, DFA and IFA, all from the same random weights. After
//! every epoch the example measures, over all training images and in each hidden layer, the angle
//! between what the rule teaches the layer and what backpropagation would. At first the feedback
//! has nothing to do with the weights, and in many dimensions that means an angle close to 90°.
//! Then the weights turn towards the feedback, which never changes, and the angles fall: what the
//! rule teaches points downhill. The example draws the angles and prints where they started and
//! ended.

#[path = "common/axes.rs"]
mod axes;
mod common;
#[path = "common/counts.rs"]
mod counts;
#[path = "common/rules.rs"]
mod rules;

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use common::{
    Result, Split,
    canvas::{self, AXIS, Area, Drawn},
};
use feedback_alignment::{
    Adam, Diagnosis, Diagnostics, FeedbackRule, LayerDiagnosis, Network, Trainer,
};
use indicatif::ProgressBar;
use plotters::prelude::*;
use rules::Rules;

/// Shows why random feedback works: the weights of a network turn towards it. Prints and draws the angles
/// between what each rule teaches and what backpropagation would.
#[derive(Parser)]
struct Args {
    /// Learning rules, separated by commas, or `all`
    #[arg(long, value_delimiter = ',', default_value = "fa,dfa,ifa")]
    rule: Vec<Rules>,

    /// Units of the hidden layers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "100,100,100", value_parser = counts::at_least_one)]
    hidden: Vec<usize>,

    /// How often every training image is seen
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,

    /// What to draw
    #[arg(long, value_enum, default_value_t = Angle::Delta)]
    angle: Angle,

    /// Seed of the weights, the feedback matrices and the order of the images
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// SVG file to draw the angles per epoch into
    #[arg(long, default_value = "target/alignment.svg")]
    plot: PathBuf,
}

/// Which of the angles of a layer.
#[derive(Clone, Copy, ValueEnum)]
enum Angle {
    /// Between the rule's delta and that of backpropagation
    Delta,
    /// Between their gradients
    Gradient,
    /// Between the feedback matrix and the weights it stands in for
    Feedback,
}

/// How training by one rule went.
struct Run {
    rule: FeedbackRule,
    /// Before training and after each epoch.
    diagnoses: Vec<Diagnosis>,
    /// Share of test samples put into the wrong class, in percent, after the last epoch.
    test_error: f64,
}

fn main() -> ExitCode {
    common::exit(compare(&Args::parse()))
}

fn compare(args: &Args) -> Result<()> {
    let data = common::digits()?;
    let network = network(args, data.train.features())?;
    let mut out = io::stdout().lock();
    writeln!(out, "Network {network}, {} digits to learn from", data.train.len())?;
    let rules: Vec<_> = args.rule.iter().flat_map(|Rules(rules)| rules.iter().copied()).collect();
    let bar = common::progress(args.epochs * rules.len() as u64)?;
    let runs: Result<Vec<Run>> =
        rules.into_iter().map(|rule| learn(network.clone(), rule, args, &data, &bar)).collect();
    bar.finish_and_clear();
    let runs = runs?;
    writeln!(out, "\n{}", Table(&runs))?;
    canvas::save(&args.plot, size(&runs), |sheet| draw(&runs, args.angle, sheet))?;
    writeln!(out, "Plot of the angles per epoch: {}", args.plot.display())?;
    Ok(())
}

/// Tanh layers, then ten outputs: one for each digit.
fn network(args: &Args, inputs: usize) -> feedback_alignment::Result<Network<f32>> {
    let mut network = Network::builder(inputs).seed(args.seed);
    for &units in &args.hidden {
        network = network.dense(units).tanh();
    }
    network.dense(10).build()
}

/// Trains the network by one rule and looks inside after every epoch.
fn learn(
    network: Network<f32>,
    rule: FeedbackRule,
    args: &Args,
    data: &Split,
    bar: &ProgressBar,
) -> Result<Run> {
    let mut diagnostics = Diagnostics::new(&network)?;
    let mut trainer = Trainer::builder(network)
        .rule(rule)
        .optimizer(Adam::default())
        .batch_size(32)
        .seed(args.seed)
        .build()?;
    let (x, labels) = (data.train.inputs(), data.train.targets());
    let mut diagnoses = vec![diagnostics.observe(&trainer, &x, labels)?];
    for _ in 0..args.epochs {
        let epoch = trainer.epoch(&data.train)?;
        diagnoses.push(diagnostics.observe(&trainer, &x, labels)?);
        bar.set_message(format!("{rule:<3}  {epoch}"));
        bar.inc(1);
    }
    let test_error = trainer.evaluate(&data.test)?.error_rate.map_or(f64::NAN, |rate| 100.0 * rate);
    Ok(Run { rule, diagnoses, test_error })
}

impl Angle {
    fn of(self, layer: &LayerDiagnosis) -> Option<f64> {
        match self {
            Self::Delta => layer.delta_angle,
            Self::Gradient => layer.gradient_angle,
            Self::Feedback => layer.feedback_angle,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Delta => {
                "Angle between what the rule and what backpropagation sends to each hidden layer"
            }
            Self::Gradient => {
                "Angle between the rule's gradient of each hidden layer and backpropagation's"
            }
            Self::Feedback => {
                "Angle between the feedback of each hidden layer and the weights it stands in for"
            }
        }
    }
}

/// A row for each hidden layer under each rule: the angles before training and after.
struct Table<'a>(&'a [Run]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Angles before and after training; what the rule teaches and what")?;
        writeln!(f, "backpropagation would, the feedback and the weights it stands in for\n")?;
        write!(f, "rule  layer         delta        gradient        feedback   test error")?;
        for Run { rule, diagnoses, test_error } in self.0 {
            let [first, .., last] = &diagnoses[..] else { continue };
            for (first, last) in first.hidden().iter().zip(last.hidden()) {
                write!(f, "\n{rule:<4} {:>6}", first.layer + 1)?;
                for angle in [Angle::Delta, Angle::Gradient, Angle::Feedback] {
                    match (angle.of(first), angle.of(last)) {
                        (Some(first), Some(last)) => {
                            write!(f, "  {:>14}", format!("{first:.1}° → {last:.1}°"))?;
                        }
                        _ => write!(f, "  {:>14}", "–")?,
                    }
                }
                if first.layer == 0 {
                    write!(f, " {test_error:>10.2} %")?;
                }
            }
        }
        writeln!(f)
    }
}

/// A panel for each rule, and room for the key.
fn size(runs: &[Run]) -> (u32, u32) {
    let panels = u32::try_from(runs.len()).unwrap_or(u32::MAX);
    (panels.saturating_mul(320).max(720).saturating_add(130), 380)
}

fn draw<'a>(runs: &[Run], angle: Angle, sheet: &Area<'a>) -> Drawn<'a> {
    let sheet = sheet.titled(angle.title(), ("sans-serif", 22))?;
    let layers = runs.iter().map(|run| run.diagnoses[0].hidden().len()).max().unwrap_or(0);
    let mut key: Vec<_> =
        (0..layers).map(|layer| (format!("layer {}", layer + 1), canvas::line(layer))).collect();
    key.push(("unrelated".into(), AXIS.stroke_width(1)));
    let panels = canvas::with_key(&sheet, &key)?.split_evenly((1, runs.len()));
    let diagnoses = runs.iter().flat_map(|run| &run.diagnoses);
    let all = diagnoses.flat_map(Diagnosis::hidden).filter_map(|row| angle.of(row));
    let top = if all.fold(0.0, f64::max) > 120.0 { 180.0 } else { 120.0 };
    runs.iter().zip(&panels).try_for_each(|(run, panel)| draw_rule(run, angle, top, panel))
}

/// One rule, with angles up to `top`, the same for all.
fn draw_rule<'a>(run: &Run, angle: Angle, top: f64, panel: &Area<'a>) -> Drawn<'a> {
    let epochs = run.diagnoses.len() - 1;
    let layers = run.diagnoses[0].hidden().len();
    let mut chart = ChartBuilder::on(panel)
        .caption(run.rule.to_string(), ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(60)
        .build_cartesian_2d(0..epochs, 0.0..top)?;

    axes::draw(&mut chart, ("epoch", 5), ("angle", "°", 8))?;

    // What vectors that have nothing to do with each other come to.
    chart.draw_series(LineSeries::new([(0, 90.0), (epochs, 90.0)], AXIS))?;
    for layer in 0..layers {
        let points = run.diagnoses.iter().enumerate();
        let points = points
            .filter_map(|(epoch, diagnosis)| Some((epoch, angle.of(&diagnosis.hidden()[layer])?)));
        chart.draw_series(LineSeries::new(points, canvas::line(layer)))?;
    }
    Ok(())
}
