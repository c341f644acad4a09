//! What Nøkland (2016) reports in tables 1 to 3.

use std::fmt;

use feedback_alignment::FeedbackRule;

/// A figure of the paper.
#[derive(Clone, Copy)]
pub enum Reported {
    /// Mean and standard deviation of the test error and the training error, in percent.
    Error(f64, f64, f64),
    DoesNotConverge,
}

use Reported::{DoesNotConverge, Error as E};

/// Table, row, and the figures of BP, FA and DFA.
pub const FIGURES: [(u8, &str, [Reported; 3]); 18] = [
    (1, "7x240-tanh", [E(2.16, 0.13, 0.0), E(2.20, 0.13, 0.02), E(2.32, 0.15, 0.03)]),
    (1, "100x240-tanh", [DoesNotConverge, DoesNotConverge, E(3.92, 0.09, 0.12)]),
    (1, "1x800-tanh", [E(1.59, 0.04, 0.0), E(1.68, 0.05, 0.0), E(1.68, 0.05, 0.0)]),
    (1, "2x800-tanh", [E(1.60, 0.06, 0.0), E(1.64, 0.03, 0.0), E(1.74, 0.08, 0.0)]),
    (1, "3x800-tanh", [E(1.75, 0.05, 0.0), E(1.66, 0.09, 0.0), E(1.70, 0.04, 0.0)]),
    (1, "4x800-tanh", [E(1.92, 0.11, 0.0), E(1.70, 0.04, 0.0), E(1.83, 0.07, 0.02)]),
    (1, "2x800-logistic", [E(1.67, 0.03, 0.0), E(1.82, 0.10, 0.0), E(1.75, 0.04, 0.0)]),
    (1, "2x800-relu", [E(1.48, 0.06, 0.0), E(1.74, 0.10, 0.0), E(1.70, 0.06, 0.0)]),
    (1, "2x800-tanh-dropout", [E(1.26, 0.03, 0.18), E(1.53, 0.03, 0.18), E(1.45, 0.07, 0.24)]),
    (1, "2x800-tanh-adversarial", [E(1.01, 0.08, 0.0), E(1.14, 0.03, 0.0), E(1.02, 0.05, 0.12)]),
    (2, "1x1000-tanh", [E(45.1, 0.7, 2.5), E(46.4, 0.4, 3.2), E(46.4, 0.4, 3.2)]),
    (2, "3x1000-tanh", [E(45.1, 0.3, 0.2), E(47.0, 2.2, 0.3), E(47.4, 0.8, 2.3)]),
    (2, "3x1000-tanh-dropout", [E(42.2, 0.2, 36.7), E(46.9, 0.3, 48.9), E(42.9, 0.2, 37.6)]),
    (2, "conv-tanh", [E(22.5, 0.4, 0.0), E(27.1, 0.8, 0.9), E(26.9, 0.5, 0.2)]),
    (3, "1x1000-tanh", [E(71.7, 0.2, 38.7), E(73.8, 0.3, 37.5), E(73.8, 0.3, 37.5)]),
    (3, "3x1000-tanh", [E(72.0, 0.3, 0.2), E(75.3, 0.1, 0.5), E(75.9, 0.2, 3.1)]),
    (3, "3x1000-tanh-dropout", [E(69.8, 0.1, 66.8), E(75.3, 0.2, 77.2), E(73.1, 0.1, 69.8)]),
    (3, "conv-tanh", [E(51.7, 0.2, 0.0), E(60.5, 0.3, 0.0), E(59.0, 0.3, 0.0)]),
];

/// The figure of a row under a rule; the paper has none for IFA.
pub fn reported(table: u8, row: &str, rule: FeedbackRule) -> Option<Reported> {
    let column = [FeedbackRule::Bp, FeedbackRule::Fa, FeedbackRule::Dfa];
    let column = column.iter().position(|&other| other == rule)?;
    let (.., figures) = FIGURES.iter().find(|figure| (figure.0, figure.1) == (table, row))?;
    Some(figures[column])
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
