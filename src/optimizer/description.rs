//! Optimisers and schedules as text, in the metadata of a file.

use super::{Adam, AdamW, Decay, Momentum, Optimizer, RmsProp, Schedule, Sgd, WeightDecay};
use crate::{
    error::Result,
    files::{Entry, Line},
};

/// The name of the line with the [`Optimizer`].
pub(crate) const OPTIMIZER: &str = "optimizer";

/// The name of the line with the optimiser of feedback that learns.
pub(crate) const FEEDBACK_OPTIMIZER: &str = "feedback-optimizer";

/// The name of the line with the [`Schedule`].
pub(crate) const SCHEDULE: &str = "schedule";

impl Optimizer {
    /// The optimiser as a line with the name `called`.
    pub(crate) fn line(self, called: &str) -> Line {
        let named = |name| Line::new(called).word("name", name);
        match self {
            Self::Sgd(Sgd { learning_rate, momentum, weight_decay }) => {
                let line = named("sgd").with("learning_rate", learning_rate);
                let line = match momentum {
                    Momentum::None => line.word("momentum", "none"),
                    Momentum::Classical(mu) => line.word("momentum", "classical").with("mu", mu),
                    Momentum::Nesterov(mu) => line.word("momentum", "nesterov").with("mu", mu),
                };
                match weight_decay {
                    WeightDecay::None => line.word("weight_decay", "none"),
                    WeightDecay::L2(by) => line.word("weight_decay", "l2").with("lambda", by),
                    WeightDecay::Decoupled(by) => {
                        line.word("weight_decay", "decoupled").with("lambda", by)
                    }
                }
            }
            Self::RmsProp(RmsProp { learning_rate, decay, epsilon }) => named("rmsprop")
                .with("learning_rate", learning_rate)
                .with("decay", decay)
                .with("epsilon", epsilon),
            Self::Adam(adam) => with_adam(named("adam"), adam),
            Self::AdamW(AdamW { adam, weight_decay }) => {
                with_adam(named("adamw"), adam).with("weight_decay", weight_decay)
            }
        }
    }

    pub(crate) fn read(entry: &Entry) -> Result<Self> {
        let learning_rate = entry.field("learning_rate")?;
        Ok(match entry.word("name")? {
            "sgd" => {
                let momentum = match entry.word("momentum")? {
                    "none" => Momentum::None,
                    "classical" => Momentum::Classical(entry.field("mu")?),
                    "nesterov" => Momentum::Nesterov(entry.field("mu")?),
                    _ => return Err(entry.refuse("'momentum=' with none, classical or nesterov")),
                };
                let weight_decay = match entry.word("weight_decay")? {
                    "none" => WeightDecay::None,
                    "l2" => WeightDecay::L2(entry.field("lambda")?),
                    "decoupled" => WeightDecay::Decoupled(entry.field("lambda")?),
                    _ => return Err(entry.refuse("'weight_decay=' with none, l2 or decoupled")),
                };
                Sgd { learning_rate, momentum, weight_decay }.into()
            }
            "rmsprop" => {
                let (decay, epsilon) = (entry.field("decay")?, entry.field("epsilon")?);
                RmsProp { learning_rate, decay, epsilon }.into()
            }
            "adam" => read_adam(entry)?.into(),
            "adamw" => {
                AdamW { adam: read_adam(entry)?, weight_decay: entry.field("weight_decay")? }.into()
            }
            _ => return Err(entry.refuse("'name=' with sgd, rmsprop, adam or adamw")),
        })
    }
}

fn with_adam(line: Line, Adam { learning_rate, beta1, beta2, epsilon }: Adam) -> Line {
    line.with("learning_rate", learning_rate)
        .with("beta1", beta1)
        .with("beta2", beta2)
        .with("epsilon", epsilon)
}

fn read_adam(entry: &Entry) -> Result<Adam> {
    Ok(Adam {
        learning_rate: entry.field("learning_rate")?,
        beta1: entry.field("beta1")?,
        beta2: entry.field("beta2")?,
        epsilon: entry.field("epsilon")?,
    })
}

impl Schedule {
    pub(crate) fn line(self) -> Line {
        let line = Line::new(SCHEDULE).with("warm_up", self.warm_up);
        match self.decay {
            Decay::Constant => line.word("decay", "constant"),
            Decay::Step { every, factor } => {
                line.word("decay", "step").with("every", every).with("factor", factor)
            }
            Decay::Exponential { every, factor } => {
                line.word("decay", "exponential").with("every", every).with("factor", factor)
            }
            Decay::Cosine { steps } => line.word("decay", "cosine").with("steps", steps),
        }
    }

    pub(crate) fn read(entry: &Entry) -> Result<Self> {
        let decay = match entry.word("decay")? {
            "constant" => Decay::Constant,
            "step" => Decay::Step { every: entry.field("every")?, factor: entry.field("factor")? },
            "exponential" => {
                Decay::Exponential { every: entry.field("every")?, factor: entry.field("factor")? }
            }
            "cosine" => Decay::Cosine { steps: entry.field("steps")? },
            _ => return Err(entry.refuse("'decay=' with constant, step, exponential or cosine")),
        };
        Ok(Self { warm_up: entry.field("warm_up")?, decay })
    }
}
