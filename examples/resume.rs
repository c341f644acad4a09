//! A training run that is interrupted, saved, loaded and goes on, beside one that never was: they
//! end with the same bits.
//!
//! ```text
//! cargo run --release --example resume
//! cargo run --release --example resume -- --rule ifa --epochs 30 --interrupt 7 --step 20
//! ```
//!
//! What makes it hard to go on is in it: dropout, shuffled batches, an optimiser with moments, a
//! learning rate that changes from step to step, feedback matrices that must stay what they are.
//! The run is even interrupted in the middle of an epoch, for which it makes its steps itself.

#[allow(dead_code)] // Neither table nor plot is drawn here.
mod common;

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use common::{Result, Split};
use feedback_alignment::{Adam, Decay, FeedbackRule, Network, Trainer};

/// Samples in a step.
const BATCH: usize = 32;

/// Shows that a training run that is interrupted in the middle of an epoch goes on from its checkpoint as
/// if nothing had been, to the bit.
#[derive(Parser)]
struct Args {
    /// Learning rule
    #[arg(long, default_value = "dfa")]
    rule: FeedbackRule,

    /// Epochs in all
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,

    /// Epoch in which the run is interrupted, counted from 1
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    interrupt: u64,

    /// Step of that epoch before which it happens, counted from 1
    #[arg(long, default_value_t = 17, value_parser = clap::value_parser!(u64).range(1..))]
    step: u64,

    /// Seed of weights, feedback matrices, dropout and the order of the images
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Where the checkpoint is saved
    #[arg(long, default_value = "target/resume.safetensors")]
    checkpoint: PathBuf,
}

fn main() -> ExitCode {
    common::exit(compare(&Args::parse()))
}

fn compare(args: &Args) -> Result<()> {
    let data = common::digits()?;
    let per_epoch = data.train.len().div_ceil(BATCH) as u64;
    if args.interrupt > args.epochs || args.step > per_epoch {
        let epochs = args.epochs;
        return Err(format!("there are {epochs} epochs of {per_epoch} steps to interrupt: give --interrupt and --step \
             of one of them").into());
    }
    let before = (args.interrupt - 1) * per_epoch + args.step - 1;

    let mut out = io::stdout().lock();
    let mut whole = trainer(args, data.train.features())?;
    writeln!(out, "{}, {} digits, {}", whole.network(), data.train.len(), args.rule)?;
    run(&mut whole, args, &data, |_| Ok(None))?;

    let mut resumed = trainer(args, data.train.features())?;
    run(&mut resumed, args, &data, |trainer| {
        let steps = trainer.optimizer().steps();
        if steps != before {
            return Ok(None);
        }
        args.checkpoint.parent().map_or(Ok(()), fs::create_dir_all)?;
        trainer.save(&args.checkpoint)?;
        let bytes = fs::metadata(&args.checkpoint)?.len();
        let path = args.checkpoint.display();
        writeln!(out, "Interrupted after {steps} steps: {bytes} bytes in {path}")?;
        // Nothing is left of the old trainer: this might be another process on another day.
        Ok(Some(Trainer::load(&args.checkpoint)?))
    })?;

    for (name, trainer) in [("never interrupted", &mut whole), ("interrupted", &mut resumed)] {
        writeln!(out, "{name:<17}  test {}", trainer.evaluate(&data.test)?)?;
    }
    if resumed.network() != whole.network() || resumed.optimizer() != whole.optimizer() {
        return Err("the two runs differ: this should be impossible".into());
    }
    let parameters = whole.network().parameter_count();
    writeln!(out, "All {parameters} parameters and their moments agree to the bit.")?;
    Ok(())
}

fn trainer(args: &Args, inputs: usize) -> Result<Trainer<f32>> {
    let network = Network::builder(inputs).seed(args.seed);
    let network = network.dense(100).tanh().dropout(0.2).dense(100).tanh().dropout(0.2).dense(10);
    let builder = Trainer::builder(network.build()?).rule(args.rule).optimizer(Adam::default());
    let decay = Decay::Exponential { every: 200, factor: 0.8 };
    Ok(builder.schedule(decay).batch_size(BATCH).seed(args.seed).build()?)
}

/// Trains by single steps; where `interrupt` returns a trainer, it takes the place of the old one.
fn run(
    trainer: &mut Trainer<f32>,
    args: &Args,
    data: &Split,
    mut interrupt: impl FnMut(&Trainer<f32>) -> Result<Option<Trainer<f32>>>,
) -> Result<()> {
    for epoch in 0..args.epochs {
        // The order of an epoch is a matter of its number: here it is drawn again at any time.
        for batch in data.train.batches(BATCH, args.seed, epoch)? {
            if let Some(other) = interrupt(trainer)? {
                *trainer = other;
            }
            trainer.step(batch.inputs(), batch.targets())?;
        }
    }
    Ok(())
}
