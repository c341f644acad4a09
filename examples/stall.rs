//! Why deep networks stall at the start of direct feedback, and what helps.
//!
//! ```text
//! cargo run --release --example stall
//! cargo run --release --example stall -- --rules dfa,dfa+prior+rate,sdfa,sdfa+centred --steps 3000
//! cargo run --release --example stall -- --data data/mnist --hidden 300,300,300 --steps 3000 --every 10
//! ```
//!
//! In the beginning a network answers the same to every image, so every image makes nearly the same
//! error. Direct feedback writes this common mode into every hidden layer: units saturate, images
//! can no longer be told apart, and learning stands still until the output bias knows how often each
//! class comes. Each run is a rule and what is done about that:
//!
//! - `centred`: hidden layers learn from the error without its mean over the batch,
//! - `prior`: the output bias starts from the shares of the classes,
//! - `rate`: the output layer learns faster,
//! - `aligned`: the feedback matrices start along the weights they stand in for.
//!
//! The example draws, over the steps, the angle to backpropagation and the participation, both as
//! means over the hidden layers, and the test error. With `--data` it follows experiment E1 of
//! DFA-Stall (Kempner Institute 2026): MNIST, 50,000 images to learn from, 2,048 others to test.

#[path = "common/axes.rs"]
mod axes;
#[path = "common/bands.rs"]
mod bands;
mod common;
#[path = "common/counts.rs"]
mod counts;
#[path = "common/folders.rs"]
mod folders;
#[path = "common/learned.rs"]
mod learned;

use std::{
    fmt,
    io::{self, Write},
    ops::Range,
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
};

use clap::Parser;
use common::{
    Result, Split,
    canvas::{self, Area, Drawn},
};
use feedback_alignment::{
    Diagnosis, Diagnostics, Error, FeedbackInit, FeedbackRule, Init, LayerDiagnosis, Loss, Network,
    Sgd, Signal, Threshold, Trainer,
    data::idx,
    rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus},
};
use indicatif::ProgressBar;
use plotters::prelude::*;

/// Shows how deep networks stall at the start of direct feedback, and what helps. Prints a table and draws
/// angle, participation and test error over the steps.
#[derive(Parser)]
struct Args {
    /// Runs, separated by commas: a learning rule, and with `+` one or more of centred, prior,
    /// rate and aligned
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "dfa,dfa+centred,dfa+prior,dfa+rate,dfa+aligned,bp"
    )]
    rules: Vec<Arm>,

    /// `+centred` centres only while the common mode of the error exceeds this share
    #[arg(long, default_value_t = 0.0)]
    centred: f64,

    /// What `+rate` multiplies the learning rate of the output layer by
    #[arg(long, default_value_t = 10.0)]
    rate: f64,

    /// Folder with the four files of MNIST; without it the small digits are learned
    #[arg(long)]
    data: Option<PathBuf>,

    /// Units of the hidden layers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "100,100,100", value_parser = counts::at_least_one)]
    hidden: Vec<usize>,

    /// Training steps of each run
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,

    /// Steps from one look inside to the next
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,

    /// Samples of a step, drawn at random
    #[arg(long, default_value_t = 128, value_parser = counts::at_least_one)]
    batch_size: usize,

    /// Learning rate of plain gradient descent
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,

    /// Seed of the weights, the feedback matrices and the samples of the steps
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// How many seeds, counted from --seed; the plot shows their mean, in a band from the smallest to the
    /// largest
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,

    /// SVG file to draw into
    #[arg(long, default_value = "target/stall.svg")]
    plot: PathBuf,
}

/// A rule and what is done about the stall.
#[derive(Clone)]
struct Arm {
    name: String,
    rule: FeedbackRule,
    cures: Vec<Cure>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cure {
    Centred,
    Prior,
    Rate,
    Aligned,
}

impl FromStr for Arm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split('+');
        let rule: FeedbackRule = parts.next().unwrap_or_default().parse()?;
        let cure = |name| match name {
            "centred" => Ok(Cure::Centred),
            "prior" => Ok(Cure::Prior),
            "rate" => Ok(Cure::Rate),
            "aligned" => Ok(Cure::Aligned),
            _ => Err(Error::UnknownName {
                what: "cure",
                found: name.to_owned(),
                expected: "centred, prior, rate, aligned".into(),
            }),
        };
        let cures = parts.map(cure).collect::<Result<_, _>>()?;
        let name = format!("{rule}{}", &text[text.find('+').unwrap_or(text.len())..]);
        Ok(Self { name, rule, cures })
    }
}

