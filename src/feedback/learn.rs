//! Matrices that learn: those of Kolen and Pollack, which get the updates of the weights.

use nalgebra::DMatrix;

use super::Feedback;
use crate::{
    error::{Result, require_finite},
    linalg::filled,
    route::Through,
    scalar::Scalar,
    vector::bound_of_squares,
};

/// A matrix that learns: the weighted layer whose updates it gets, its numbers, and both moments of
/// them, which may be empty.
pub(crate) struct Learning<'a, T> {
    pub(crate) layer: usize,
    pub(crate) matrix: &'a mut DMatrix<T>,
    pub(crate) moments: &'a mut [Vec<T>; 2],
}

/// What to go back to.
pub(crate) struct Before<T>(Vec<Option<DMatrix<T>>>, Vec<[Vec<T>; 2]>, f64);

impl<T: Scalar> Feedback<T> {
    /// Whether some matrix learns.
    pub(crate) fn learns(&self) -> bool {
        self.route.learns()
    }

    /// All matrices that learn.
    pub(crate) fn learning(&mut self) -> impl Iterator<Item = Learning<'_, T>> {
        let route = &self.route;
        let matrices = self.matrices.iter_mut().zip(&mut self.moments).zip(route.hops());
        matrices.filter_map(|((matrix, moments), &hop)| {
            let layer = route.owner(hop);
            let matrix = matrix.as_mut().filter(|_| hop.through == Through::KolenPollack)?;
            Some(Learning { layer, matrix, moments })
        })
    }

    /// Makes room for as many moments as the optimiser has.
    pub(crate) fn fit_moments(&mut self, count: usize) -> Result<()> {
        let mut changed = false;
        for Learning { matrix, moments, .. } in self.learning() {
            for (index, moment) in moments.iter_mut().enumerate() {
                let length = if index < count { matrix.len() } else { 0 };
                if moment.len() != length {
                    *moment = filled(length, T::zero(), matrix.shape())?;
                    changed = true;
                }
            }
        }
        if changed {
            self.largest_moment = 0.0;
        }
        Ok(())
    }

    /// A number that no first moment exceeds.
    pub(crate) fn largest_moment(&self) -> f64 {
        self.largest_moment
    }

    pub(crate) fn set_largest_moment(&mut self, largest: f64) {
        self.largest_moment = largest;
    }

    /// Looks for the largest first moment.
    pub(crate) fn measure_moments(&mut self) {
        let firsts = self.moments.iter().map(|[first, _]| bound_of_squares(first));
        self.largest_moment = firsts.fold(0.0, f64::max).sqrt();
    }

    /// A number that no entry of a matrix that learns exceeds.
    pub(crate) fn largest_entry(&mut self) -> f64 {
        let matrices = self.learning().map(|learning| bound_of_squares(learning.matrix.as_slice()));
        matrices.fold(0.0, f64::max).sqrt()
    }

    pub(crate) fn copy(&self) -> Before<T> {
        Before(self.matrices.clone(), self.moments.clone(), self.largest_moment)
    }

    pub(crate) fn go_back(&mut self, before: Before<T>) {
        (self.matrices, self.moments, self.largest_moment) = (before.0, before.1, before.2);
    }

    /// Fails with the first number that is not finite.
    pub(crate) fn require_finite(&mut self) -> Result<()> {
        self.learning().try_for_each(|Learning { layer, matrix, moments }| {
            let name = |what: &str| {
                format!(
                    "{what} of the feedback that follows weighted layer {layer} after this step"
                )
            };
            require_finite(|| name("B"), matrix.nrows(), matrix.as_slice())?;
            let mut moments = moments.iter();
            moments
                .try_for_each(|moment| require_finite(|| name("a moment"), matrix.nrows(), moment))
        })
    }

    /// One moment of every matrix that learns, with the matrix's rows and columns.
    #[cfg(feature = "safetensors")]
    pub(crate) fn moments(&self, index: usize) -> impl Iterator<Item = (&[T], (usize, usize))> {
        let learning = self.route.hops().iter().zip(&self.moments).zip(&self.matrices);
        let learning = learning.filter(|((hop, _), _)| hop.through == Through::KolenPollack);
        learning.map(move |((_, moments), matrix)| {
            (&moments[index][..], matrix.as_ref().map_or((0, 0), DMatrix::shape))
        })
    }

    /// Goes on with these moments of the matrices that learn.
    #[cfg(feature = "safetensors")]
    pub(crate) fn restore_moments(&mut self, mut moments: [Vec<Vec<T>>; 2]) {
        for learning in self.learning() {
            for (moment, all) in learning.moments.iter_mut().zip(&mut moments) {
                let saved = if all.is_empty() { Vec::new() } else { all.remove(0) };
                // Before the first step there are none, which is the same as zeros.
                *moment = if saved.iter().all(|&m| m == T::zero()) { Vec::new() } else { saved };
            }
        }
        self.measure_moments();
    }

    /// What files call the matrices of a route that learn, with their rows and columns.
    #[cfg(feature = "safetensors")]
    pub(crate) fn learning_names(
        network: &crate::network::Network<T>,
        route: &crate::route::Route,
    ) -> Vec<(String, (usize, usize))> {
        let hops = route.hops().iter().enumerate();
        let learning = hops.filter(|(_, hop)| hop.through == Through::KolenPollack);
        learning
            .map(|(index, &hop)| (format!("hop.{index}"), network.blocks[route.owner(hop)].shape))
            .collect()
    }
}
