//! The product of the weights above a layer: what a direct feedback matrix stands in for.

use super::definition::Network;
use crate::{
    buffer::Columns,
    error::{Result, require_finite},
    scalar::Scalar,
};

impl<T: Scalar> Network<T> {
    /// Calls `visit` with `(W_L ⋯ W_{l+1})ᵀ` of every hidden layer, from the last one down to `lowest`.
    /// It stops early below a layer with pooling or a residual connection, because the product is not
    /// defined there.
    ///
    /// The product is computed by sending a batch of unit errors back through the weights, without
    /// derivatives. That takes `n_L` columns per layer instead of a product of whole matrices, and
    /// works for convolutions too.
    pub(crate) fn products_above(
        &self,
        lowest: usize,
        mut visit: impl FnMut(usize, &[T]),
    ) -> Result<()> {
        let outputs = self.output_len();
        let mut errors = Columns::new(outputs);
        errors.set_batch(outputs)?;
        errors.as_mut_slice().iter_mut().step_by(outputs + 1).for_each(|one| *one = T::one());
        for layer in (lowest..self.layer_count() - 1).rev() {
            let rows = self.layout.output(layer);
            let mut arrived = Columns::new(rows);
            arrived.set_batch(outputs)?;
            let weights = self.parameters.layer(layer + 1).weights();
            let map = self.blocks[layer + 1].map;
            map.apply_transpose(weights, &errors, &mut arrived, &|_, _| ());
            let what = || format!("the product of the weights above weighted layer {layer}");
            require_finite(what, rows, arrived.as_slice())?;
            visit(layer, arrived.as_slice());
            let mut operations = self.blocks[layer].operations.iter();
            if operations
                .any(|operation| operation.pooling().is_some() || operation.skip().is_some())
            {
                break;
            }
            errors = arrived;
        }
        Ok(())
    }
}
