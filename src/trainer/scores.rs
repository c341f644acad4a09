//! The scores of training and evaluation.

use std::fmt;

use super::confusion::ConfusionMatrix;

/// The scores of one training step, computed before it changed the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Step {
    /// `J`, the mean loss of the batch.
    pub loss: f64,
    /// Samples in the batch.
    pub samples: usize,
    /// The sum of their class weights, by which losses of several batches are averaged. Without class
    /// weights it is the number of samples.
    pub weight: f64,
    /// Samples put into the wrong class; `None` if the targets are not classes.
    pub errors: Option<usize>,
}

/// The scores of one epoch of training. Each batch is scored just before its step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Epoch {
    /// Number of the epoch, counted from 1.
    pub number: u64,
    /// Mean loss per sample, weighted by class if the trainer has [class
    /// weights](crate::TrainerBuilder::class_weights).
    pub loss: f64,
    /// Share of samples put into the wrong class, from 0 to 1; `None` if the targets are not classes.
    pub error_rate: Option<f64>,
    /// The learning rate of the epoch's first step.
    pub learning_rate: f64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {:>3}  training ", self.number)?;
        write_scores(f, self.loss, self.error_rate)
    }
}

/// The scores of a network on a dataset.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Evaluation {
    /// Mean loss per sample, weighted by class if the trainer has [class
    /// weights](crate::TrainerBuilder::class_weights).
    pub loss: f64,
    /// Share of samples put into the wrong class, from 0 to 1. Every sample counts the same. `None` if
    /// the targets are not classes.
    pub error_rate: Option<f64>,
    /// How often each class was taken for each other; `None` if the targets are not classes.
    pub confusion: Option<ConfusionMatrix>,
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scores(f, self.loss, self.error_rate)
    }
}

fn write_scores(f: &mut fmt::Formatter<'_>, loss: f64, error_rate: Option<f64>) -> fmt::Result {
    write!(f, "loss {loss:.4}")?;
    match error_rate {
        Some(rate) => write!(f, "  error {:.2} %", 100.0 * rate),
        None => Ok(()),
    }
}

/// Every loss is multiplied by this before it is added, so that a sum of large losses stays finite. It is a
/// power of 2, so no digit of the mean changes.
const SHARE: f64 = 1.0 / (1_u128 << 64) as f64;

/// Adds up the scores of steps.
pub(crate) struct Tally {
    /// The sum of the losses times `SHARE`.
    loss: f64,
    weight: f64,
    samples: usize,
    /// `None` as soon as one step has no count of errors.
    errors: Option<usize>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { loss: 0.0, weight: 0.0, samples: 0, errors: Some(0) }
    }
}

impl Tally {
    pub(crate) fn add(&mut self, step: &Step) {
        self.loss += step.loss * SHARE * step.weight;
        self.weight += step.weight;
        self.samples += step.samples;
        self.errors = self.errors.zip(step.errors).map(|(all, more)| all + more);
    }

    pub(crate) fn loss(&self) -> f64 {
        self.loss / self.weight / SHARE
    }

    #[cfg(feature = "mpi")]
    pub(crate) fn errors(&self) -> Option<usize> {
        self.errors
    }

    pub(crate) fn error_rate(&self) -> Option<f64> {
        self.errors.map(|errors| errors as f64 / self.samples as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_step_without_an_error_rate_leaves_none() {
        let step = |errors| Step { loss: 1.0, samples: 2, weight: 2.0, errors };
        let mut tally = Tally::default();
        tally.add(&step(Some(1)));
        assert_eq!(tally.error_rate(), Some(0.5));
        tally.add(&step(None));
        tally.add(&step(Some(1)));
        assert_eq!((tally.error_rate(), tally.loss()), (None, 1.0));
    }

    #[test]
    fn the_mean_of_large_losses_is_finite() {
        let mut tally = Tally::default();
        for loss in [1.5e308, 0.5e308] {
            tally.add(&Step { loss, samples: 256, weight: 256.0, errors: None });
        }
        assert_eq!(tally.loss(), 1e308);
    }
}
