//! Webster, Choi and Ahn (2021): CIFAR-10 by a small convolutional net under BP, DFA and DKP.
//!
//! conv 3×3 32, batch normalisation, ReLU, twice, max-pool 2, fc 128, ReLU, fc 10, softmax; pixels
//! from −1 to 1; Nesterov's momentum of 0.9 at 5e-4, decay 1e-6, batches of 50, 50 epochs;
//! `B ~ U(±√(6/n_l))`. Theirs enters the second convolution before the pooling, ours after it.
//! Under DKP the matrices learn by Adam, at 1e-4 in the first epoch and 0.8 times as much in each
//! further one; their decay of 1e-6 is left out.

use feedback_alignment::{
    Adam, Conv2d, FeedbackInit, FeedbackRule, MaxPool2d, Momentum, Network, Sgd, Trainer,
    TrainerBuilder, WeightDecay, data::cifar,
};

use super::{Moment, Plan, Quantity, Row, classes, figures};
use crate::{
    common::{Result, Split},
    data::Task,
};

const REPORTED: [(&str, f64); 3] = [("bp", 70.47), ("dkp", 67.52), ("dfa", 61.02)];
const BATCH: usize = 50;

pub fn row() -> Row {
    let figure = |(arm, accuracy)| figures(arm, &[(Quantity::FinalAccuracy, accuracy)]);
    Row {
        name: "webstah",
        source: "Webster, Choi and Ahn (2021), mean of four runs of the repository's main.py",
        task: Task::Cifar10,
        arms: REPORTED.iter().map(|&(arm, _)| arm).collect(),
        length: 50,
        plan: Plan { after: Some(slow_down), ..Plan::EPOCHS },
        trainer,
        figures: REPORTED.into_iter().flat_map(figure).collect(),
    }
}

fn trainer(arm: &str, data: &Split, seed: u64) -> Result<TrainerBuilder<f32>> {
    let conv = || Conv2d::new(32, 3);
    let network = Network::builder(cifar::SHAPE).conv2d(conv()).batch_norm().relu();
    let network = network.conv2d(conv()).batch_norm().relu().max_pool2d(MaxPool2d::new(2, 2));
    let network = network.flatten().dense(128).relu().dense(classes(&data.train)?);
    let rule: FeedbackRule = arm.parse()?;
    let optimizer = Sgd {
        learning_rate: 5e-4,
        momentum: Momentum::Nesterov(0.9),
        weight_decay: WeightDecay::L2(1e-6),
    };
    Ok(Trainer::builder(network.seed(seed).build()?)
        .rule(rule)
        .feedback_init(FeedbackInit::Frenkel)
        .optimizer(optimizer)
        .feedback_optimizer(adam(0))
        .batch_size(BATCH))
}

/// What teaches the matrices in an epoch, counted from 0.
fn adam(epoch: i32) -> Adam {
    Adam { learning_rate: 1e-4 * 0.8_f64.powi(epoch), ..Adam::default() }
}

/// Lowers the rate of the matrices after each epoch.
fn slow_down(now: &Moment, trainer: &mut Trainer<f32>) -> Result<()> {
    let batches = now.split.train.len().div_ceil(BATCH) as u64;
    if now.step.is_multiple_of(batches) {
        let epoch = i32::try_from(now.step / batches)?;
        trainer.set_feedback_optimizer(Some(adam(epoch).into()))?;
    }
    Ok(())
}
