//! Akrout et al. (2019): MNIST under BP, FA, KP and weight mirrors, epoch by epoch.
//!
//! 784-500-10 logistic, logistic loss, `W, b, B ~ N(0, 1/(n_in + n_out))`, plain SGD without decay,
//! batches of 128 in the order of the file, the last and smaller one left out. The gradients of
//! the biases are divided by the batch size twice, so here they are multiplied by 1/128. The angle
//! is that of the first training image. Each logged run is a single one.
//!
//! Their weight mirrors do not decay, and the output layer answers through its logistic function.

use feedback_alignment::{
    Activation, Feedback, FeedbackInit, FeedbackRule, Loss, Mirror, Network, Sgd, Trainer,
    TrainerBuilder,
    nalgebra::{DMatrix, DVector},
    rand_distr::{Distribution, Normal},
};

use super::{
    Observed, Order, Plan,
    Quantity::{Accuracy, Angle},
    Row, classes, figures,
};
use crate::{
    common::{Result, Split},
    data::Task,
    run::stream,
};

const HIDDEN: usize = 500;
const BATCH: usize = 128;
const EPOCHS: [u64; 5] = [1, 10, 50, 100, 400];

/// Accuracy and angle after each of `EPOCHS`.
#[rustfmt::skip]
const REPORTED: [(&str, [f64; 5], [f64; 5]); 3] = [
    ("fa", [85.49, 90.86, 94.62, 96.34, 97.80], [42.08, 26.09, 36.94, 40.40, 34.91]),
    ("kp", [88.90, 95.41, 97.95, 98.28, 98.45], [19.41, 12.21, 5.73, 4.39, 3.15]),
    ("wm", [78.48, 90.49, 96.51, 97.97, 98.49], [63.44, 16.91, 13.45, 9.14, 3.21]),
];
const BP: [f64; 5] = [88.00, 94.12, 97.70, 98.25, 98.50];

pub fn row() -> Row {
    let at = |values: [f64; 5], quantity: fn(u64) -> super::Quantity| {
        EPOCHS.map(quantity).into_iter().zip(values).collect::<Vec<_>>()
    };
    let mut all = figures("bp", &at(BP, Accuracy));
    for (arm, accuracies, angles) in REPORTED {
        all.extend(figures(arm, &at(accuracies, Accuracy)));
        all.extend(figures(arm, &at(angles, Angle)));
    }
    Row {
        name: "akrout",
        source: "Akrout et al. (2019), results.json of the logged runs in the repository",
        task: Task::Mnist,
        arms: vec!["bp", "fa", "kp", "wm"],
        length: 400,
        plan: Plan {
            order: Order::AsTheyCome,
            bias_factor: 1.0 / BATCH as f32,
            observed: Observed::Angle,
            ..Plan::EPOCHS
        },
        trainer,
        figures: all,
    }
}

fn trainer(arm: &str, data: &Split, seed: u64) -> Result<TrainerBuilder<f32>> {
    let rule: FeedbackRule = arm.parse()?;
    let learning_rate = match rule {
        FeedbackRule::Wm => 0.05,
        FeedbackRule::Kp => 0.3,
        _ => 0.2,
    };
    let classes = classes(&data.train)?;
    let network = Network::builder(data.train.features()).dense(HIDDEN).logistic().dense(classes);
    let mut network = network.build()?;
    let mut rng = stream(seed, 0);
    for layer in 0..2 {
        let (rows, columns) = network.layer(layer)?.weights().shape();
        let normal = Normal::new(0.0, ((rows + columns) as f32).sqrt().recip())?;
        let mut draw = || normal.sample(&mut rng);
        network.set_bias(layer, DVector::from_fn(rows, |_, _| draw()))?;
        network.set_weights(layer, DMatrix::from_fn(rows, columns, |_, _| draw()))?;
    }
    let std = ((HIDDEN + classes) as f64).sqrt().recip();
    let mut feedback = Feedback::new(&network, rule, FeedbackInit::Normal { std }, seed)?;
    feedback.set_mirror(Mirror {
        decay: 0.0,
        output: Activation::Logistic,
        ..Mirror::default()
    })?;
    Ok(Trainer::builder(network)
        .feedback(feedback)
        .loss(Loss::LogisticCrossEntropy)
        .optimizer(Sgd { learning_rate, ..Sgd::default() })
        .batch_size(BATCH)
        .drop_last(true))
}
