//! Noise in the hidden layers, from which matrices learn the slopes of the outputs.

use std::fmt;

use crate::{buffer::Columns, scalar::Scalar, workspace::Deltas};

/// The noise of one forward pass, and what became of it.
#[derive(Clone)]
pub(super) struct Slopes<T> {
    pub(super) seed: u64,
    /// The forward pass; 0 before the first.
    pub(super) pass: usize,
    /// `v_l` of each hidden layer that has such a matrix.
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
    /// Compares what noise is drawn from, not the memory of the last.
    fn eq(&self, other: &Self) -> bool {
        self.seed == other.seed
    }
}