/// What was found after so many steps.
struct Look {
    step: u64,
    inside: Diagnosis,
    /// Share of test samples put into the wrong class, in percent.
    test_error: f64,
    test_loss: f64,
}

/// One arm from one seed.
struct Run {
    name: String,
    seed: u64,
    looks: Vec<Look>,
}

fn main() -> ExitCode {
    common::exit(compare(&Args::parse()))
}

fn compare(args: &Args) -> Result<()> {
    let data = load(args)?;
    let inputs = data.train.features();
    let network = |seed| network(args, seed, inputs);
    let mut out = io::stdout().lock();
    let (train, test) = (data.train.len(), data.test.len());
    writeln!(out, "Network {}, {train} digits to learn from, {test} to test", network(args.seed)?)?;
    let bar = common::progress(args.steps / args.every * args.rules.len() as u64 * args.seeds)?;
    let mut runs = Vec::new();
    for arm in &args.rules {
        for seed in (0..args.seeds).map(|index| args.seed.wrapping_add(index)) {
            runs.push(learn(network(seed)?, (arm, seed), args, &data, &bar)?);
        }
    }
    bar.finish_and_clear();
    writeln!(out, "\n{}", Table(&runs))?;
    canvas::save(&args.plot, (1340, 440), |sheet| draw(&runs, sheet))?;
    writeln!(out, "Plot over the steps: {}", args.plot.display())?;
    runs.iter().try_for_each(Run::require_learned)
}

fn load(args: &Args) -> Result<Split> {
    let Some(folder) = &args.data else { return common::digits() };
    let mnist = folders::load(folder, folders::MNIST, |it| idx::load_dir::<f32>(it))?.train;
    let part = |range: Range<usize>| mnist.subset(&range.collect::<Vec<_>>());
    Ok(Split { train: part(0..50_000)?, test: part(50_000..52_048)? })
}

/// Tanh layers, then ten outputs: one for each digit.
fn network(args: &Args, seed: u64, inputs: usize) -> feedback_alignment::Result<Network<f32>> {
    let mut network = Network::builder(inputs).init(Init::GlorotUniform).seed(seed);
    for &units in &args.hidden {
        network = network.dense(units).tanh();
    }
    network.dense(10).build()
}

fn trainer(
    network: Network<f32>,
    (arm, seed): (&Arm, u64),
    args: &Args,
    data: &Split,
) -> feedback_alignment::Result<Trainer<f32>> {
    let output = network.layer_count() - 1;
    let mut builder = Trainer::builder(network)
        .rule(arm.rule)
        .feedback_init(FeedbackInit::Normal { std: 1.0 })
        .loss(Loss::LogisticCrossEntropy)
        .optimizer(Sgd { learning_rate: args.learning_rate, ..Sgd::default() })
        .seed(seed);
    for cure in &arm.cures {
        builder = match cure {
            Cure::Centred => builder.signal(Signal::ErrorCentred(Threshold::new(args.centred)?)),
            Cure::Prior => builder.prior(data.train.mean_target(10)?),
            Cure::Rate => builder.rate_factor(output, args.rate),
            Cure::Aligned => builder.aligned(),
        };
    }
    builder.build()
}

/// Trains the network and looks inside from time to time, over the same samples each time.
fn learn(
    network: Network<f32>,
    (arm, seed): (&Arm, u64),
    args: &Args,
    data: &Split,
    bar: &ProgressBar,
) -> Result<Run> {
    const SEEN: usize = 256;
    let mut diagnostics = Diagnostics::new(&network)?;
    let mut trainer = trainer(network, (arm, seed), args, data)?;
    let seen = data.train.subset(&(0..SEEN.min(data.train.len())).collect::<Vec<_>>())?;
    let seen_inputs = seen.inputs();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut looks = Vec::new();
    for step in 0..=args.steps {
        if step.is_multiple_of(args.every) || step == args.steps {
            let test = trainer.evaluate(&data.test)?;
            let test_error = test.error_rate.map_or(f64::NAN, |rate| 100.0 * rate);
            let inside = diagnostics.observe(&trainer, &seen_inputs, seen.targets())?;
            looks.push(Look { step, inside, test_error, test_loss: test.loss });
            bar.set_message(format!("{:<11}  test error {test_error:.2} %", arm.name));
            bar.inc(1);
        }
        if step < args.steps {
            let draw = |_| rng.random_range(0..data.train.len());
            let drawn: Vec<usize> = (0..args.batch_size).map(draw).collect();
            let batch = data.train.subset(&drawn)?;
            trainer.step(&batch.inputs(), batch.targets())?;
        }
    }
    Ok(Run { name: arm.name.clone(), seed, looks })
}

