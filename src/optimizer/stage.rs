//! The fifth stage of a training step.

use super::{OptimizerState, guard::of_gradients};
use crate::{error::Result, network::Network, scalar::Scalar, workspace::Gradients};

impl<T: Scalar> OptimizerState<T> {
    /// Makes one step on every parameter of the layers that are not
    /// [frozen](Network::freeze).
    ///
    /// # Errors
    /// [`Error::StageMismatch`](crate::Error::StageMismatch) if the gradients or this state belong to
    /// another network. [`Error::NonFinite`](crate::Error::NonFinite) if a parameter, a moment or a
    /// running statistic would become infinite or NaN. After an error nothing has changed.
    pub fn step(&mut self, network: &mut Network<T>, gradients: &Gradients<T>) -> Result<()> {
        self.require_gradients(network, gradients)?;
        let bound = of_gradients(network, gradients);
        self.guarded(network, bound, |step, blocks, mut numbers| {
            for (layer, block) in blocks.iter().enumerate().filter(|(_, block)| !block.frozen) {
                let (gradient, learned) = gradients.of_layer(layer);
                step.follow((layer, block), numbers.layer(layer), gradient, learned);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use nalgebra::DVector;

    use super::*;
    use crate::optimizer::{Sgd, WeightDecay};

    #[test]
    fn weight_decay_spares_the_bias() {
        let mut network = Network::<f64>::builder(2).dense(1).build().unwrap();
        network.set_bias(0, DVector::from_element(1, 3.0)).unwrap();
        let before = network.clone();
        let mut gradients = Gradients::new();
        gradients.fit(&network.layout).unwrap();
        (0..2).for_each(|index| *gradients.slot_mut(0, index).1 = true);
        for weight_decay in [WeightDecay::L2(0.5), WeightDecay::Decoupled(0.5)] {
            let sgd = Sgd { learning_rate: 0.1, weight_decay, ..Sgd::default() };
            let mut network = network.clone();
            OptimizerState::new(&network, sgd).unwrap().step(&mut network, &gradients).unwrap();
            let (old, new) = (before.layer(0).unwrap(), network.layer(0).unwrap());
            assert_eq!(new.bias(), old.bias());
            assert_relative_eq!(new.weights().into_owned(), old.weights() * 0.95, epsilon = 1e-15);
        }
    }
}
