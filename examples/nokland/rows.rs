//! The rows of tables 1 to 3 of Nøkland (2016): a network and how it is trained.

use feedback_alignment::{
    Activation, Conv2d, FeedbackRule, Init, Loss, MaxPool2d, Network, RmsProp, Shape, StoppingRule,
    Trainer,
};

use crate::{
    common::Result,
    figures::{self, Reported},
};

/// One row: a network and how it is trained.
pub struct Row {
    /// 1 is MNIST, 2 CIFAR-10 and 3 CIFAR-100.
    pub table: u8,
    pub name: &'static str,
    hidden: Hidden,
    activation: Activation,
    extra: Extra,
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

use Extra::{Adversarial, Dropout, Nothing};
use Hidden::{Convolutional, Dense};

pub const ROWS: [Row; 18] = [
    row(1, "7x240-tanh", Dense(7, 240), Nothing),
    row(1, "100x240-tanh", Dense(100, 240), Nothing),
    row(1, "1x800-tanh", Dense(1, 800), Nothing),
    row(1, "2x800-tanh", Dense(2, 800), Nothing),
    row(1, "3x800-tanh", Dense(3, 800), Nothing),
    row(1, "4x800-tanh", Dense(4, 800), Nothing),
    with(Activation::Logistic, row(1, "2x800-logistic", Dense(2, 800), Nothing)),
    with(Activation::Relu, row(1, "2x800-relu", Dense(2, 800), Nothing)),
    row(1, "2x800-tanh-dropout", Dense(2, 800), Dropout),
    row(1, "2x800-tanh-adversarial", Dense(2, 800), Adversarial),
    row(2, "1x1000-tanh", Dense(1, 1000), Nothing),
    row(2, "3x1000-tanh", Dense(3, 1000), Nothing),
    row(2, "3x1000-tanh-dropout", Dense(3, 1000), Dropout),
    row(2, "conv-tanh", Convolutional, Nothing),
    row(3, "1x1000-tanh", Dense(1, 1000), Nothing),
    row(3, "3x1000-tanh", Dense(3, 1000), Nothing),
    row(3, "3x1000-tanh-dropout", Dense(3, 1000), Dropout),
    row(3, "conv-tanh", Convolutional, Nothing),
];

const fn row(table: u8, name: &'static str, hidden: Hidden, extra: Extra) -> Row {
    Row { table, name, hidden, activation: Activation::Tanh, extra }
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
        figures::reported(self.table, self.name, rule)
    }

    /// What it trains, in words, for titles.
    pub fn words(&self) -> String {
        let layers = match self.hidden {
            Dense(1, units) => format!("a hidden layer of {units}"),
            Dense(layers, units) => format!("{layers} hidden layers of {units}"),
            Convolutional => "three convolutions, two layers of 2048".into(),
        };
        let extra = match self.extra {
            Nothing => "",
            Dropout => ", with dropout",
            Adversarial => ", adversarial images",
        };
        format!("{layers} {} units{extra}", self.activation)
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
