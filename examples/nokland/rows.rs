//! The rows of tables 1 to 3 and what Nøkland (2016) reports for them.

use std::fmt;

use feedback_alignment::{
    Activation, Conv2d, FeedbackRule, Init, Loss, MaxPool2d, Network, RmsProp, Shape, StoppingRule,
    Trainer,
};

use crate::common::Result;

/// One row: a network and how it is trained.
pub struct Row {
    /// 1 is MNIST, 2 CIFAR-10 and 3 CIFAR-100.
    pub table: u8,
    pub name: &'static str,
    hidden: Hidden,
    activation: Activation,
    extra: Extra,
    /// BP, FA and DFA.
    reported: [Reported; 3],
}

/// The hidden layers.
enum Hidden {
    /// So many layers of so many units.
    Dense(usize, usize),
    /// Convolutions of 96, 128 and 256 kernels of 5×5, each with 3×3 max-pooling of stride 2, then
    /// two layers of 2048 units.
    Convolutional,
}

/// What is done against overfitting.
#[derive(PartialEq, Eq)]
enum Extra {
    Nothing,
    /// A tenth of the inputs and half of the hidden units.
    Dropout,
    /// The fast gradient sign of 0.08.
    Adversarial,
}

/// A figure of the paper.
#[derive(Clone, Copy)]
pub enum Reported {
    /// Mean and standard deviation of the test error and the training error, in percent.
    Error(f64, f64, f64),
    DoesNotConverge,
}

use Extra::{Adversarial, Dropout, Nothing};
use Hidden::{Convolutional, Dense};
use Reported::{DoesNotConverge, Error as E};

/// The figures are percents of test error ± standard deviation, then of training error.
pub const ROWS: [Row; 18] = [
    row(
        1,
        "7x240-tanh",
        Dense(7, 240),
        Nothing,
        [E(2.16, 0.13, 0.0), E(2.20, 0.13, 0.02), E(2.32, 0.15, 0.03)],
    ),
    row(
        1,
        "100x240-tanh",
        Dense(100, 240),
        Nothing,
        [DoesNotConverge, DoesNotConverge, E(3.92, 0.09, 0.12)],
    ),
    row(
        1,
        "1x800-tanh",
        Dense(1, 800),
        Nothing,
        [E(1.59, 0.04, 0.0), E(1.68, 0.05, 0.0), E(1.68, 0.05, 0.0)],
    ),
    row(
        1,
        "2x800-tanh",
        Dense(2, 800),
        Nothing,
        [E(1.60, 0.06, 0.0), E(1.64, 0.03, 0.0), E(1.74, 0.08, 0.0)],
    ),
    row(
        1,
        "3x800-tanh",
        Dense(3, 800),
        Nothing,
        [E(1.75, 0.05, 0.0), E(1.66, 0.09, 0.0), E(1.70, 0.04, 0.0)],
    ),
    row(
        1,
        "4x800-tanh",
        Dense(4, 800),
        Nothing,
        [E(1.92, 0.11, 0.0), E(1.70, 0.04, 0.0), E(1.83, 0.07, 0.02)],
    ),
    with(
        Activation::Logistic,
        row(
            1,
            "2x800-logistic",
            Dense(2, 800),
            Nothing,
            [E(1.67, 0.03, 0.0), E(1.82, 0.10, 0.0), E(1.75, 0.04, 0.0)],
        ),
    ),
    with(
        Activation::Relu,
        row(
            1,
            "2x800-relu",
            Dense(2, 800),
            Nothing,
            [E(1.48, 0.06, 0.0), E(1.74, 0.10, 0.0), E(1.70, 0.06, 0.0)],
        ),
    ),
    row(
        1,
        "2x800-tanh-dropout",
        Dense(2, 800),
        Dropout,
        [E(1.26, 0.03, 0.18), E(1.53, 0.03, 0.18), E(1.45, 0.07, 0.24)],
    ),
    row(
        1,
        "2x800-tanh-adversarial",
        Dense(2, 800),
        Adversarial,
        [E(1.01, 0.08, 0.0), E(1.14, 0.03, 0.0), E(1.02, 0.05, 0.12)],
    ),
    row(
        2,
        "1x1000-tanh",
        Dense(1, 1000),
        Nothing,
        [E(45.1, 0.7, 2.5), E(46.4, 0.4, 3.2), E(46.4, 0.4, 3.2)],
    ),
    row(
        2,
        "3x1000-tanh",
        Dense(3, 1000),
        Nothing,
        [E(45.1, 0.3, 0.2), E(47.0, 2.2, 0.3), E(47.4, 0.8, 2.3)],
    ),
    row(
        2,
        "3x1000-tanh-dropout",
        Dense(3, 1000),
        Dropout,
        [E(42.2, 0.2, 36.7), E(46.9, 0.3, 48.9), E(42.9, 0.2, 37.6)],
    ),
    row(
        2,
        "conv-tanh",
        Convolutional,
        Nothing,
        [E(22.5, 0.4, 0.0), E(27.1, 0.8, 0.9), E(26.9, 0.5, 0.2)],
    ),
    row(
        3,
        "1x1000-tanh",
        Dense(1, 1000),
        Nothing,
        [E(71.7, 0.2, 38.7), E(73.8, 0.3, 37.5), E(73.8, 0.3, 37.5)],
    ),
    row(
        3,
        "3x1000-tanh",
        Dense(3, 1000),
        Nothing,
        [E(72.0, 0.3, 0.2), E(75.3, 0.1, 0.5), E(75.9, 0.2, 3.1)],
    ),
    row(
        3,
        "3x1000-tanh-dropout",
        Dense(3, 1000),
        Dropout,
        [E(69.8, 0.1, 66.8), E(75.3, 0.2, 77.2), E(73.1, 0.1, 69.8)],
    ),
    row(
        3,
        "conv-tanh",
        Convolutional,
        Nothing,
        [E(51.7, 0.2, 0.0), E(60.5, 0.3, 0.0), E(59.0, 0.3, 0.0)],
    ),
];

