//! The first stage of a training step, and the forward pass for evaluation.

use std::ops::Range;

use nalgebra::{DMatrix, DMatrixView};

use super::{block::operate, definition::Network};
use crate::{
    bound::bound_of_squares,
    buffer::When,
    error::{Error, Result, require_finite, require_samples},
    linalg::zero_matrix,
    scalar::Scalar,
    workspace::{Activations, Below},
};

/// How many samples go through an evaluation pass at once: enough for the products to run at full
/// speed, few enough for the activations to stay in cache.
pub(crate) const EVALUATION_BATCH: usize = 256;

/// How error messages call the input.
const INPUT: &str = "the input (features × samples)";

impl<T: Scalar> Network<T> {
    /// The forward pass of training: computes `a_l` and `h_l` of every layer for the samples `x`, of
    /// shape `n_0 × N`. `x` may be a matrix, a view of some columns, a vector or a slice. Dropout draws
    /// its masks from the seed and the step number in `activations`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for the wrong number of features, [`Error::Empty`] for no samples,
    /// [`Error::NonFinite`] for a NaN or an infinity in `x` or in what a layer computes,
    /// [`Error::BatchTooSmall`] if batch normalisation would see a single value, [`Error::TooLarge`] if
    /// there is not enough memory for the activations.
    pub fn forward<'x>(
        &self,
        x: impl Into<DMatrixView<'x, T>>,
        activations: &mut Activations<T>,
    ) -> Result<()> {
        self.train_pass(x.into(), activations, When::Next)?;
        activations.require_finite()
    }

    /// [`forward`](Self::forward) at a given step; does not check that the results are finite.
    pub(crate) fn train_pass(
        &self,
        x: DMatrixView<T>,
        activations: &mut Activations<T>,
        when: When,
    ) -> Result<()> {
        self.check_input(x)?;
        if x.ncols() < self.smallest_batch() {
            return Err(Error::BatchTooSmall {
                what: "batch normalisation needs two values of each feature: this batch is a single sample".into(),
            });
        }
        self.pass(activations, x.ncols(), when, |input| {
            copy(x, input);
            let squares = bound_of_squares(input);
            if squares == f64::INFINITY {
                require_finite(|| INPUT.to_owned(), x.nrows(), input)?;
            }
            Ok(squares)
        })
    }

    /// A forward pass over `samples` samples. `write` puts them into the input, or leaves them there if
    /// the last pass had as many. It returns an upper bound of all `x²`; evaluation does not use that
    /// bound.
    pub(crate) fn pass(
        &self,
        activations: &mut Activations<T>,
        samples: usize,
        when: When,
        write: impl FnOnce(&mut [T]) -> Result<f64>,
    ) -> Result<()> {
        activations.fit(&self.layout, samples)?;
        activations.input_squares = write(activations.input.as_mut_slice())?;
        self.pass_through(0..self.layer_count(), activations, when);
        Ok(())
    }

    /// The part of a pass that goes through `layers`. The input of the first of them already stands in
    /// `activations`, which have room for all layers.
    pub(crate) fn pass_through(
        &self,
        layers: Range<usize>,
        activations: &mut Activations<T>,
        when: When,
    ) {
        let pass = activations.begin_pass(when);
        let Activations { input, input_operations, .. } = activations;
        if layers.start == 0 && !input_operations.is_empty() {
            let (on_input, how) = (&self.layout.input_operations, (pass, false));
            let with = (self.parameters.layer(0), Below::of_input(input));
            operate((on_input, 0), with, input, input_operations, how);
        }
        for layer in layers {
            let (below, from) = activations.split_at(layer);
            self.blocks[layer].forward(self.parameters.layer(layer), below, &mut from[0], pass);
        }
    }

    /// The forward pass of evaluation: returns the logits of the samples `x`, of shape `n_L × N`.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward), except that any size of batch is allowed.
    pub fn predict<'x>(&self, x: impl Into<DMatrixView<'x, T>>) -> Result<DMatrix<T>> {
        let x = x.into();
        self.check_input(x)?;
        if let Some(at) = x.iter().position(|x| !x.is_finite()) {
            let (row, column) = (at % x.nrows(), at / x.nrows());
            let found = x[(row, column)].as_f64();
            return Err(Error::NonFinite { what: INPUT.into(), row, column, found });
        }
        let mut logits = zero_matrix(self.output_len(), x.ncols())?;
        let mut activations = Activations::new();
        let batches = logits.as_mut_slice().chunks_mut(EVALUATION_BATCH * self.output_len());
        for (index, logits) in batches.enumerate() {
            let samples = logits.len() / self.output_len();
            let x = x.columns(index * EVALUATION_BATCH, samples);
            self.pass(&mut activations, samples, When::Evaluating, |input| {
                copy(x, input);
                Ok(f64::INFINITY)
            })?;
            activations.require_finite()?;
            logits.copy_from_slice(activations.logit_columns()?.as_slice());
        }
        Ok(logits)
    }

    fn check_input(&self, x: DMatrixView<T>) -> Result<()> {
        if x.ncols() == 0 {
            return Err(Error::Empty { what: "the batch".into() });
        }
        require_samples(INPUT, (self.input_len(), x.ncols()), x.shape())
    }
}

/// Copies a matrix whose columns need not lie side by side in memory.
fn copy<T: Scalar>(x: DMatrixView<T>, to: &mut [T]) {
    /// For columns this short, a call that copies memory takes longer than a loop.
    const FEW: usize = 16;
    for (x, to) in x.column_iter().zip(to.chunks_exact_mut(x.nrows())) {
        if to.len() < FEW {
            to.iter_mut().zip(x.as_slice()).for_each(|(to, &x)| *to = x);
        } else {
            to.copy_from_slice(x.as_slice());
        }
    }
}
