//! How weight mirrors learn.

use std::fmt;

use crate::{
    activation::Activation,
    buffer::Columns,
    error::{Result, require, require_fraction, require_positive},
    scalar::Scalar,
};

/// How a weight mirror learns (Akrout et al. 2019). Noise `x ~ U(±bound)` of `batch` samples is the
/// input of the layer above, apart from the forward pass. That layer answers `y = f(W x + b)`, and
///
/// ```text
/// B ← (1 − decay) B + rate · Σ x yᵀ      summed over the batch
/// ```
///
/// so that `B` turns towards `Wᵀ` without ever reading it. `f` is the activation directly after the
/// layer, or the identity. With decay, `B` tends to `rate · batch · bound²/3 / decay` times `f' Wᵀ`.
/// With the default settings that factor is 1. For a convolution it is larger by the number of
/// positions of the kernel. Without decay, as in the authors' runs, `B` keeps growing.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Mirror {
    /// The learning rate; 0.01 by default.
    pub rate: f64,
    /// The fraction of `B` that is lost with every batch of noise; 0.01 · 128 · 0.05²/3 by default.
    pub decay: f64,
    /// The largest magnitude of the noise; 0.05 by default.
    pub bound: f64,
    /// Samples in a batch of noise; 128 by default.
    pub batch: usize,
    /// Batches of noise before the first training step, from 1 to 1,000,000; 468 by default. Before
    /// every later step there is one, and so there is before gradients that are found without a step.
    pub before: usize,
    /// The function `f` of the output layer, which has no activation of its own; the identity by
    /// default.
    pub output: Activation,
}

impl Default for Mirror {
    fn default() -> Self {
        let decay = 0.01 * 128.0 * 0.05 * 0.05 / 3.0;
        let (batch, before, output) = (128, 468, Activation::Identity);
        Self { rate: 0.01, decay, bound: 0.05, batch, before, output }
    }
}

impl Mirror {
    /// Fails for constants out of their range.
    pub(crate) fn check<T: Scalar>(&self) -> Result<()> {
        require_positive::<T>("the rate of a mirror", self.rate)?;
        require_fraction::<T>("the decay of a mirror", self.decay)?;
        require_positive::<T>("the bound of a mirror's noise", self.bound)?;
        let batch = self.batch as f64;
        require(self.batch > 0, "the batch of a mirror", batch, "at least 1")?;
        let before = self.before as f64;
        let valid = (1..=1_000_000).contains(&self.before);
        let what = "a mirror's batches before the first step";
        require(valid, what, before, "from 1 to 1,000,000")?;
        self.output.check::<T>()
    }
}

/// The settings of the mirrors, and how far their noise has come.
#[derive(Clone)]
pub(super) struct Mirroring<T> {
    pub(super) how: Mirror,
    pub(super) seed: u64,
    /// Batches of noise so far.
    pub(super) seen: u64,
    /// `x`, `a` and `y` of the last batch of noise, kept to reuse the memory.
    pub(super) noise: [Columns<T>; 3],
}

impl<T: Scalar> Default for Mirroring<T> {
    fn default() -> Self {
        Self { how: Mirror::default(), seed: 0, seen: 0, noise: Default::default() }
    }
}

impl<T> fmt::Debug for Mirroring<T> {
    /// What [`PartialEq`] compares.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.how, self.seed, self.seen).fmt(f)
    }
}

impl<T> PartialEq for Mirroring<T> {
    /// Compares settings and progress, not the numbers left from the last batch.
    fn eq(&self, other: &Self) -> bool {
        (self.how, self.seed, self.seen) == (other.how, other.seed, other.seen)
    }
}
