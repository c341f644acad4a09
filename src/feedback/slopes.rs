//! The noise in the hidden layers from which matrices learn the slopes of the outputs (FDFA).

use std::fmt;

use crate::{buffer::Columns, scalar::Scalar, workspace::Deltas};

/// The noise of one forward pass, and the changes that it made.
#[derive(Clone)]
pub(super) struct Slopes<T> {
    pub(super) seed: u64,
    /// The forward pass; 0 before the first.
    pub(super) pass: usize,
    /// `v_l` of each hidden layer whose matrix learns from it.
    pub(super) noise: Vec<Option<Columns<T>>>,
    pub(super) tangents: Deltas<T>,
}

impl<T: Scalar> Default for Slopes<T> {
    fn default() -> Self {
        Self { seed: 0, pass: 0, noise: Vec::new(), tangents: Deltas::new() }
    }
}

impl<T> fmt::Debug for Slopes<T> {
    /// What [`PartialEq`] compares.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.seed.fmt(f)
    }
}

impl<T> PartialEq for Slopes<T> {
    /// Compares the seed, not the numbers left from the last pass.
    fn eq(&self, other: &Self) -> bool {
        self.seed == other.seed
    }
}
