//! Matrices that the optimiser trains: Kolen-Pollack, direct Kolen-Pollack, FDFA and PFA.

use nalgebra::DMatrix;

use super::{
    Feedback,
    stored::{Beside, Stored},
};
use crate::{
    bound::bound_of_squares,
    error::{Error, Result, require_finite},
    layer::LinearMap,
    linalg::filled,
    network::Network,
    route::{Hop, Through},
    scalar::Scalar,
    workspace::{Activations, Deltas, Gradients, require_delivered},
};

/// A matrix that learns, and its first and second moments, which may be empty.
pub(crate) struct Learning<'a, T> {
    /// Its hop, if it has a gradient of its own; `None` if it follows the gradient of the weights.
    pub(crate) own_gradient: Option<usize>,
    /// It learns at the learning rate of this weighted layer.
    pub(crate) layer: usize,
    pub(crate) matrix: &'a mut DMatrix<T>,
    pub(crate) moments: &'a mut [Vec<T>; 2],
}

/// A copy to go back to after an error: the learning matrices with their moments, and the largest
/// moment.
pub(crate) struct Before<T>(Vec<(DMatrix<T>, [Vec<T>; 2])>, f64);

impl<T: Scalar> Feedback<T> {
    /// Whether some matrix learns.
    pub(crate) fn learns(&self) -> bool {
        self.route.learns()
    }

