//! A check of our own: every rule learns MNIST with its defaults.
//!
//! 784-150-100-10 tanh, RMSprop at 1e-3, batches of 50, three epochs of the first 12,000 images.
//! Only shallow, which does not teach the hidden layers, is not expected to be below 15 %.

use feedback_alignment::{FeedbackRule, Network, RmsProp, Trainer, TrainerBuilder};

use super::{Figure, Plan, Quantity, Row, classes};
use crate::{
    common::{Result, Split},
    data::Task,
};

pub fn row() -> Row {
    // Names live as long as the program.
    let name = |rule: FeedbackRule| -> &'static str { rule.to_string().leak() };
    let arms: Vec<_> = FeedbackRule::all().map(name).collect();
    let shallow = FeedbackRule::Shallow.to_string();
    let bound = |&arm: &&'static str| {
        let deviation = None;
        Figure { arm, quantity: Quantity::Bound, value: 15.0, deviation }
    };
    Row {
        name: "check",
        source: "a bound of our own",
        task: Task::MnistStart,
        figures: arms.iter().filter(|&&arm| arm != shallow).map(bound).collect(),
        arms,
        length: 3,
        plan: Plan::EPOCHS,
        trainer,
    }
}

fn trainer(arm: &str, data: &Split, seed: u64) -> Result<TrainerBuilder<f32>> {
    let network = Network::builder(data.train.features()).dense(150).tanh().dense(100).tanh();
    let network = network.dense(classes(&data.train)?).seed(seed).build()?;
    let optimizer = RmsProp { learning_rate: 1e-3, ..RmsProp::default() };
    let rule: FeedbackRule = arm.parse()?;
    Ok(Trainer::builder(network).rule(rule).optimizer(optimizer).batch_size(50))
}
