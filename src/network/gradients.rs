//! The way back: through the operations of a layer, to its parameters, and to the input.

use super::definition::Network;
use crate::{
    buffer::Columns,
    error::{Error, Result},
    layer::Operation,
    parameters::Part,
    scalar::Scalar,
    workspace::{Activations, Deltas, Gradients, require_delivered, require_match},
};

impl<T: Scalar> Network<T> {
    /// `δ_l ← δ_l ∘ f'(a_l)` of hidden layer `layer`. Takes what stands at the end of the layer
    /// ([`Deltas::arriving_mut`]) back through its pooling, normalisation, dropout and activation by
    /// their exact derivatives. The layer then learns from the result. So a rule of your own takes only
    /// a few lines: it writes the feedback, and this does the rest. Residual connections send nothing
    /// here. If your rule wants that, it adds it to what arrives.
    ///
    /// ```
    /// use feedback_alignment::*;
    /// use nalgebra::DMatrix;
    ///
    /// // Direct random target projection (Frenkel, Lefebvre and Bol 2021): in the place of the
    /// // error each hidden layer is sent the target.
    /// fn deliver_targets(
    ///     network: &Network<f64>,
    ///     b: &[DMatrix<f64>],
    ///     targets: &DMatrix<f64>,
    ///     activations: &Activations<f64>,
    ///     deltas: &mut Deltas<f64>,
    /// ) -> Result<()> {
    ///     for (layer, b) in b.iter().enumerate() {
    ///         let signal = b * targets / targets.ncols() as f64;
    ///         deltas.arriving_mut(layer)?.copy_from(&signal);
    ///         network.backward(layer, activations, deltas)?;
    ///     }
    ///     Ok(())
    /// }
    ///
    /// let mut network = Network::builder(2).dense(8).tanh().dense(2).seed(1).build()?;
    /// let b = [DMatrix::from_fn(8, 2, |i, j| if (i + j) % 2 == 0 { 0.3 } else { -0.3 })];
    /// let x = DMatrix::from_column_slice(2, 2, &[0.0, 1.0, 1.0, 1.0]);
    /// let targets = DMatrix::from_column_slice(2, 2, &[0.0, 1.0, 1.0, 0.0]);
    /// let mut optimizer = OptimizerState::new(&network, Sgd::default())?;
    /// let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    /// let mut gradients = Gradients::new();
    /// let mut loss = f64::INFINITY;
    /// for _ in 0..100 {
    ///     network.forward(&x, &mut activations)?;
    ///     loss = Loss::SoftmaxCrossEntropy.error(&targets, &activations, &mut deltas)?;
    ///     deliver_targets(&network, &b, &targets, &activations, &mut deltas)?;
    ///     network.gradients(&activations, &deltas, &mut gradients)?;
    ///     optimizer.step(&mut network, &gradients)?;
    /// }
    /// assert!(loss < 0.1, "{loss}");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] for a layer that is not hidden, [`Error::StageMismatch`] if the
    /// activations or deltas belong to another network or to different forward passes.
    pub fn backward(
        &self,
        layer: usize,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<()> {
        require_match("backward", &self.layout, activations, deltas)?;
        let count = self.layer_count() - 1;
        if layer >= count {
            return Err(Error::NoSuchLayer { what: "hidden layer", layer, count });
        }
        let (saved, deltas_of) = (&activations.blocks[layer], &mut deltas.blocks[layer]);
        self.blocks[layer].backward(self.parameters.layer(layer), saved, deltas_of);
        deltas.serve(layer);
        Ok(())
    }

    /// The gradients of every parameter, the same for every rule: `∂W_l = δ_l h_{l-1}ᵀ` and
    /// `∂b_l = Σ δ_l` over the samples (Nøkland 2016, eq. 10). The `1/N` of the mean over the batch is
    /// already in `δ`. Where no feedback has arrived the gradients are 0.
    ///
    /// # Errors
    /// [`Error::StageMismatch`] if the activations or deltas belong to another network or to different
    /// forward passes, or if feedback has not been delivered; [`Error::TooLarge`].
    pub fn gradients(
        &self,
        activations: &Activations<T>,
        deltas: &Deltas<T>,
        gradients: &mut Gradients<T>,
    ) -> Result<()> {
        require_delivered("gradients", &self.layout, activations, deltas)?;
        gradients.fit(&self.layout)?;
        self.layout.memory.reserve::<T>()?; // The forward pass may have been on another thread.
        for (layer, block) in self.blocks.iter().enumerate() {
            let deltas = &deltas.blocks[layer];
            for (index, slot) in self.layout.table.of_layer(layer).iter().enumerate() {
                let (to, learned) = gradients.slot_mut(layer, index);
                let learns = match slot.operation {
                    None => deltas.served,
                    Some(operation) => !deltas.learned[operation][slot.number].is_empty(),
                };
                *learned = learns;
                if !learns {
                    to.fill(T::zero());
                    continue;
                }
                let (delta, h) = (deltas.delta(), activations.entering(layer));
                match slot.operation {
                    Some(operation) => {
                        to.copy_from_slice(&deltas.learned[operation][slot.number]);
                    }
                    None if slot.part == Part::Bias => block.map.bias_gradient(delta, to),
                    None => block.map.store_gradient((slot.rows, slot.columns), delta, h, to),
                }
            }
        }
        Ok(())
    }

    /// `gradient ← ∂J/∂x`, for deltas that backpropagation has delivered: the same way one layer
    /// further down.
    pub(crate) fn input_gradient(
        &self,
        activations: &Activations<T>,
        deltas: &Deltas<T>,
        gradient: &mut Columns<T>,
    ) {
        let weights = self.parameters.layer(0).weights();
        let delta = deltas.blocks[0].delta();
        self.blocks[0].map.apply_transpose(weights, delta, gradient, &|_, _| ());
        for (block, operations) in deltas.blocks.iter().zip(&self.layout.operations) {
            for (copy, operation) in block.skipped.iter().zip(operations) {
                if let Some(skip) = operation.skip().filter(|skip| skip.from.is_none()) {
                    skip.add_down(copy.as_slice(), gradient.as_mut_slice());
                }
            }
        }
        for (operation, record) in
            self.layout.input_operations.iter().zip(&activations.input_operations).rev()
        {
            if let Operation::Dropout(dropout) = operation {
                dropout.backward(&record.notes.kept, gradient.as_mut_slice());
            }
        }
    }
}
