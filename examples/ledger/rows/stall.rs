//! Experiment E1 of DFA-Stall: why direct feedback is slow at first, and what cures it.
//!
//! 784-300-300-300-10 tanh from Glorot's uniform weights and zero biases, `B ~ N(0, 1)`, logistic
//! loss, SGD at 1e-3 on the mean gradient, 3,000 batches of 128 drawn with replacement from the
//! first 50,000 training images; judged every 10 steps by 2,048 of the last 10,000. Which 2,048
//! is not told: here they are drawn by the seed.

use feedback_alignment::{
    FeedbackInit, FeedbackRule, Init, Loss, Network, Sgd, Signal, Threshold, Trainer,
    TrainerBuilder,
};

use super::{
    Figure, Observed, Order, Plan,
    Quantity::{FinalAccuracy, LargestCosine, StepsTo},
    Row, classes, figures, spread,
};
use crate::{
    common::{Result, Split},
    data::Task,
};

/// Accuracy and its standard deviation, median steps to 50 and 80 %, the largest mean cosine.
const REPORTED: [(&str, [f64; 5]); 6] = [
    ("dfa", [89.45, 0.59, 690.0, 1220.0, 0.998]),
    ("centred", [87.69, 0.70, 370.0, 1250.0, 0.379]),
    ("prior", [89.73, 0.61, 420.0, 860.0, 0.474]),
    ("output-rate", [91.11, 0.61, 180.0, 460.0, 0.923]),
    ("aligned", [91.16, 0.39, 20.0, 100.0, 0.772]),
    ("bp", [86.07, 0.61, 210.0, 1060.0, 0.731]),
];

pub fn row() -> Row {
    Row {
        name: "stall",
        source: "DFA-Stall (2026), experiment E1, result files of the repository",
        task: Task::MnistHeldOut,
        arms: REPORTED.iter().map(|&(arm, _)| arm).collect(),
        length: 3000,
        plan: Plan { order: Order::Drawn(10), observed: Observed::Cosine, ..Plan::EPOCHS },
        trainer,
        figures: REPORTED.iter().flat_map(reported).collect(),
    }
}

fn reported(
    &(arm, [accuracy, deviation, to50, to80, cosine]): &(&'static str, [f64; 5]),
) -> Vec<Figure> {
    let others = [(StepsTo(50.0), to50), (StepsTo(80.0), to80), (LargestCosine, cosine)];
    let mut all = vec![spread(arm, FinalAccuracy, accuracy, deviation)];
    all.extend(figures(arm, &others));
    all
}

fn trainer(arm: &str, data: &Split, seed: u64) -> Result<TrainerBuilder<f32>> {
    let classes = classes(&data.train)?;
    let network = Network::builder(data.train.features()).dense(300).tanh().dense(300).tanh();
    let network = network.dense(300).tanh().dense(classes).init(Init::GlorotUniform).seed(seed);
    let rule = if arm == "bp" { FeedbackRule::Bp } else { FeedbackRule::Dfa };
    let trainer = Trainer::builder(network.build()?)
        .rule(rule)
        .feedback_init(FeedbackInit::Normal { std: 1.0 })
        .loss(Loss::LogisticCrossEntropy)
        .optimizer(Sgd { learning_rate: 1e-3, ..Sgd::default() })
        .batch_size(128);
    Ok(match arm {
        "centred" => trainer.signal(Signal::ErrorCentred(Threshold::ZERO)),
        "prior" => trainer.prior(vec![1.0 / classes as f64; classes]),
        "output-rate" => trainer.rate_factor(3, 10.0),
        "aligned" => trainer.aligned(),
        _ => trainer,
    })
}
