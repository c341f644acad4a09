//! Early stopping with the best network, a learning rate that falls on a plateau, and a log: what most
//! training programs need again and again, on one page.
//!
//! ```text
//! cargo run --release --example early_stopping
//! cargo run --release --example early_stopping -- --rule fa --patience 20 --log run.csv
//! ```
//!
//! A part of the digits that may be learned from is held out, each class by its share. After every epoch
//! the loss on it decides: the best network so far is kept, the rate falls where there is no progress, and
//! training ends where that does not help. The test images are seen once, at the end.

#[allow(dead_code)] // Nothing is drawn here.
mod common;
#[path = "common/learned.rs"]
mod learned;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use common::{Result, Split};
use feedback_alignment::{
    Adam, Dataset, EarlyStopping, FeedbackRule, Log, Network, Plateau, Trainer,
};

/// Shows early stopping: keeps the network that does best on held-out digits, lowers the learning rate
/// where progress ends, logs every epoch, saves the best network and tests it.
#[derive(Parser)]
struct Args {
    /// Learning rule
    #[arg(long, default_value_t = FeedbackRule::Dfa)]
    rule: FeedbackRule,

    /// Epochs at most
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,

    /// Training images that are held out to decide
    #[arg(long, default_value_t = 297)]
    held_out: usize,

    /// Epochs without progress after which training ends; the learning rate falls after half as many
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,

    /// Learning rate at the start
    #[arg(long, default_value_t = 3e-3)]
    learning_rate: f64,

    /// Seed of the weights, the feedback matrices, the order of the images and which are held out
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// CSV file with a line for each epoch
    #[arg(long, value_name = "FILE", default_value = "target/early_stopping.csv")]
    log: PathBuf,

    /// Where the best network is saved
    #[arg(long, value_name = "FILE", default_value = "target/early_stopping.safetensors")]
    network: PathBuf,
}

fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let Split { train, test } = common::digits()?;
    let (train, held_out) = train
        .split_stratified(args.held_out, args.seed)
        .map_err(|error| format!("--held-out: {error}, here {}", train.len()))?;
    let mut trainer = trainer(args, train.features())?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}\n", trainer.summary()?)?;

    let before = trainer.evaluate(&held_out)?.loss;
    let best = learn(&mut trainer, &train, &held_out, args)?;
    let score = best.best_score().ok_or("no epoch was made")?;
    let network = best.into_best().ok_or("no epoch was made")?;
    writeln!(out, "{} epochs, best loss on held-out digits {score:.4}", trainer.epochs())?;
    writeln!(out, "last network  test {}", trainer.evaluate(&test)?)?;
    *trainer.network_mut() = network;
    writeln!(out, "best network  test {}", trainer.evaluate(&test)?)?;
    make_folder(&args.network)?;
    trainer.network().save(&args.network)?;
    writeln!(out, "Log: {}, best network: {}", args.log.display(), args.network.display())?;
    learned::require(&args.rule.to_string(), [before, score])
}

fn trainer(args: &Args, inputs: usize) -> feedback_alignment::Result<Trainer<f32>> {
    let network = Network::builder(inputs).dense(100).tanh().dense(100).tanh().dense(10);
    Trainer::builder(network.seed(args.seed).build()?)
        .rule(args.rule)
        .optimizer(Adam { learning_rate: args.learning_rate, ..Adam::default() })
        .batch_size(32)
        .seed(args.seed)
        .build()
}

/// Trains until the loss on what is held out no longer falls.
fn learn(
    trainer: &mut Trainer<f32>,
    train: &Dataset<f32>,
    held_out: &Dataset<f32>,
    args: &Args,
) -> Result<EarlyStopping<f32>> {
    make_folder(&args.log)?;
    let file = File::create(&args.log)
        .map_err(|error| format!("cannot write the log {}: {error}", args.log.display()))?;
    let mut log = Log::csv(file);
    let mut stopping = EarlyStopping::new(args.patience)?;
    let mut plateau =
        Plateau::new(args.learning_rate, args.patience.div_ceil(2))?.with_factor(0.3)?;
    while !stopping.is_finished() && trainer.epochs() < args.epochs {
        let epoch = trainer.epoch(train)?;
        let evaluation = trainer.evaluate(held_out)?;
        log.record(&epoch, Some(&evaluation), None)?;
        stopping.observe(trainer.network(), evaluation.loss)?;
        if let Some(rate) = plateau.observe(evaluation.loss)? {
            trainer.set_learning_rate(rate)?;
        }
    }
    Ok(stopping)
}

fn make_folder(of: &Path) -> Result<()> {
    let Some(folder) = of.parent() else { return Ok(()) };
    fs::create_dir_all(folder)
        .map_err(|error| format!("cannot make the folder {}: {error}", folder.display()).into())
}
