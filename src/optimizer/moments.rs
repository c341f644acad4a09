//! The moments of an optimiser, for files.

use super::{Optimizer, OptimizerState};
use crate::{
    error::Result, network::Network, parameters::Parameters, scalar::Scalar,
    workspace::require_layout,
};

/// What files call the first and the second moment, before the name of the parameter.
pub(crate) const MOMENTS: [&str; 2] = ["first_moment", "second_moment"];

impl Optimizer {
    /// The indices of the moments that it has.
    pub(crate) fn moment_indices(self) -> std::ops::Range<usize> {
        0..self.moments()
    }

    /// Which moment is a mean of squares, so at least 0.
    pub(crate) fn square(self) -> Option<usize> {
        match self {
            Self::Sgd(_) => None,
            Self::RmsProp(_) => Some(0),
            Self::Adam(_) | Self::AdamW(_) => Some(1),
        }
    }
}

impl<T: Scalar> OptimizerState<T> {
    /// A moment of every parameter.
    pub(crate) fn moments(&self, index: usize) -> &Parameters<T> {
        &self.moments[index]
    }

    /// Goes on where another state was after `steps` steps, with its `moments`.
    pub(crate) fn restore(&mut self, steps: u64, moments: [Parameters<T>; 2]) {
        self.steps = steps;
        self.moments = moments;
        self.measure_moments();
    }

    /// Fails unless this state was made for a network like this one.
    pub(crate) fn require_saved_with(&self, network: &Network<T>) -> Result<()> {
        require_layout("save", "the optimizer's moments", &network.layout, &self.layout)
    }
}
