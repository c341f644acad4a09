//! BioTorch's benchmark of LeNet on MNIST: BP, FA and the three kinds of sign symmetry.
//!
//! Images of 28×28 are resized to 32×32 (bilinear) and standardised by 0.1307 and 0.3081; conv 5×5
//! 6, pool, conv 5×5 16, pool, conv 5×5 120, fc 84, fc 10, ReLU, Glorot's uniform weights and
//! feedback, softmax; SGD with momentum 0.9 and decay 1e-3, batches of 64, the last and smaller one
//! left out, 100 epochs, the rate divided by 10 after half and three quarters of them. The figure is the best epoch's
//! on the test set, which serves to choose it too.
//!
//! The first rate is not told: here it is 0.01. Their DFA is another rule, which repeats one signal
//! over all positions of an image, and is left out. Decay here leaves biases alone, and brSF draws
//! its magnitudes from `U(±1/√n_l)`.

use feedback_alignment::{
    Conv2d, MaxPool2d, Momentum, Network, Sgd, Trainer, TrainerBuilder, WeightDecay,
};

use super::{Moment, Plan, Quantity, Row, classes, figures};
use crate::{
    common::{Result, Split},
    data::Task,
    glorot,
};

const RATE: f64 = 0.01;

const REPORTED: [(&str, f64); 5] =
    [("bp", 0.91), ("fa", 1.70), ("usf", 0.94), ("brsf", 0.91), ("frsf", 0.97)];

pub fn row() -> Row {
    let figure = |(arm, error)| figures(arm, &[(Quantity::BestError, error)]);
    Row {
        name: "biotorch",
        source: "Sanfiz and Akrout (2021), BioTorch, Benchmarks.md",
        task: Task::Mnist32,
        arms: REPORTED.iter().map(|&(arm, _)| arm).collect(),
        length: 100,
        plan: Plan { after: Some(lower), scheduled: true, ..Plan::EPOCHS },
        trainer,
        figures: REPORTED.into_iter().flat_map(figure).collect(),
    }
}

fn trainer(arm: &str, data: &Split, seed: u64) -> Result<TrainerBuilder<f32>> {
    let (conv, pool) = (|channels| Conv2d::new(channels, 5), MaxPool2d::new(2, 2));
    let network = Network::builder((1, 32, 32)).conv2d(conv(6)).relu().max_pool2d(pool);
    let network = network.conv2d(conv(16)).relu().max_pool2d(pool).conv2d(conv(120)).relu();
    let network = network.flatten().dense(84).relu().dense(classes(&data.train)?);
    let (network, feedback) = glorot::alike(network, arm.parse()?, seed)?;
    let optimizer = Sgd {
        learning_rate: RATE,
        momentum: Momentum::Classical(0.9),
        weight_decay: WeightDecay::L2(1e-3),
    };
    Ok(Trainer::builder(network)
        .feedback(feedback)
        .optimizer(optimizer)
        .batch_size(64)
        .drop_last(true))
}

/// Divides the rate by 10 after half and three quarters of the run.
fn lower(now: &Moment, trainer: &mut Trainer<f32>) -> Result<()> {
    if now.step == now.steps / 2 {
        trainer.set_learning_rate(RATE / 10.0)?;
    } else if now.step == now.steps / 4 * 3 {
        trainer.set_learning_rate(RATE / 100.0)?;
    }
    Ok(())
}
