//! Convolutional networks under the four learning rules.
//!
//! ```text
//! cargo run --release --example cifar
//! cargo run --release --example cifar -- --data cifar-10-batches-bin --net conv --rule dfa
//! cargo run --release --example cifar -- --synthetic 2000 --net conv --rule all --epochs 1
//! ```
//!
//! With `--data` it trains one of Nøkland's networks on CIFAR-10: his convolutional net, on whitened
//! images, or the fully connected ones, on pixels from 0 to 1. Without, it trains a small
//! convolutional net on the 8×8 digits that it carries. With `--synthetic N` the images are N random
//! ones of 3×32×32 with a pattern for each class: nothing to learn from, but a way to see a net
//! work and to time it.

#[path = "common/bands.rs"]
mod bands;
mod common;
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
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use common::{Result, Split};
use feedback_alignment::{
    Adam, Conv2d, Dataset, FeedbackRule, Init, Loss, MaxPool2d, Network, NetworkBuilder, Optimizer,
    RmsProp, Scaling, Trainer,
    data::{Whitening, cifar},
    nalgebra::DMatrix,
    rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus},
};
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

    /// Network; small by default, or conv where there are images of 3×32×32
    #[arg(long)]
    net: Option<Net>,

    /// Learning rules separated by commas, such as bp,fa,dfa,ifa, or all
    #[arg(long, value_delimiter = ',', default_value = "bp,fa,dfa,ifa")]
    rule: Vec<Rules>,

    /// How often every training image is seen
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,

    /// Seed of the weights, the feedback matrices and the order of the images
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// SVG file to draw the test error per epoch into
    #[arg(long, default_value = "target/cifar.svg")]
    plot: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Net {
    /// Two small convolutions
    Small,
    /// Nøkland's: three convolutions of 96, 128 and 256 kernels, two layers of 2048 units
    Conv,
    /// Nøkland's, one layer of 1000 units
    #[value(name = "1x1000")]
    Shallow,
    /// Nøkland's, three layers of 1000 units
    #[value(name = "3x1000")]
    Deep,
}

fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let net = args.net.unwrap_or(if args.on_digits() { Net::Small } else { Net::Conv });
    if args.on_digits() && net == Net::Conv {
        let hint = "--net conv reads images of 3×32×32: give --data DIR or --synthetic N with it";
        return Err(hint.into());
    }
    let (name, data) = args.load(net)?;
    let (train, test) = (data.train.len(), data.test.len());
    writeln!(io::stdout(), "{name}: {train} images to learn from, {test} to test")?;
    let rules = args.rule.iter().flat_map(|rules| &rules.0);
    let runs: Result<Vec<Run>> = rules.map(|&rule| args.learn(net, rule, &data)).collect();
    runs::report(&runs?, &format!("Test error on {name}"), &args.plot)
}

impl Args {
    fn on_digits(&self) -> bool {
        self.data.is_none() && self.synthetic.is_none()
    }

    /// The data and what to call them.
    fn load(&self, net: Net) -> Result<(&'static str, Split)> {
        if let Some(folder) = &self.data {
            return Ok(("CIFAR-10", cifar10(folder, net)?));
        }
        if let Some(count) = self.synthetic {
            return Ok(("synthetic images", synthetic(count, self.seed)?));
        }
        let hint = "No --data DIR given: the small digits stand in for CIFAR-10 (see --help)";
        writeln!(io::stdout(), "{hint}")?;
        Ok(("the UCI digits", common::digits()?))
    }

