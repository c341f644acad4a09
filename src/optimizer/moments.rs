//! The moments of an optimiser, as files store them.

use super::{Optimizer, OptimizerState};
use crate::{
    error::Result, network::Network, parameters::Parameters, scalar::Scalar,
    workspace::require_layout,
};

/// The names of the first and the second moment in files. The name of the parameter follows.
pub(crate) const MOMENTS: [&str; 2] = ["first_moment", "second_moment"];

impl Optimizer {
    /// The indices of the moments that it has.
    pub(crate) fn moment_indices(self) -> std::ops::Range<usize> {
        0..self.moments()
    }

    /// Which moment is a mean of squares and so never negative.
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

    /// Restores the state that another had after `steps` steps.
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
