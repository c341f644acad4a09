//! The nets that learn side by side.

use std::error::Error;

use feedback_alignment::{
    Activation, Diagnostics, FeedbackRule, Network, Trainer, nalgebra::DMatrix,
};
use serde::Serialize;

use crate::{
    digits::{CLASSES, Digits, INPUTS},
    request::Settings,
};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Images in a step.
const BATCH: usize = 32;

/// How many units show their weights.
const SHOWN: usize = 16;

/// What a browser's tab can bear.
const WIDEST: usize = 512;
const DEEPEST: usize = 8;

/// All nets, and the digits once someone has asked for them.
#[derive(Default)]
pub struct Bench {
    digits: Option<Digits>,
    nets: Vec<Net>,
}

/// A network that learns by one rule, and what is known of it.
struct Net {
    trainer: Trainer<f32>,
    diagnostics: Diagnostics<f32>,
    /// The weights that the first hidden layer started with.
    start: DMatrix<f32>,
}

/// A net that has just been made.
#[derive(Debug, Serialize)]
pub struct Made {
    pub rule: FeedbackRule,
    /// The route as an SVG image.
    pub picture: String,
    pub score: Score,
}

/// How a net does after some epochs.
#[derive(Debug, Serialize)]
pub struct Score {
    pub epoch: u64,
    /// Share of the test images that are put into the wrong class, in percent.
    pub test_error: f64,
    /// Angles between the rule's deltas and those of backpropagation, for each hidden layer, in
    /// degrees; none where nothing arrives.
    pub angles: Vec<Option<f64>>,
}

/// An image of the test set, and what it shows.
#[derive(Debug, Serialize)]
pub struct Sample {
    pub image: Vec<f32>,
    pub label: usize,
}

impl Bench {
    /// Makes new nets in the place of those that are there; these stay if there is an error.
    pub fn start(&mut self, settings: &Settings) -> Result<Vec<Made>> {
        check(settings)?;
        let digits = digits(&mut self.digits)?;
        let mut nets = settings
            .rules
            .iter()
            .map(|&rule| Net::new(rule, settings))
            .collect::<Result<Vec<_>>>()?;
        let made = settings.rules.iter().zip(&mut nets).map(|(&rule, net)| {
            let picture = rule.route(settings.depth + 1)?.picture();
            Ok(Made { rule, picture, score: net.score(digits)? })
        });
        let made = made.collect::<Result<_>>()?;
        self.nets = nets;
        Ok(made)
    }

    /// One epoch of one net.
    pub fn train(&mut self, net: usize) -> Result<Score> {
        let digits = digits(&mut self.digits)?;
        let net = self.nets.get_mut(net).ok_or("there is no such net")?;
        net.trainer.epoch(&digits.train)?;
        net.score(digits)
    }

    /// What some units of the first hidden layer have learned, one unit after the other: by how much
    /// their weights differ from those at the start. The weights themselves would show little but those.
    pub fn features(&self, net: usize) -> Result<Vec<Vec<f32>>> {
        let net = self.nets.get(net).ok_or("there is no such net")?;
        let learned = net.trainer.network().layer(0)?.weights() - &net.start;
        Ok(learned.row_iter().take(SHOWN).map(|row| row.iter().copied().collect()).collect())
    }

    /// The probability of each digit, from each net.
    pub fn classify(&self, image: &[f32]) -> Result<Vec<Vec<f32>>> {
        if image.len() != INPUTS {
            return Err(format!("an image has {INPUTS} pixels, not {}", image.len()).into());
        }
        let image = DMatrix::from_column_slice(INPUTS, 1, image);
        self.nets
            .iter()
            .map(|net| Ok(softmax(net.trainer.network().predict(&image)?.as_slice())))
            .collect()
    }

    /// An image that no training sees, counted from 0 and from the beginning again after the last.
    pub fn sample(&mut self, number: usize) -> Result<Sample> {
        let test = &digits(&mut self.digits)?.test;
        let one = test.subset(&[number % test.len()])?;
        let label = one.mean_target(CLASSES)?.iter().position(|&share| share == 1.0);
        Ok(Sample {
            image: one.inputs().as_slice().to_vec(),
            label: label.ok_or("the image has no label")?,
        })
    }
}

impl Net {
    /// A net that differs from others of the same settings in nothing but the rule.
    fn new(rule: FeedbackRule, settings: &Settings) -> Result<Self> {
        let activation: Activation = settings.activation.parse()?;
        let mut network = Network::builder(INPUTS).seed(settings.seed);
        for _ in 0..settings.depth {
            network = network.dense(settings.width).activation(activation);
        }
        let network = network.dense(CLASSES).build()?;
        let diagnostics = Diagnostics::new(&network)?;
        let start = network.layer(0)?.weights().into_owned();
        let trainer = Trainer::builder(network)
            .rule(rule)
            .feedback_init(settings.feedback)
            .optimizer(settings.optimizer.at(settings.rate))
            .batch_size(BATCH)
            .seed(settings.seed)
            .build()?;
        Ok(Self { trainer, diagnostics, start })
    }

    fn score(&mut self, digits: &Digits) -> Result<Score> {
        let rate = self.trainer.evaluate(&digits.test)?.error_rate;
        let observed = &digits.observed;
        let diagnosis =
            self.diagnostics.observe(&self.trainer, &observed.inputs(), observed.targets())?;
        Ok(Score {
            epoch: self.trainer.epochs(),
            test_error: 100.0 * rate.ok_or("the digits have no classes")?,
            angles: diagnosis.hidden().iter().map(|layer| layer.delta_angle).collect(),
        })
    }
}

/// The digits, unpacked for the first who asks.
fn digits(kept: &mut Option<Digits>) -> Result<&Digits> {
    match kept {
        Some(digits) => Ok(digits),
        None => Ok(kept.insert(Digits::new()?)),
    }
}

/// Fails for nets that would take the tab down; what else is wrong the library says itself.
fn check(settings: &Settings) -> Result<()> {
    let Settings { width, depth, .. } = *settings;
    if !(1..=WIDEST).contains(&width) {
        return Err(format!("the width is a number from 1 to {WIDEST}, not {width}").into());
    }
    if !(1..=DEEPEST).contains(&depth) {
        return Err(format!("there are from 1 to {DEEPEST} hidden layers, not {depth}").into());
    }
    Ok(())
}

/// The probabilities that the loss sees in the outputs.
fn softmax(outputs: &[f32]) -> Vec<f32> {
    let largest = outputs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = outputs.iter().map(|output| (output - largest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}
