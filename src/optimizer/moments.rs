//! The moments of an optimiser one after the other, for files.

use super::{Optimizer, OptimizerState};
use crate::{error::Result, network::Network, scalar::Scalar, workspace::require_layout};

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
    /// One moment of every learned parameter, in the order and the layout in which the network
    /// lists their values.
    pub(crate) fn moments(&self, index: usize) -> impl Iterator<Item = &[T]> {
        let pairs = self.blocks.iter().flat_map(|block| {
            [&block.weights, &block.bias].into_iter().chain(block.norms.iter().flatten())
        });
        // Parameters are never empty: where there is nothing there is no parameter.
        pairs.map(move |pair| &*pair[index]).filter(|moment| !moment.is_empty())
    }

    /// Goes on where another state was after `steps` steps, with its `moments` as
    /// [`moments`](Self::moments) lists them, one list for each index.
    pub(crate) fn restore(&mut self, steps: u64, moments: &[Vec<Vec<T>>]) {
        self.steps = steps;
        for (index, values) in moments.iter().enumerate() {
            let pairs = self.blocks.iter_mut().flat_map(|block| {
                [&mut block.weights, &mut block.bias]
                    .into_iter()
                    .chain(block.norms.iter_mut().flatten())
            });
            let slots = pairs.map(|pair| &mut pair[index]).filter(|moment| !moment.is_empty());
            for (to, from) in slots.zip(values) {
                to.copy_from_slice(from);
            }
        }
        self.measure_moments();
    }

    /// Fails unless this state was made for a network like this one.
    pub(crate) fn require_saved_with(&self, network: &Network<T>) -> Result<()> {
        require_layout("save", "the optimizer's moments", &network.layout, &self.layout)
    }
}