impl Look {
    /// The mean of something over the hidden layers that have it.
    fn mean(&self, of: impl Fn(&LayerDiagnosis) -> Option<f64>) -> Option<f64> {
        let found: Vec<f64> = self.inside.hidden().iter().filter_map(of).collect();
        (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
    }
}

impl Run {
    fn require_learned(&self) -> Result<()> {
        let [first, .., last] = &self.looks[..] else { return Ok(()) };
        learned::require(&self.name, [first.test_loss, last.test_loss])
    }

    /// The first step after which at most this error is left, in percent.
    fn reaches(&self, error: f64) -> Option<u64> {
        self.looks.iter().find(|look| look.test_error <= error).map(|look| look.step)
    }

    /// The largest cosine between samples in the last hidden layer.
    fn largest_cosine(&self) -> Option<f64> {
        let last = self.looks.iter().filter_map(|look| look.inside.hidden().last()?.sample_cosine);
        last.reduce(f64::max)
    }

    fn least_participation(&self) -> Option<f64> {
        let all = self.looks.iter().flat_map(|look| look.inside.hidden());
        all.filter_map(|row| row.participation).reduce(f64::min)
    }
}

/// A row for each run.
struct Table<'a>(&'a [Run]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|run| run.name.len()).max().unwrap_or(0).max(4);
        let head =
            "seed   test error   steps to 50 %   to 80 %   least participation   largest cosine";
        write!(f, "{:<width$}   {head}", "rule")?;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".into());
        for run in self.0 {
            let error = run.looks.last().map_or(f64::NAN, |look| look.test_error);
            let steps = |error| or_dash(run.reaches(error).map(|step| step.to_string()));
            let percent = |share: f64| format!("{:.1} %", 100.0 * share);
            let participation = or_dash(run.least_participation().map(percent));
            let cosine = or_dash(run.largest_cosine().map(|cosine| format!("{cosine:.3}")));
            write!(f, "\n{:<width$} {:>6}", run.name, run.seed)?;
            write!(f, " {error:>10.2} % {:>15}", steps(50.0))?;
            write!(f, " {:>9} {participation:>21} {cosine:>16}", steps(20.0))?;
        }
        writeln!(f)
    }
}

fn draw<'a>(runs: &[Run], sheet: &Area<'a>) -> Drawn<'a> {
    let sheet = sheet
        .margin(8, 0, 0, 0)
        .titled("The start of training under direct feedback", ("sans-serif", 22))?;
    let arms: Vec<&[Run]> = runs.chunk_by(|one, other| one.name == other.name).collect();
    let key = arms.iter().enumerate();
    let key = key.map(|(number, seeds)| (seeds[0].name.clone(), canvas::line(number)));
    let key: Vec<_> = key.chain(bands::key(arms[0].len())).collect();
    let panels = canvas::with_key(&sheet, &key)?.split_evenly((1, 3));
    let angle = |look: &Look| look.mean(|row| row.delta_angle);
    let title = "Angle to backpropagation, mean of hidden layers";
    draw_panel(&arms, title, ("angle", "°"), angle, &panels[0])?;
    let share = |look: &Look| look.mean(|row| row.participation).map(|share| 100.0 * share);
    let title = "Units that can learn, mean of hidden layers";
    draw_panel(&arms, title, ("participation", " %"), share, &panels[1])?;
    let error = |look: &Look| Some(look.test_error);
    draw_panel(&arms, "Test images in the wrong class", ("test error", " %"), error, &panels[2])
}

fn draw_panel<'a>(
    arms: &[&[Run]],
    title: &str,
    (quantity, unit): (&str, &str),
    of: impl Fn(&Look) -> Option<f64>,
    panel: &Area<'a>,
) -> Drawn<'a> {
    let looks = || arms.iter().copied().flatten().flat_map(|run| &run.looks);
    let steps = looks().map(|look| look.step).max().unwrap_or(1);
    let largest = looks().filter_map(&of).fold(0.0, f64::max);
    let top = if largest > 100.0 { 185.0 } else { 105.0 }; // Room between 100 and the title.
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(70)
        .build_cartesian_2d(0..steps, 0.0..top)?;

    axes::draw(&mut chart, ("step", 4), (quantity, unit, 6))?;

    for (number, seeds) in arms.iter().enumerate() {
        let points =
            |run: &Run| run.looks.iter().filter_map(|look| Some((look.step, of(look)?))).collect();
        let seeds: Vec<_> = seeds.iter().map(points).collect();
        bands::draw(&mut chart, &seeds, |number| number, canvas::line(number))?;
    }
    Ok(())
}
