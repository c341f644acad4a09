//! A whole run on MNIST: 784-800-800-10, until the test error is low enough. `epoch.py` beside it times it, process start to
//! end, in turns with other programs.
//!
//! ```text
//! cargo run --release --example epoch -- data/mnist --rule dfa --until 2 --epochs 30
//! ```

use std::path::PathBuf;

use clap::Parser;
use feedback_alignment::{
    Activation, FeedbackRule, Init, Loss, Network, Result, RmsProp, Trainer, data::idx,
};

/// Learns MNIST and prints epoch and test error in percent.
#[derive(Parser)]
struct Args {
    /// Folder with the four files of MNIST, plain or .gz
    data: PathBuf,

    /// Learning rule
    #[arg(long, default_value_t = FeedbackRule::Dfa)]
    rule: FeedbackRule,

    /// Test error in percent that ends the run
    #[arg(long, default_value_t = 0.0)]
    until: f64,

    /// Epochs at most
    #[arg(long, default_value_t = 1)]
    epochs: u64,

    /// Seed of the weights, the feedback matrices and the order of the images
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let idx::Mnist { train, test } = idx::load_dir::<f32>(&args.data)?;
    let network = Network::builder(train.features())
        .dense(800)
        .activation(Activation::Tanh)
        .dense(800)
        .activation(Activation::Tanh)
        .dense(10)
        .init(Init::FanIn)
        .seed(args.seed)
        .build()?;
    let mut trainer = Trainer::builder(network)
        .rule(args.rule)
        .loss(Loss::SoftmaxCrossEntropy)
        .optimizer(RmsProp::default())
        .batch_size(64)
        .seed(args.seed)
        .build()?;
    for number in 1..=args.epochs {
        trainer.epoch(&train)?;
        let percent = 100.0 * trainer.evaluate(&test)?.error_rate.unwrap_or(1.0);
        println!("{number} {percent:.2}");
        if percent <= args.until {
            break;
        }
    }
    Ok(())
}