const fn row(
    table: u8,
    name: &'static str,
    hidden: Hidden,
    extra: Extra,
    reported: [Reported; 3],
) -> Row {
    Row { table, name, hidden, activation: Activation::Tanh, extra, reported }
}

const fn with(activation: Activation, row: Row) -> Row {
    Row { activation, ..row }
}

/// The row of this table and name.
pub fn find(table: u8, name: &str) -> Result<&'static Row> {
    let found = ROWS.iter().find(|row| row.table == table && row.name == name);
    found.ok_or_else(|| {
        let names = ROWS.iter().filter(|row| row.table == table).map(|row| row.name);
        let names: Vec<_> = names.collect();
        format!("table {table} has no row {name}, only {}", names.join(", ")).into()
    })
}

impl Row {
    /// The figure of the paper, which has none for IFA.
    pub fn reported(&self, rule: FeedbackRule) -> Option<Reported> {
        let column = [FeedbackRule::Bp, FeedbackRule::Fa, FeedbackRule::Dfa];
        column.iter().position(|&other| other == rule).map(|index| self.reported[index])
    }

    /// Whether it reads images of three dimensions, which are whitened.
    pub fn is_convolutional(&self) -> bool {
        matches!(self.hidden, Convolutional)
    }

    /// A new network and all that trains it, by the protocol of the paper; `freezes` says whether
    /// its first layer will be frozen for a while.
    pub fn trainer(
        &self,
        input: Shape,
        classes: usize,
        rule: FeedbackRule,
        freezes: bool,
        seed: u64,
    ) -> Result<Trainer<f32>> {
        let mut builder = Network::builder(input).seed(seed).init(self.init(rule, freezes));
        if self.extra == Dropout {
            builder = builder.dropout(0.1);
        }
        let dense = |builder: feedback_alignment::NetworkBuilder<f32>, units| {
            let builder = builder.dense(units).activation(self.activation);
            if self.extra == Dropout { builder.dropout(0.5) } else { builder }
        };
        builder = match self.hidden {
            Dense(layers, units) => (0..layers).fold(builder, |builder, _| dense(builder, units)),
            Convolutional => {
                let conv = |channels| Conv2d { padding: (2, 2), ..Conv2d::new(channels, 5) };
                let builder = [96, 128, 256].into_iter().fold(builder, |builder, channels| {
                    let pool = MaxPool2d::new(3, 2);
                    builder.conv2d(conv(channels)).activation(self.activation).max_pool2d(pool)
                });
                dense(dense(builder.flatten(), 2048), 2048)
            }
        };
        let optimizer = RmsProp { learning_rate: self.learning_rate(), ..RmsProp::default() };
        let mut trainer = Trainer::builder(builder.dense(classes).build()?)
            .rule(rule)
            .loss(Loss::LogisticCrossEntropy)
            .optimizer(optimizer)
            .batch_size(64)
            .stopping(StoppingRule::default())
            .seed(seed);
        if self.extra == Adversarial {
            trainer = trainer.adversarial(0.08);
        }
        Ok(trainer.build()?)
    }

    /// Zero weights for FA and DFA, but not with ReLU, which would never wake up, nor where the
    /// first layer is frozen for a while: one of zeros lets nothing through to learn from.
    fn init(&self, rule: FeedbackRule, freezes: bool) -> Init {
        if freezes || self.activation == Activation::Relu {
            Init::FanIn
        } else {
            Init::nokland(rule)
        }
    }

    fn learning_rate(&self) -> f64 {
        match self.table {
            1 => 1e-4,
            2 => 5e-5,
            _ => 2.5e-5,
        }
    }
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(mean, deviation, 0.0) => f.pad(&format!("{mean:.2} ± {deviation:.2}")),
            Self::Error(mean, deviation, training) => {
                f.pad(&format!("{mean:.2} ± {deviation:.2} ({training:.2})"))
            }
            Self::DoesNotConverge => f.pad("does not converge"),
        }
    }
}
