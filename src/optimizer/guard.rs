//! Keeping what a step writes finite.
//!
//! A step updates weights in place, tile by tile and on several threads, so it cannot be taken back
//! once a weight has overflowed. Bounds tell beforehand whether that can happen: the gradient of a
//! weight is a sum of products `δ h`, no larger than their number times the largest `δ` and the
//! largest `h`. As long as training goes well the bound is some twenty orders of magnitude away
//! from the largest number. Where it is not, the step is made with a copy to go back to.

use super::{BlockMoments, NextStep, OptimizerState};
use crate::{
    error::{Result, require_finite},
    layer::{NormGradient, Operation},
    network::{Block, Network},
    scalar::Scalar,
    vector::bound_of_squares,
    workspace::Gradients,
};

/// A number that no square of a gradient exceeds, of the layers that learn.
pub(super) fn of_gradients<T: Scalar>(network: &Network<T>, gradients: &Gradients<T>) -> f64 {
    let layers = gradients.layers.iter().zip(&gradients.norms).zip(&network.blocks);
    let learning = layers.filter(|(_, block)| !block.frozen);
    learning.fold(0.0, |largest, ((layer, norms), _)| {
        let bias = layer.bias.as_ref().map_or(0.0, |bias| bound_of_squares(bias.as_slice()));
        let weights = bound_of_squares(layer.weights.as_slice());
        f64::max(largest, f64::max(weights, f64::max(bias, of_norms(norms))))
    })
}

/// The same of batch normalisation, and of the statistics that the running ones follow.
pub(crate) fn of_norms<T: Scalar>(norms: &[NormGradient<T>]) -> f64 {
    norms.iter().filter(|norm| !norm.scale.is_empty()).fold(0.0, |largest, norm| {
        let NormGradient { scale, shift, mean, variance } = norm;
        let numbers = [scale, shift, mean, variance].into_iter();
        numbers.fold(largest, |largest, v| f64::max(largest, bound_of_squares(v)))
    })
}

impl<T: Scalar> OptimizerState<T> {
    /// Makes `step`, with gradients whose squares are at most `squares`. Fails if a parameter, a moment or a
    /// running statistic would not be finite after it; nothing has then changed.
    pub(crate) fn guarded(
        &mut self,
        network: &mut Network<T>,
        squares: f64,
        step: impl FnOnce(&NextStep<'_, T>, &mut [Block<T>], &mut [BlockMoments<T>]),
    ) -> Result<()> {
        let (rate, t) = (self.learning_rate(), self.steps + 1);
        let next = NextStep::new(self.optimizer, (rate, t), self.max_norm, &self.rates);
        let gradient = squares.sqrt();
        let weights = || {
            let weights = network.blocks.iter().map(|block| block.layer.weights.as_slice());
            weights.fold(0.0, |most, w| f64::max(most, bound_of_squares(w))).sqrt()
        };
        let (change, moment) =
            next.longest().largest_change(gradient, self.largest_moment, weights);
        // The square of a gradient, and less than half of the last digit of the largest weight.
        let (square, digit) = (T::LARGEST.sqrt() / 4.0, T::LARGEST * T::EPSILON / 8.0);
        if gradient < square && change < digit && moment < digit {
            step(&next, &mut network.blocks, &mut self.blocks);
            self.largest_moment = moment;
        } else {
            let before = (network.blocks.clone(), self.blocks.clone());
            step(&next, &mut network.blocks, &mut self.blocks);
            if let Err(error) = self.require_finite(network) {
                (network.blocks, self.blocks) = before;
                return Err(error);
            }
            self.measure_moments();
        }
        self.steps += 1;
        Ok(())
    }

    /// Looks for the largest first moment.
    pub(super) fn measure_moments(&mut self) {
        let moments = self.blocks.iter().flat_map(|block| {
            let norms = block.norms.iter().flatten().map(|[first, _]| first);
            [&block.weights[0], &block.bias[0]].into_iter().chain(norms)
        });
        self.largest_moment =
            moments.fold(0.0, |most, v| f64::max(most, bound_of_squares(v))).sqrt();
    }

    /// Fails with the first number that is not finite.
    fn require_finite(&self, network: &Network<T>) -> Result<()> {
        for (layer, (block, moments)) in network.blocks.iter().zip(&self.blocks).enumerate() {
            let require = |name: &str, rows: usize, values: &[T]| {
                let what = || format!("{name} of weighted layer {layer} after this step");
                require_finite(what, rows.max(1), values)
            };
            let rows = block.layer.weights.nrows();
            require("W", rows, block.layer.weights.as_slice())?;
            if let Some(bias) = &block.layer.bias {
                require("b", rows, bias.as_slice())?;
            }
            for operation in &block.operations {
                let Operation::BatchNorm(norm) = operation else { continue };
                require("γ", norm.scale.len(), norm.scale.as_slice())?;
                require("β", norm.scale.len(), norm.shift.as_slice())?;
                require("the running mean", norm.scale.len(), norm.running_mean.as_slice())?;
                require(
                    "the running variance",
                    norm.scale.len(),
                    norm.running_variance.as_slice(),
                )?;
            }
            let norms =
                moments.norms.iter().flatten().flatten().map(|moment| (moment.len(), moment));
            let of_layer = moments.weights.iter().chain(&moments.bias).map(|moment| (rows, moment));
            let mut all = of_layer.chain(norms);
            all.try_for_each(|(rows, moment)| require("a moment", rows, moment))?;
        }
        Ok(())
    }
}
