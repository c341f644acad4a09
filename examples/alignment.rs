//! Why random feedback works: the network comes to agree with it.
//!
//! ```text
//! cargo run --release --example alignment
//! cargo run --release --example alignment -- --rule dfa --hidden 200,200,200,200 --epochs 40
//! cargo run --release --example alignment -- --angle feedback
//! cargo run --release --example alignment -- --seeds 5 --plot docs/alignment.svg
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
#[path = "common/bands.rs"]
mod bands;
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

    /// How many seeds, counted from --seed; the plot shows their mean, in a band from the smallest to the
    /// largest
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,

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

/// How training by one rule went, from one seed.
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
    let inputs = data.train.features();
    let network = |seed| network(args, seed, inputs);
    let mut out = io::stdout().lock();
    writeln!(out, "Network {}, {} digits to learn from", network(args.seed)?, data.train.len())?;
    let rules: Vec<_> = args.rule.iter().flat_map(|Rules(rules)| rules.iter().copied()).collect();
    let bar = common::progress(args.epochs * rules.len() as u64 * args.seeds)?;
    let mut runs = Vec::new();
    for rule in rules {
        for seed in (0..args.seeds).map(|index| args.seed.wrapping_add(index)) {
            runs.push(learn(network(seed)?, (rule, seed), args, &data, &bar)?);
        }
    }
    bar.finish_and_clear();
    let rules: Vec<&[Run]> = runs.chunk_by(|one, other| one.rule == other.rule).collect();
    writeln!(out, "\n{}", Table(&rules))?;
    canvas::save(&args.plot, size(&rules), |sheet| draw(&rules, args.angle, sheet))?;
    writeln!(out, "Plot of the angles per epoch: {}", args.plot.display())?;
    Ok(())
}

/// Tanh layers, then ten outputs: one for each digit.
fn network(args: &Args, seed: u64, inputs: usize) -> feedback_alignment::Result<Network<f32>> {
    let mut network = Network::builder(inputs).seed(seed);
    for &units in &args.hidden {
        network = network.dense(units).tanh();
    }
    network.dense(10).build()
}

/// Trains the network by one rule and looks inside after every epoch.
fn learn(
    network: Network<f32>,
    (rule, seed): (FeedbackRule, u64),
    args: &Args,
    data: &Split,
    bar: &ProgressBar,
) -> Result<Run> {
    let mut diagnostics = Diagnostics::new(&network)?;
    let mut trainer = Trainer::builder(network)
        .rule(rule)
        .optimizer(Adam::default())
        .batch_size(32)
        .seed(seed)
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

/// A row for each hidden layer under each rule: the angles before training and after, of several seeds
/// the mean.
struct Table<'a>(&'a [&'a [Run]]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Angles before and after training; what the rule teaches and what")?;
        writeln!(f, "backpropagation would, the feedback and the weights it stands in for\n")?;
        write!(f, "rule  layer         delta        gradient        feedback   test error")?;
        for seeds in self.0 {
            let layers = seeds[0].diagnoses[0].hidden().len();
            for layer in 0..layers {
                write!(f, "\n{:<4} {:>6}", seeds[0].rule, layer + 1)?;
                for angle in [Angle::Delta, Angle::Gradient, Angle::Feedback] {
                    let of = |diagnosis: Option<&Diagnosis>| angle.of(&diagnosis?.hidden()[layer]);
                    let first = mean(seeds.iter().filter_map(|run| of(run.diagnoses.first())));
                    let last = mean(seeds.iter().filter_map(|run| of(run.diagnoses.last())));
                    match (first, last) {
                        (Some(first), Some(last)) => {
                            write!(f, "  {:>14}", format!("{first:.1}° → {last:.1}°"))?;
                        }
                        _ => write!(f, "  {:>14}", "–")?,
                    }
                }
                if layer == 0 {
                    let error = mean(seeds.iter().map(|run| run.test_error)).unwrap_or(f64::NAN);
                    write!(f, " {error:>10.2} %")?;
                }
            }
        }
        writeln!(f)
    }
}

/// None of nothing.
fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let numbers: Vec<f64> = numbers.collect();
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

/// A panel for each rule, and room for the key.
fn size(rules: &[&[Run]]) -> (u32, u32) {
    let panels = u32::try_from(rules.len()).unwrap_or(u32::MAX);
    (panels.saturating_mul(320).max(720).saturating_add(130), 380)
}

fn draw<'a>(rules: &[&[Run]], angle: Angle, sheet: &Area<'a>) -> Drawn<'a> {
    let sheet = sheet.margin(8, 0, 0, 0).titled(angle.title(), ("sans-serif", 22))?;
    let diagnoses = || rules.iter().copied().flatten().flat_map(|run| &run.diagnoses);
    let layers = diagnoses().map(|diagnosis| diagnosis.hidden().len()).max().unwrap_or(0);
    let mut key: Vec<_> =
        (0..layers).map(|layer| (format!("layer {}", layer + 1), canvas::line(layer))).collect();
    key.push(("unrelated".into(), AXIS.stroke_width(1)));
    key.extend(bands::key(rules[0].len()));
    let panels = canvas::with_key(&sheet, &key)?.split_evenly((1, rules.len()));
    let all = diagnoses().flat_map(Diagnosis::hidden).filter_map(|row| angle.of(row));
    let top = if all.fold(0.0, f64::max) > 120.0 { 180.0 } else { 120.0 };
    rules.iter().zip(&panels).try_for_each(|(seeds, panel)| draw_rule(seeds, angle, top, panel))
}

/// One rule, with angles up to `top`, the same for all.
fn draw_rule<'a>(seeds: &[Run], angle: Angle, top: f64, panel: &Area<'a>) -> Drawn<'a> {
    let first = &seeds[0].diagnoses;
    let (epochs, layers) = (first.len() - 1, first[0].hidden().len());
    let mut chart = ChartBuilder::on(panel)
        .caption(seeds[0].rule.to_string(), ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(60)
        .build_cartesian_2d(0..epochs, 0.0..top)?;

    axes::draw(&mut chart, ("epoch", 5), ("angle", "°", 8))?;

    // What vectors that have nothing to do with each other come to.
    chart.draw_series(LineSeries::new([(0, 90.0), (epochs, 90.0)], AXIS))?;
    for layer in 0..layers {
        let points = |run: &Run| {
            let points = run.diagnoses.iter().enumerate();
            let points = points
                .filter_map(|(epoch, found)| Some((epoch, angle.of(&found.hidden()[layer])?)));
            points.collect()
        };
        let seeds: Vec<_> = seeds.iter().map(points).collect();
        bands::draw(&mut chart, &seeds, |number| number, canvas::line(layer))?;
    }
    Ok(())
}