    /// Trains a new network by one rule and prints a line after every epoch.
    fn learn(&self, net: Net, rule: FeedbackRule, data: &Split) -> Result<Run> {
        let shape = if self.on_digits() { (1, 8, 8) } else { cifar::SHAPE };
        let builder = net.build(Network::builder(shape)).dense(10).seed(self.seed);
        let small = net == Net::Small;
        let init = if small { Init::FanIn } else { Init::nokland(rule) };
        let network = builder.init(init).build()?;
        let trainer = Trainer::builder(network)
            .rule(rule)
            .loss(if small { Loss::SoftmaxCrossEntropy } else { Loss::LogisticCrossEntropy })
            .optimizer(net.optimizer())
            .seed(self.seed)
            .build()?;
        verbose::train_aloud(trainer, data, self.epochs)
    }
}

impl Net {
    /// Everything before the output layer.
    fn build(self, input: NetworkBuilder<f32>) -> NetworkBuilder<f32> {
        let conv = |channels, kernel| Conv2d {
            padding: (kernel / 2, kernel / 2),
            ..Conv2d::new(channels, kernel)
        };
        match self {
            Self::Small => input
                .conv2d(conv(16, 3))
                .tanh()
                .max_pool2d(MaxPool2d::new(2, 2))
                .conv2d(conv(32, 3))
                .tanh()
                .max_pool2d(MaxPool2d::new(2, 2))
                .flatten(),
            Self::Conv => [96, 128, 256]
                .into_iter()
                .fold(input, |net, channels| {
                    net.conv2d(conv(channels, 5)).tanh().max_pool2d(MaxPool2d::new(3, 2))
                })
                .flatten()
                .dense(2048)
                .tanh()
                .dense(2048)
                .tanh(),
            Self::Shallow => input.dense(1000).tanh(),
            Self::Deep => (0..3).fold(input, |net, _| net.dense(1000).tanh()),
        }
    }

    /// Nøkland's RMSprop at 5e-5; Adam for the small net, which is not his.
    fn optimizer(self) -> Optimizer {
        match self {
            Self::Small => Adam::default().into(),
            _ => RmsProp { learning_rate: 5e-5, ..RmsProp::default() }.into(),
        }
    }
}

/// Loads CIFAR-10 and prepares it as the paper does for this kind of network.
fn cifar10(folder: &Path, net: Net) -> Result<Split> {
    let cifar::Cifar { train, test } =
        folders::load(folder, folders::CIFAR10, |it| cifar::load10_dir(it))?;
    if matches!(net, Net::Shallow | Net::Deep) {
        let scaling = Scaling::min_max(&train)?;
        return Ok(Split { train: train.scaled(&scaling)?, test: test.scaled(&scaling)? });
    }
    let bar = common::progress(100)?.with_message("whitening");
    let whitening = Whitening::fit(&train, Whitening::<f32>::EPSILON, |now| {
        bar.set_message(format!("whitening: {:?}", now.stage));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // From 0 to 100.
        bar.set_position((100.0 * now.fraction) as u64);
    })?;
    bar.finish_and_clear();
    Ok(Split { train: train.whitened(&whitening)?, test: test.whitened(&whitening)? })
}

/// Noise with a pattern of its own for each of ten classes; a tenth of it to test.
fn synthetic(count: usize, seed: u64) -> Result<Split> {
    if count < 10 {
        return Err("--synthetic takes at least 10 images".into());
    }
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let pixels = cifar::SHAPE.0 * cifar::SHAPE.1 * cifar::SHAPE.2;
    let labels: Vec<usize> = (0..count).map(|sample| sample % 10).collect();
    let x = DMatrix::from_fn(pixels, count, |pixel, sample| {
        // Waves over the plane, of another direction and length for each class.
        let (row, column) = (pixel / cifar::SHAPE.2 % cifar::SHAPE.1, pixel % cifar::SHAPE.2);
        let class = labels[sample] as f32;
        let wave = (row as f32 * (0.2 + 0.1 * class) + column as f32 * (1.1 - 0.1 * class)).sin();
        0.3 * wave + rng.random_range(-0.5_f32..0.5)
    });
    let (train, test) = Dataset::new(x, labels)?.split(count / 10, seed)?;
    Ok(Split { train, test })
}
