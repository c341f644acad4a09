//! Learning rules side by side on real handwritten digits.
//!
//! ```text
//! cargo run --release --example digits
//! cargo run --release --example digits -- --rule bp,dfa --hidden 200,200,200 --epochs 40
//! cargo run --release --example digits -- --rule all
//! cargo run --release --example digits -- --seeds 5 --plot docs/digits.svg
//! ```
//!
//! Every rule trains the same network from the same initial weights, with the same optimiser, on
//! the same 1,297 images of the UCI digits; 500 others are the test. Backpropagation sends the
//! error back through the transposed weights. Feedback alignment and its direct and indirect kin
//! send it through matrices that are random and never change, and the network learns all the same. The example prints how well,
//! and draws the test error after each epoch.

#[path = "common/bands.rs"]
mod bands;
mod common;
#[path = "common/counts.rs"]
mod counts;
#[path = "common/curves.rs"]
mod curves;
#[path = "common/learned.rs"]
mod learned;
#[path = "common/rules.rs"]
mod rules;
#[path = "common/runs.rs"]
mod runs;
#[path = "common/spread.rs"]
mod spread;
#[path = "common/training.rs"]
mod training;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use common::{Result, Split};
use feedback_alignment::{Adam, FeedbackRule, Loss, Network, Trainer};
use indicatif::ProgressBar;
use rules::Rules;
use runs::Run;

/// Shows learning rules side by side: each trains the same network on handwritten digits. Prints a table
/// of errors and draws the test error per epoch.
#[derive(Parser)]
struct Args {
    /// Learning rules, separated by commas, or `all`
    #[arg(long, value_delimiter = ',', default_value = "bp,fa,dfa,ifa")]
    rule: Vec<Rules>,

    /// Units of the hidden layers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "100,100", value_parser = counts::at_least_one)]
    hidden: Vec<usize>,

    /// How often every training image is seen
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,

    /// Seed of the weights, the feedback matrices and the order of the images
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// How many seeds, counted from --seed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,

    /// SVG file to draw the test error per epoch into
    #[arg(long, default_value = "target/digits.svg")]
    plot: PathBuf,
}

fn main() -> ExitCode {
    common::exit(compare(&Args::parse()))
}

fn compare(args: &Args) -> Result<()> {
    let data = common::digits()?;
    let seeds = (0..args.seeds).map(|index| args.seed.wrapping_add(index));
    let networks: Result<Vec<_>, _> =
        seeds.clone().map(|seed| network(args, seed, data.train.features())).collect();
    let networks = networks?;
    let (train, test) = (data.train.len(), data.test.len());
    let network = &networks[0];
    writeln!(io::stdout(), "Network {network}, {train} digits to learn from, {test} to test")?;
    let rules: Vec<_> = args.rule.iter().flat_map(|Rules(rules)| rules.iter().copied()).collect();
    let bar = common::progress(args.epochs * args.seeds * rules.len() as u64)?;
    let each =
        rules.iter().flat_map(|&rule| seeds.clone().zip(&networks).map(move |it| (rule, it)));
    let runs: Vec<Result<Run>> = each
        .map(|(rule, (seed, network))| learn(network.clone(), rule, seed, args, &data, &bar))
        .collect();
    bar.finish_and_clear();
    runs::report(runs, "Test error on handwritten digits", &args.plot)
}

/// Tanh layers, then ten outputs: one for each digit.
fn network(args: &Args, seed: u64, inputs: usize) -> feedback_alignment::Result<Network<f32>> {
    let mut network = Network::builder(inputs).seed(seed);
    for &units in &args.hidden {
        network = network.dense(units).tanh();
    }
    network.dense(10).build()
}

/// Trains the network by one rule: nothing but the rule differs from call to call.
fn learn(
    network: Network<f32>,
    rule: FeedbackRule,
    seed: u64,
    args: &Args,
    data: &Split,
    bar: &ProgressBar,
) -> Result<Run> {
    let trainer = Trainer::builder(network)
        .rule(rule)
        .loss(Loss::SoftmaxCrossEntropy)
        .optimizer(Adam::default())
        .batch_size(32)
        .seed(seed)
        .build()?;
    training::train(trainer, data, args.epochs, |_, _, test| {
        bar.set_message(format!("{rule:<7}  test {test}"));
        bar.inc(1);
        Ok(())
    })
}
