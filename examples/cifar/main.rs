//! Convolutional networks under the learning rules.
//!
//! ```text
//! cargo run --release --example cifar
//! cargo run --release --example cifar -- --data cifar-10-batches-bin --net conv --rule dfa
//! cargo run --release --example cifar -- --synthetic 2000 --net conv --rule all --epochs 1
//! cargo run --release --example cifar -- --net resnet20 --epochs 3 --rule bp,dfa --angles
//! ```
//!
//! With `--data` it trains one of Nøkland's networks on CIFAR-10, his convolutional net on whitened
//! images or the fully connected ones on pixels from 0 to 1, or one of BioTorch's, LeNet and
//! ResNet-20, on standardised ones (`nets.rs` says how). Without, it trains a small convolutional
//! net on the 8×8 digits that it carries, or ResNet-20 if asked. With `--synthetic N` the images are
//! N random ones of 3×32×32 with a pattern for each class: nothing to learn from, but a way to see a
//! net work and to time it.

#[path = "../common/bands.rs"]
mod bands;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/curves.rs"]
mod curves;
mod data;
#[path = "../common/folders.rs"]
mod folders;
#[path = "../common/glorot.rs"]
mod glorot;
#[path = "../common/learned.rs"]
mod learned;
#[path = "../common/lines.rs"]
#[allow(dead_code)] // This example does not continue runs from checkpoints, as others do.
mod lines;
mod nets;
#[path = "../common/pixels.rs"]
mod pixels;
mod record;
#[path = "../common/rules.rs"]
mod rules;
#[path = "../common/runs.rs"]
mod runs;
#[path = "../common/spread.rs"]
mod spread;
#[path = "../common/training.rs"]
mod training;
#[path = "../common/verbose.rs"]
mod verbose;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use common::{Result, Split};
use feedback_alignment::{
    Error, FeedbackRule, Trainer,
    data::{Augmentation, cifar},
};
use lines::End;
use nets::Net;
use record::{Header, Observer};
use rules::Rules;
use runs::Run;

/// Shows convolutional networks under the learning rules. Prints a line after every epoch and draws the
/// test error.
#[derive(Parser)]
struct Args {
    /// Folder with the binary files of CIFAR-10, plain or .gz
    #[arg(long, value_name = "DIR", conflicts_with = "synthetic")]
    data: Option<PathBuf>,

    /// Train on so many synthetic images of 3×32×32 instead
    #[arg(long, value_name = "N")]
    synthetic: Option<usize>,

    /// Learn from the first so many images only
    #[arg(long, value_name = "N")]
    images: Option<usize>,

    /// Network; small by default, or conv where there are images of 3×32×32
    #[arg(long)]
    net: Option<Net>,

    /// Learning rules separated by commas, such as bp,fa,dfa,ifa, or all
    #[arg(long, value_delimiter = ',', default_value = "bp,fa,dfa,ifa")]
    rule: Vec<Rules>,

    /// Learning rate [default: that of the network's source, for each rule]
    #[arg(long)]
    rate: Option<f64>,

    /// What the learning rate of the hidden layers is multiplied by: 1e-12 keeps their weights as drawn, the
    /// control for nets with batch normalisation, which the rule shallow cannot train
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    hidden_rate: f64,

    /// How often every training image is seen
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,

    /// Seed of the weights, the feedback matrices and the order of the images
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Measure the angle between each hidden layer's delta and backpropagation's after every epoch
    #[arg(long)]
    angles: bool,

    /// Folder for a file of JSON lines of each run, one after every epoch
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// SVG file to draw the test error per epoch into
    #[arg(long, default_value = "target/cifar.svg")]
    plot: PathBuf,
}

fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let net = args.net.unwrap_or(if args.on_digits() { Net::Small } else { Net::Conv });
    if args.on_digits() && net.needs_large_images() {
        let name = net.name();
        let hint = "reads images of 3×32×32: give --data DIR or --synthetic N with it";
        return Err(format!("--net {name} {hint}").into());
    }
    let (name, mut data) = args.load(net)?;
    if let Some(count) = args.images {
        data = data::first(data, count)?;
    }
    let (train, test) = (data.train.len(), data.test.len());
    writeln!(io::stdout(), "{name}: {train} images to learn from, {test} to test")?;
    let rules = args.rule.iter().flat_map(|rules| &rules.0);
    let runs = rules.map(|&rule| args.learn(net, rule, name, &data));
    runs::report(runs, &format!("Test error on {name}"), &args.plot)
}

impl Args {
    fn on_digits(&self) -> bool {
        self.data.is_none() && self.synthetic.is_none()
    }

    /// The data and what to call them.
    fn load(&self, net: Net) -> Result<(&'static str, Split)> {
        if let Some(folder) = &self.data {
            return Ok(("CIFAR-10", data::cifar10(folder, net.prepared())?));
        }
        if let Some(count) = self.synthetic {
            return Ok(("synthetic images", data::synthetic(count, self.seed)?));
        }
        Ok(("the UCI digits", data::digits()?))
    }

    /// Trains a new network by one rule and prints a line after every epoch.
    fn learn(&self, net: Net, rule: FeedbackRule, name: &str, data: &Split) -> Result<Run> {
        let shape = if self.on_digits() { (1, 8, 8) } else { cifar::SHAPE };
        let mut builder = net.trainer(shape, rule, self.rate, self.seed)?;
        if self.data.is_some() && net.is_biotorch() {
            builder = builder.augmentation(Augmentation::default());
        }
        let mut trainer = builder.build()?;
        for layer in 0..trainer.network().layer_count() - 1 {
            trainer.set_rate_factor(layer, self.hidden_rate)?;
        }
        let header = self.header(net, rule, name, data, &trainer);
        let (angles, out) = (self.angles, self.out.as_deref());
        let mut observer = Observer::new(&trainer, &data.train, angles, out, header)?;
        let run = verbose::train_aloud(trainer, data, self.epochs, |trainer, epoch, test| {
            observer.after(trainer, epoch, test)
        });
        match &run {
            Ok(_) => observer.end(End::Epochs)?,
            Err(error) => {
                let overflow = error.downcast_ref::<Error>();
                if matches!(overflow, Some(Error::NonFiniteLoss { .. } | Error::NonFinite { .. })) {
                    observer.end(End::DoesNotConverge)?;
                }
            }
        }
        run
    }

    fn header(
        &self,
        net: Net,
        rule: FeedbackRule,
        name: &str,
        data: &Split,
        trainer: &Trainer<f32>,
    ) -> Header {
        Header {
            net: net.name(),
            rule: rule.to_string(),
            rate: self.rate.unwrap_or(net.rate(rule)),
            hidden_rate: (self.hidden_rate != 1.0).then_some(self.hidden_rate),
            seed: self.seed,
            data: name.into(),
            images: data.train.len(),
            parameters: trainer.network().parameter_count(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}
