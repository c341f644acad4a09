//! How training and evaluation went, in numbers.

use std::fmt;

/// What one training step saw, before it changed the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// `J`, the mean loss of the batch.
    pub loss: f64,
    /// Samples in the batch.
    pub samples: usize,
    /// Samples put into the wrong class; `None` where targets are real values.
    pub errors: Option<usize>,
}

/// What the training passes of one epoch saw, as they happened.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Epoch {
    /// Number of the epoch, counted from 1.
    pub number: u64,
    /// Mean loss of a sample.
    pub loss: f64,
    /// Share of samples put into the wrong class, from 0 to 1; `None` where targets are real
    /// values.
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

/// How a network does on a dataset.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Evaluation {
    /// Mean loss of a sample.
    pub loss: f64,
    /// Share of samples put into the wrong class, from 0 to 1; `None` where targets are real
    /// values.
    pub error_rate: Option<f64>,
    /// Which classes are taken for which; `None` where targets are real values.
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

/// How often samples of one class were taken for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    /// Row after row; a row is an actual class.
    counts: Vec<usize>,
}

impl ConfusionMatrix {
    pub(super) fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    pub(super) fn add(&mut self, actual: usize, predicted: usize) {
        self.counts[actual * self.classes + predicted] += 1;
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Samples of class `actual` that were taken for `predicted`; 0 for classes there are not.
    #[must_use]
    pub fn count(&self, actual: usize, predicted: usize) -> usize {
        let known = actual < self.classes && predicted < self.classes;
        if known { self.counts[actual * self.classes + predicted] } else { 0 }
    }
}

impl fmt::Display for ConfusionMatrix {
    /// A row for each actual class, a column for each predicted one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = self.counts.iter().copied().max().unwrap_or(0).max(self.classes);
        let width = largest.to_string().len().max(2);
        write!(f, "actual \\ predicted")?;
        (0..self.classes).try_for_each(|class| write!(f, " {class:>width$}"))?;
        for (class, row) in self.counts.chunks_exact(self.classes).enumerate() {
            write!(f, "\n{class:>18}")?;
            row.iter().try_for_each(|count| write!(f, " {count:>width$}"))?;
        }
        Ok(())
    }
}

/// Adds up what steps saw.
#[derive(Default)]
pub(super) struct Tally {
    loss: f64,
    samples: usize,
    errors: Option<usize>,
}

impl Tally {
    pub(super) fn add(&mut self, step: &Step) {
        self.loss += step.loss * step.samples as f64;
        self.samples += step.samples;
        self.errors = step.errors.map(|errors| self.errors.unwrap_or(0) + errors);
    }

    pub(super) fn loss(&self) -> f64 {
        self.loss / self.samples as f64
    }

    pub(super) fn error_rate(&self) -> Option<f64> {
        self.errors.map(|errors| errors as f64 / self.samples as f64)
    }
}