    /// Computes the gradients of the matrices that have gradients of their own:
    ///
    /// - `∂B_l = h_l sᵀ` under [`DirectKolenPollack`](Through::DirectKolenPollack), where `s` is the
    ///   signal sent,
    /// - `∂B_l = B_l − v_l dᵀ` under [`Jacobian`](Through::Jacobian), the mean over the batch,
    /// - `∂R = (Bᵀ δ_{l+1}) h_lᵀ` under [`Product`](Through::Product).
    ///
    /// They are stored beside the gradients of the network. If no matrix has a gradient of its own,
    /// this does nothing.
    ///
    /// # Errors
    /// [`Error::StageMismatch`](crate::Error::StageMismatch) if the network, activations, deltas and
    /// gradients do not belong together, or if this feedback has not been delivered;
    /// [`Error::TooLarge`](crate::Error::TooLarge).
    pub fn gradients(
        &self,
        network: &Network<T>,
        activations: &Activations<T>,
        deltas: &Deltas<T>,
        gradients: &mut Gradients<T>,
    ) -> Result<()> {
        if !self.route.has(Through::has_gradient) {
            gradients.clear_feedback();
            return Ok(());
        }
        self.require_network(network)?;
        require_delivered("gradients", &network.layout, activations, deltas)?;
        self.require_between(deltas)?;
        self.require_slopes(activations)?;
        gradients.require(&network.layout)?;
        self.memory.reserve::<T>()?;
        let shape = |(matrix, hop): (&Option<Stored<T>>, &Hop)| {
            let matrix = matrix.as_ref().filter(|_| hop.through.has_gradient());
            matrix.map_or((0, 0), |matrix| matrix.numbers.shape())
        };
        gradients.fit_feedback(self.matrices.iter().zip(self.route.hops()).map(shape))?;
        for (index, &hop) in self.route.hops().iter().enumerate() {
            let Some(matrix) = &self.matrices[index] else { continue };
            let gradient = gradients.feedback_mut(index);
            let h = activations.entering(hop.to + 1);
            match (hop.through, &matrix.beside) {
                (Through::DirectKolenPollack, _) => {
                    let signal = deltas.signal(hop.signal).delta();
                    LinearMap::Dense.store_gradient(matrix.numbers.shape(), h, signal, gradient);
                }
                (Through::Jacobian, _) => {
                    self.gradient_of_slopes(hop.to, matrix.numbers.as_slice(), gradient);
                }
                (Through::Product(width), Beside::Left(_)) => {
                    let map = network.blocks[self.route.owner(hop)].map.widened(width);
                    if let Some(between) = deltas.blocks[hop.to].between(index) {
                        map.store_gradient(matrix.numbers.shape(), between, h, gradient);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Fails if it can tell from the factored matrices that another feedback delivered these deltas.
    fn require_between(&self, deltas: &Deltas<T>) -> Result<()> {
        for (index, hop) in self.route.hops().iter().enumerate() {
            let there = deltas.blocks[hop.to].between(index);
            if matches!(hop.through, Through::Product(_))
                && there.is_none_or(|there| {
                    there.rows() != self.between(index) || there.batch() != deltas.batch
                })
            {
                return Err(Error::StageMismatch {
                    stage: "gradients",
                    what: "deltas",
                    expected: format!("those that feedback on {} has delivered", self.route),
                    found: "those of other feedback".into(),
                });
            }
        }
        Ok(())
    }

    /// All matrices that learn.
    pub(crate) fn learning(&mut self) -> impl Iterator<Item = Learning<'_, T>> {
        let route = &self.route;
        let matrices = self.matrices.iter_mut().zip(route.hops()).enumerate();
        matrices.filter_map(|(index, (matrix, &hop))| {
            let stored = matrix.as_mut().filter(|_| hop.through.learns())?;
            let (matrix, moments) = (&mut stored.numbers, &mut stored.moments);
            let own_gradient = hop.through.has_gradient().then_some(index);
            let layer = match hop.through {
                Through::Jacobian => hop.to, // It does not replace the weights of another layer.
                _ => route.owner(hop),
            };
            Some(Learning { own_gradient, layer, matrix, moments })
        })
    }

    /// Fails unless there is a gradient for every matrix that has one of its own.
    pub(crate) fn require_gradients(&self, gradients: &Gradients<T>) -> Result<()> {
        for (index, (matrix, hop)) in self.matrices.iter().zip(self.route.hops()).enumerate() {
            let Some(matrix) = matrix.as_ref().filter(|_| hop.through.has_gradient()) else {
                continue;
            };
            if gradients.of_feedback(index, matrix.numbers.shape()).is_none() {
                return Err(Error::StageMismatch {
                    stage: "step",
                    what: "gradients",
                    expected: format!("that of the hop {hop} too: call Feedback::gradients first"),
                    found: "gradients without it".into(),
                });
            }
        }
        Ok(())
    }

    /// Empties all moments, for an optimiser to which they mean nothing.
    pub(crate) fn forget_moments(&mut self) {
        for Learning { moments, .. } in self.learning() {
            moments.iter_mut().for_each(Vec::clear);
        }
        self.largest_moment = 0.0;
    }

    /// Makes room for `count` moments of each matrix, as many as the optimiser has.
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

    /// An upper bound of the magnitudes of all first moments.
    pub(crate) fn largest_moment(&self) -> f64 {
        self.largest_moment
    }

    pub(crate) fn set_largest_moment(&mut self, largest: f64) {
        self.largest_moment = largest;
    }

    /// Computes this bound anew.
    pub(crate) fn measure_moments(&mut self) {
        let firsts = self.learning().map(|learning| bound_of_squares(&learning.moments[0]));
        self.largest_moment = firsts.fold(0.0, f64::max).sqrt();
    }

    /// An upper bound of the magnitudes of all entries of the matrices that learn.
    pub(crate) fn largest_entry(&mut self) -> f64 {
        let matrices = self.learning().map(|learning| bound_of_squares(learning.matrix.as_slice()));
        matrices.fold(0.0, f64::max).sqrt()
    }

    pub(crate) fn copy(&mut self) -> Before<T> {
        let all = self
            .learning()
            .map(|Learning { matrix, moments, .. }| (matrix.clone(), moments.clone()));
        Before(all.collect(), self.largest_moment)
    }

    pub(crate) fn go_back(&mut self, before: Before<T>) {
        for (Learning { matrix, moments, .. }, before) in self.learning().zip(before.0) {
            (*matrix, *moments) = before;
        }
        self.largest_moment = before.1;
    }

    /// Fails at the first number that is not finite.
    pub(crate) fn require_finite(&mut self) -> Result<()> {
        self.learning().try_for_each(|Learning { layer, matrix, moments, .. }| {
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
}
