//! Webster, Choi and Ahn (2021): CIFAR-10 by a small convolutional net under BP and DFA.
//!
//! conv 3×3 32, batch normalisation, ReLU, twice, max-pool 2, fc 128, ReLU, fc 10, softmax; pixels
//! from −1 to 1; Nesterov's momentum of 0.9 at 5e-4, decay 1e-6, batches of 50, 50 epochs;
//! `B ~ U(±√(6/n_l))`. Theirs enters the second convolution before the pooling, ours after it.
//! Their direct Kolen-Pollack (67.52 %) gives the matrices an optimiser of their own, with decay and
//! a schedule, and is left out.

use feedback_alignment::{
    Conv2d, FeedbackInit, FeedbackRule, MaxPool2d, Momentum, Network, Sgd, Trainer, TrainerBuilder,
    WeightDecay, data::cifar,
};

use super::{Plan, Quantity, Row, classes, figures};
use crate::{
    common::{Result, Split},
    data::Task,
};

const REPORTED: [(&str, f64); 2] = [("bp", 70.47), ("dfa", 61.02)];

pub fn row() -> Row {
    let figure = |(arm, accuracy)| figures(arm, &[(Quantity::FinalAccuracy, accuracy)]);
    Row {
        name: "webstah",
        source: "Webster, Choi and Ahn (2021), mean of four runs of the repository's main.py",
        task: Task::Cifar10,
        arms: REPORTED.iter().map(|&(arm, _)| arm).collect(),
        length: 50,
        plan: Plan::EPOCHS,
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
        .batch_size(50))
}
