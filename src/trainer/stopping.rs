//! When training is done.

use crate::error::{Result, require, require_not_negative};

/// Stops when a running average of the training error is small. After every epoch
/// `m ← μ m + (1 − μ) E`, starting from `m = 1`, and training is finished when `m ≤ threshold`. `E` is
/// the error rate of the epoch, counted batch by batch just before each step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct StoppingRule {
    /// `μ` in `[0, 1)`; 0.75 by default.
    pub momentum: f64,
    /// At least 0; 1e-4 by default.
    pub threshold: f64,
}

impl Default for StoppingRule {
    /// The rule of Nøkland (2016), who also stops at 300 epochs.
    fn default() -> Self {
        Self { momentum: 0.75, threshold: 1e-4 }
    }
}

impl StoppingRule {
    pub(super) fn average(self, average: f64, error: f64) -> f64 {
        self.momentum * average + (1.0 - self.momentum) * error
    }

    pub(super) fn check(self) -> Result<()> {
        let momentum = (0.0..1.0).contains(&self.momentum);
        require(momentum, "momentum", self.momentum, "a number from 0 up to, not including, 1")?;
        require_not_negative::<f64>("threshold", self.threshold)
    }
}
