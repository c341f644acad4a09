//! How much a step lowers the loss.

use nalgebra::DMatrixView;

use super::Diagnostics;
use crate::{
    error::{Result, require_finite},
    scalar::Scalar,
    targets::Targets,
    trainer::Trainer,
    vector::sum_of,
};

impl<T: Scalar> Diagnostics<T> {
    /// How much the trainer's next step on the samples `x`, of shape `n_0 × N`, lowers the loss, to
    /// first order and layer by layer: `−⟨∂J/∂θ_l, Δθ_l⟩`. Here `θ_l` are all parameters of the layer,
    /// and `∂J/∂θ_l` is backpropagation's derivative before the step. `Δθ_l` is the change that the
    /// step makes, with optimiser, schedule and max-norm. The result is positive if the layer goes
    /// downhill, and 0 for a layer that the step does not change. The step is made on a copy of the
    /// trainer.
    ///
    /// ```
    /// use feedback_alignment::{Diagnostics, FeedbackRule, Network, Sgd, Trainer, nalgebra::DMatrix};
    ///
    /// let x = DMatrix::from_fn(6, 12, |i, j| ((i * 5 + j * 3) % 7) as f64 / 3.0 - 1.0);
    /// let labels = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2];
    /// let network = Network::<f64>::builder(6).dense(20).tanh().dense(3).build()?;
    /// let sgd = Sgd { learning_rate: 1e-6, ..Sgd::default() };
    /// let mut trainer = Trainer::builder(network).rule(FeedbackRule::Bp).optimizer(sgd).build()?;
    ///
    /// let mut diagnostics = Diagnostics::new(trainer.network())?;
    /// let descent: f64 = diagnostics.descent(&trainer, &x, &labels)?.iter().sum();
    /// let before = trainer.step(&x, &labels)?.loss;
    /// let after = trainer.step(&x, &labels)?.loss;
    /// assert!(((before - after) / descent - 1.0).abs() < 1e-4);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Trainer::step`] and [`observe`](Self::observe).
    pub fn descent<'x, 'a>(
        &mut self,
        trainer: &Trainer<T>,
        x: impl Into<DMatrixView<'x, T>>,
        targets: impl Into<Targets<'a, T>>,
    ) -> Result<Vec<f64>> {
        let (x, targets, network) = (x.into(), targets.into(), trainer.network());
        self.require_network(network)?;
        self.with_pass(trainer, x, &targets, |this, activations, deltas| {
            this.backpropagate(network, activations, deltas)
        })?;
        let mut next = trainer.clone();
        next.step(x, targets)?;
        let layers = (0..network.layer_count()).map(|layer| {
            let (old, new) =
                (network.parameters.layer(layer), next.network().parameters.layer(layer));
            let gradients = self.bp_gradients.of_layer(layer).0.numbers;
            let learned = old.slots.iter().filter(|slot| slot.part.is_learned());
            let descents = learned.map(|slot| {
                let gradient = slot.of(gradients);
                require_finite(|| format!("the gradient of {slot}"), slot.rows, gradient)?;
                let (old, new) = (slot.of(old.numbers), slot.of(new.numbers));
                Ok(sum_of(0..slot.len(), &|index| {
                    gradient[index].as_f64() * (old[index].as_f64() - new[index].as_f64())
                }))
            });
            descents.sum()
        });
        layers.collect()
    }
}
