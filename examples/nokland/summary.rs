//! Several runs of a row in one line, in the format of the paper.

use std::fmt;

use feedback_alignment::FeedbackRule;

use crate::{
    figures::Reported,
    lines::{End, STAND_IN},
    record::Record,
    rows::Row,
    spread::{deviation, mean},
};

/// What the runs of one row under one rule came to, beside the figure of the paper.
pub struct Summary {
    name: &'static str,
    data: String,
    rule: FeedbackRule,
    reported: Option<Reported>,
    /// Test and training errors after the last epoch, in percent; one of each for every seed.
    errors: Option<(Vec<f64>, Vec<f64>)>,
    epochs: Vec<u64>,
}

impl Summary {
    pub fn of(row: &Row, rule: FeedbackRule, records: &[&Record]) -> Self {
        let last = || records.iter().filter_map(|record| record.points.last());
        let diverged = records.iter().any(|record| record.end == Some(End::DoesNotConverge));
        let errors = || {
            (
                last().map(|point| point.test_error).collect(),
                last().map(|point| point.train_error).collect(),
            )
        };
        let data = records.first().map(|record| record.header.data.clone()).unwrap_or_default();
        Self {
            name: row.name,
            rule,
            // The small digits that stand in for MNIST are another task.
            reported: row.reported(rule).filter(|_| data != STAND_IN),
            errors: (!diverged).then(errors),
            epochs: last().map(|point| point.epoch).collect(),
            data,
        }
    }

    /// The figure as the paper prints one: `1.74 ± 0.08 (0.02)`.
    pub fn figure(&self) -> String {
        let Some((test, training)) = &self.errors else { return "does not converge".into() };
        let mean_error = mean(test);
        let spread = deviation(test).map_or(String::new(), |spread| format!(" ± {spread:.2}"));
        let training = match mean(training) {
            training if training < 0.005 => String::new(),
            training => format!(" ({training:.2})"),
        };
        format!("{mean_error:.2}{spread}{training}")
    }

    /// How long the runs were: `187 epochs`, `60-300 epochs`.
    pub fn length(&self) -> String {
        let (min, max) = (self.epochs.iter().min(), self.epochs.iter().max());
        match (min, max) {
            (Some(min), Some(max)) if min < max => format!("{min}-{max} epochs"),
            (Some(min), _) => format!("{min} epochs"),
            _ => "no epoch".into(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seeds, length) = (self.epochs.len(), self.length());
        let seeds = if seeds == 1 { "1 seed".into() } else { format!("{seeds} seeds") };
        write!(f, "{} {:<24} {:<4}", self.data, self.name, self.rule)?;
        write!(f, " {:<22} {:<22}", self.figure(), format!("[{seeds}, {length}]"))?;
        match (self.reported, &self.errors) {
            (None, _) => write!(f, " not in the paper"),
            (Some(reported @ Reported::Error(mean_reported, ..)), Some((test, _))) => {
                let difference = mean(test) - mean_reported;
                write!(f, " reported {reported}, difference {difference:+.2}")
            }
            (Some(reported), _) => write!(f, " reported {reported}"),
        }
    }
}
