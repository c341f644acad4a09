//! Making sure that a step leaves only finite numbers.
//!
//! A step updates weights in place, tile by tile and on several threads. So once a weight has
//! overflowed, the step cannot be taken back. Therefore bounds are computed beforehand. The gradient of
//! a weight is a sum of products `δ h`, so it is at most their number times the largest `δ` times the
//! largest `h`. In healthy training this bound is some twenty orders of magnitude below the largest
//! number. If it is not, the step is made with a copy to go back to.

use super::{NextStep, Numbers, OptimizerState};
use crate::{
    bound::bound_of_squares,
    buffer::Learned,
    error::{Result, require_finite},
    network::{Block, Network},
    scalar::Scalar,
    workspace::Gradients,
};

/// An upper bound of the squared gradients of all layers that learn.
pub(crate) fn of_gradients<T: Scalar>(network: &Network<T>, gradients: &Gradients<T>) -> f64 {
    let learning = network.blocks.iter().enumerate().filter(|(_, block)| !block.frozen);
    learning.fold(0.0, |largest, (layer, _)| {
        f64::max(largest, bound_of_squares(gradients.of_layer(layer).0.numbers))
    })
}

/// The same for what operations learn: gradients of normalisations, and the statistics of the batch
/// that running statistics follow.
pub(crate) fn of_learned<T: Scalar>(learned: &[Learned<T>]) -> f64 {
    let parts = learned.iter().flatten().filter(|part| !part.is_empty());
    parts.fold(0.0, |largest, part| f64::max(largest, bound_of_squares(part)))
}

impl<T: Scalar> NextStep<'_, T> {
    /// Whether nothing can overflow, and an upper bound of the first moments after the step. Known are
    /// bounds before it: of squared gradients (`squares`), of first moments (`moment`), and of weights
    /// (`weights()`).
    pub(crate) fn is_safe(
        &self,
        squares: f64,
        moment: f64,
        weights: impl FnOnce() -> f64,
    ) -> (bool, f64) {
        let gradient = squares.sqrt();
        let (change, moment) = self.longest().largest_change(gradient, moment, weights);
        // The square of the gradient has to fit, and the change has to be below half of the last digit of
        // the largest number: then adding it to any weight cannot overflow.
        let (square, digit) = (T::LARGEST.sqrt() / 4.0, T::LARGEST * T::EPSILON / 8.0);
        (gradient < square && change < digit && moment < digit, moment)
    }
}

impl<T: Scalar> OptimizerState<T> {
    /// The step that comes next.
    pub(crate) fn next_step(&self) -> NextStep<'_, T> {
        let (rate, t) = (self.learning_rate(), self.steps + 1);
        NextStep::new(self.optimizer, (rate, t), self.max_norm, &self.rates)
    }

    /// Whether the step along these gradients is certain not to overflow.
    pub(crate) fn is_safe(&self, network: &Network<T>, squares: f64) -> bool {
        let weights = || bound_of_squares(network.parameters.as_slice()).sqrt();
        self.next_step().is_safe(squares, self.largest_moment, weights).0
    }

    /// The next step of the feedback matrices that learn.
    pub(crate) fn next_feedback_step(&self) -> NextStep<'_, T> {
        let Some(optimizer) = self.feedback else { return self.next_step() };
        let rate = optimizer.learning_rate() * self.schedule.factor(self.steps);
        NextStep::new(optimizer, (rate, self.steps + 1), None, &[])
    }

    /// The number of moments of the feedback matrices that learn.
    pub(crate) fn feedback_moments(&self) -> usize {
        self.feedback.unwrap_or(self.optimizer).moments()
    }

    /// The parameters and moments of all layers, to be divided among threads.
    #[cfg(feature = "mpi")]
    pub(crate) fn all_numbers<'a>(&'a mut self, network: &'a mut Network<T>) -> Numbers<'a, T> {
        let [first, second] = &mut self.moments;
        Numbers::new([network.parameters.all_layers(), first.all_layers(), second.all_layers()])
    }

    /// Makes `step` for gradients whose squares are at most `squares`. Fails if a parameter, a moment
    /// or a running statistic would not be finite after it; nothing has then changed.
    pub(crate) fn guarded(
        &mut self,
        network: &mut Network<T>,
        squares: f64,
        step: impl FnOnce(&NextStep<'_, T>, &[Block], Numbers<'_, T>),
    ) -> Result<()> {
        let (rate, t) = (self.learning_rate(), self.steps + 1);
        let next = NextStep::new(self.optimizer, (rate, t), self.max_norm, &self.rates);
        let weights = || bound_of_squares(network.parameters.as_slice()).sqrt();
        let (is_safe, moment) = next.is_safe(squares, self.largest_moment, weights);
        let before = (!is_safe).then(|| (network.parameters.clone(), self.moments.clone()));
        let [first, second] = &mut self.moments;
        let all = [network.parameters.all_layers(), first.all_layers(), second.all_layers()];
        step(&next, &network.blocks, Numbers::new(all));
        self.largest_moment = moment;
        if let Some(before) = before {
            if let Err(error) = self.require_finite(network) {
                (network.parameters, self.moments) = before;
                self.measure_moments();
                return Err(error);
            }
            self.measure_moments();
        }
        self.steps += 1;
        Ok(())
    }

    /// Computes the upper bound of the first moments anew.
    pub(crate) fn measure_moments(&mut self) {
        self.largest_moment = bound_of_squares(self.moments[0].as_slice()).sqrt();
    }

    /// Fails at the first number that is not finite.
    fn require_finite(&self, network: &Network<T>) -> Result<()> {
        for slot in network.parameters.slots() {
            let what = || format!("{slot} after this step");
            require_finite(what, slot.rows, network.parameters.slot(slot))?;
            for moments in self.moments.iter().filter(|moments| !moments.as_slice().is_empty()) {
                let what = || format!("a moment of {slot} after this step");
                require_finite(what, slot.rows, moments.slot(slot))?;
            }
        }
        Ok(())
    }
}
