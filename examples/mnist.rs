//! Nøkland's experiment on MNIST (2016, table 1), with every choice on the command line.
//!
//! ```text
//! cargo run --release --example mnist
//! cargo run --release --example mnist -- --data data/mnist
//! cargo run --release --example mnist -- --data data/mnist --rule all --loss softmax
//! cargo run --release --example mnist -- --help
//! ```
//!
//! The defaults are the paper's: two hidden layers of 800 tanh units, logistic outputs, RMSprop at
//! 1e-4, batches of 64, and weights that start at zero for FA and DFA. Twenty epochs of DFA take
//! a few minutes on two cores. Without `--data` all four rules learn the small digits that the
//! examples carry, in less than one.

#[path = "common/bands.rs"]
mod bands;
mod common;
#[path = "common/counts.rs"]
mod counts;
#[path = "common/curves.rs"]
mod curves;
#[path = "common/folders.rs"]
mod folders;
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
#[path = "common/verbose.rs"]
mod verbose;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
};

use clap::{Parser, ValueEnum};
use common::{Result, Split};
use feedback_alignment::{
    Activation, Adam, AdamW, Error, FeedbackInit, FeedbackRule, Init, Loss, Network, Optimizer,
    RmsProp, Sgd, Trainer, data::idx,
};
use rules::Rules;
use runs::Run;

/// Shows Nøkland's experiment on MNIST with every choice on the command line. Prints a line after every
/// epoch and draws the test error.
#[derive(Parser)]
struct Args {
    /// Folder with the four files of MNIST, plain or .gz; without it, the small UCI digits serve
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Learning rules separated by commas, such as bp,fa,dfa,ifa, or all [default: dfa with --data,
    /// bp,fa,dfa,ifa without]
    #[arg(long, value_delimiter = ',')]
    rule: Vec<Rules>,

    /// Units of the hidden layers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "800,800", value_parser = counts::at_least_one)]
    hidden: Vec<usize>,

    /// identity, tanh, logistic, relu, leaky-relu, elu, softplus or gelu
    #[arg(long, default_value_t = Activation::Tanh)]
    activation: Activation,

    /// softmax, logistic or mse
    #[arg(long, default_value_t = Loss::LogisticCrossEntropy)]
    loss: Loss,

    /// What turns gradients into steps
    #[arg(long, value_enum, default_value_t = OptimizerName::Rmsprop)]
    optimizer: OptimizerName,

    /// Learning rate [default: 1e-4 for rmsprop, 1e-3 for adam and adamw, 0.1 for sgd]
    #[arg(long, allow_negative_numbers = true)] // The library refuses them in clearer words.
    learning_rate: Option<f64>,

    /// Images in a training step
    #[arg(long, default_value_t = 64, value_parser = counts::at_least_one)]
    batch_size: usize,

    /// How often every training image is seen [default: 20 with --data, 50 without]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,

    /// What the weights start from: paper (zero with tanh or logistic units under FA, DFA and other rules
    /// that can learn from zeros, else fan-in),
    /// fan-in, glorot-uniform, glorot-normal, he-uniform, he-normal, lecun-uniform, lecun-normal or zeros
    #[arg(long, default_value = "paper")]
    init: Start,

    /// What the feedback matrices are drawn from: nokland, lillicrap, frenkel, lighton or crafton
    #[arg(long, default_value_t = FeedbackInit::Nokland)]
    feedback: FeedbackInit,

    /// Seed of the weights, the feedback matrices and the order of the images
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// SVG file to draw the test error per epoch into
    #[arg(long, value_name = "FILE", default_value = "target/mnist.svg")]
    plot: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum OptimizerName {
    Sgd,
    Rmsprop,
    Adam,
    Adamw,
}

/// What weights start from, `None` for the paper's own choice by rule.
#[derive(Clone, Copy)]
struct Start(Option<Init>);

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "paper" => Ok(Self(None)),
            _ => text
                .parse()
                .map(|init| Self(Some(init)))
                .map_err(|error: Error| format!("{error}, paper")),
        }
    }
}

fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let (name, data) = args.load()?;
    let mut out = io::stdout();
    writeln!(
        out,
        "{name}: {} images to learn from, {} to test",
        data.train.len(),
        data.test.len()
    )?;
    let runs = args.rules().into_iter().map(|rule| args.learn(rule, &data));
    runs::report(runs, &format!("Test error on {name}"), &args.plot)
}

impl Args {
    /// The data and what to call them.
    fn load(&self) -> Result<(&'static str, Split)> {
        if let Some(folder) = &self.data {
            let idx::Mnist { train, test } =
                folders::load(folder, folders::MNIST, |it| idx::load_dir(it))?;
            return Ok(("MNIST", Split { train, test }));
        }
        let hint = "No --data DIR given: the small digits stand in for MNIST (see --help)";
        writeln!(io::stdout(), "{hint}")?;
        Ok(("the UCI digits", common::digits()?))
    }

    fn rules(&self) -> Vec<FeedbackRule> {
        match (&self.rule[..], &self.data) {
            ([], Some(_)) => vec![FeedbackRule::Dfa],
            ([], None) => FeedbackRule::nokland().into_iter().collect(),
            (rules, _) => rules.iter().flat_map(|rules| rules.0.clone()).collect(),
        }
    }

    fn epochs(&self) -> u64 {
        self.epochs.unwrap_or(if self.data.is_some() { 20 } else { 50 })
    }

    /// Trains a new network by one rule and prints a line after every epoch.
    fn learn(&self, rule: FeedbackRule, data: &Split) -> Result<Run> {
        let trainer = self.trainer(rule, data)?;
        verbose::train_aloud(trainer, data, self.epochs(), |_, _, _| Ok(None))
    }

    fn trainer(&self, rule: FeedbackRule, data: &Split) -> Result<Trainer<f32>> {
        let classes = data.train.classes().ok_or("the images have no labels")?;
        let mut network = Network::builder(data.train.features());
        for &units in &self.hidden {
            network = network.dense(units).activation(self.activation);
        }
        let init = self.init.0.unwrap_or_else(|| Init::nokland(rule));
        let network = network.dense(classes).init(init).seed(self.seed).build()?;
        let trainer = Trainer::builder(network)
            .rule(rule)
            .feedback_init(self.feedback)
            .loss(self.loss)
            .optimizer(self.optimizer())
            .batch_size(self.batch_size)
            .seed(self.seed)
            .build()?;
        Ok(trainer)
    }

    fn optimizer(&self) -> Optimizer {
        let rate = |default| self.learning_rate.unwrap_or(default);
        let (sgd, rmsprop, adam) = (Sgd::default(), RmsProp::default(), Adam::default());
        let adam = Adam { learning_rate: rate(adam.learning_rate), ..adam };
        match self.optimizer {
            OptimizerName::Sgd => Sgd { learning_rate: rate(sgd.learning_rate), ..sgd }.into(),
            OptimizerName::Rmsprop => {
                RmsProp { learning_rate: rate(rmsprop.learning_rate), ..rmsprop }.into()
            }
            OptimizerName::Adam => adam.into(),
            OptimizerName::Adamw => AdamW { adam, ..AdamW::default() }.into(),
        }
    }
}
