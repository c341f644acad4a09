//! The operations between two weighted layers, as one type.

use std::fmt;

use super::{
    batch_norm::BatchNorm, dropout::Dropout, layer_norm::LayerNorm, pool2d::Pool2d, skip::Skip,
};
use crate::{
    activation::Activation,
    buffer::{Learned, Notes, Pass, Statistics, reserve},
    error::Result,
    parameters::OfLayer,
    scalar::Scalar,
    threads::{Chunks, pieces, share_out},
};

/// An operation between two weighted layers, without weights. All but [`Skip`] use only their input.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// An elementwise function.
    Activation(Activation),
    /// The largest value, or the mean, of each window.
    Pool2d(Pool2d),
    /// Normalisation by the statistics of the batch.
    BatchNorm(BatchNorm),
    /// Normalisation of every sample by itself.
    LayerNorm(LayerNorm),
    /// Units set to 0 at random in training.
    Dropout(Dropout),
    /// Adds the output of an earlier layer.
    Skip(Skip),
}

impl Operation {
    /// The residual connection that it is, if it is one.
    pub(crate) fn skip(&self) -> Option<&Skip> {
        match self {
            Self::Skip(skip) => Some(skip),
            _ => None,
        }
    }

    /// Makes room for the notes on this many samples, of `size` outputs each.
    pub(crate) fn reserve_notes<T>(
        &self,
        notes: &mut Notes<T>,
        size: usize,
        samples: usize,
    ) -> Result<()> {
        let Notes { winners, kept, statistics, normalised } = notes;
        let Statistics { mean, variance, inverse_deviation, .. } = statistics;
        let length = size * samples;
        let reserve_statistics = |count| {
            let all = [mean, variance, inverse_deviation];
            all.into_iter().try_for_each(|numbers| reserve(numbers, count))
        };
        match self {
            Self::Activation(_) | Self::Skip(_) => Ok(()),
            Self::Pool2d(_) => reserve(winners, length),
            Self::Dropout(_) => reserve(kept, length),
            Self::BatchNorm(norm) => reserve_statistics(norm.channels()),
            Self::LayerNorm(_) => {
                reserve_statistics(samples)?;
                reserve(normalised, length)
            }
        }
    }

    /// Makes room for the gradients and statistics that it finds on the way back.
    pub(crate) fn reserve_learned<T>(&self, learned: &mut Learned<T>) -> Result<()> {
        let (parts, count) = match self {
            Self::BatchNorm(norm) => (4, norm.channels()),
            Self::LayerNorm(norm) => (2, norm.values()),
            Self::Activation(_) | Self::Pool2d(_) | Self::Dropout(_) | Self::Skip(_) => (0, 0),
        };
        learned[..parts].iter_mut().try_for_each(|numbers| reserve(numbers, count))
    }

    /// The pooling that it is, if it is one. All other operations keep the shape of their input.
    pub(crate) fn pooling(&self) -> Option<&Pool2d> {
        match self {
            Self::Pool2d(pool) => Some(pool),
            _ => None,
        }
    }

    /// `y ← operation(x)`. It is number `index` after a layer with these parameters. `beside` is what a
    /// residual connection adds. `notes` is what the way back needs in addition to `x` and `y`. Returns
    /// false if a number is not finite and `y` does not show it.
    pub(crate) fn forward<T: Scalar>(
        &self,
        (parameters, index): (OfLayer<T>, usize),
        (x, beside): (&[T], &[T]),
        y: &mut [T],
        notes: &mut Notes<T>,
        (pass, frozen): (Pass, bool),
    ) -> bool {
        match self {
            Self::Activation(activation) => activation.apply(x, y),
            Self::Pool2d(pool) => pool.forward(x, y, &mut notes.winners),
            Self::BatchNorm(norm) => {
                // A frozen layer is the same function in every pass.
                let pass = if frozen { Pass::Evaluation } else { pass };
                return norm.forward(parameters.of_operation(index), x, y, notes, pass);
            }
            Self::LayerNorm(norm) => {
                return norm.forward(parameters.of_operation(index), x, y, notes);
            }
            Self::Dropout(dropout) => dropout.forward(x, y, &mut notes.kept, pass),
            Self::Skip(skip) => skip.forward(x, beside, y),
        }
        true
    }

    /// `δ ← (∂y/∂x)ᵀ δ`, for an operation that keeps the shape, with input `x` and output `y`.
    pub(crate) fn backward<T: Scalar>(
        &self,
        (parameters, index): (OfLayer<T>, usize),
        (x, y): (&[T], &[T]),
        notes: &Notes<T>,
        delta: &mut [T],
        learned: &mut Learned<T>,
    ) {
        match self {
            Self::Activation(activation) => {
                /// The elements of one piece of work of a thread.
                const SIZE: usize = 1 << 12;
                let (chunks, parts) = (delta.len().div_ceil(SIZE), pieces(delta.len(), 4));
                let out = Chunks { data: delta, size: SIZE };
                share_out(out, 0..chunks, parts, &|range, delta| {
                    let range = range.start * SIZE..range.start * SIZE + delta.data.len();
                    activation.multiply_derivative(&x[range.clone()], &y[range], delta.data);
                });
            }
            Self::BatchNorm(norm) => {
                norm.backward(parameters.of_operation(index), x, notes, delta, learned);
            }
            Self::LayerNorm(norm) => {
                norm.backward(parameters.of_operation(index), notes, delta, learned);
            }
            Self::Dropout(dropout) => dropout.backward(&notes.kept, delta),
            // The delta goes on unchanged. The block itself copies it for the connection.
            Self::Skip(_) => {}
            Self::Pool2d(_) => unreachable!("pooling goes back from one buffer to another"),
        }
    }

    /// `t ← ∂y/∂x t`: the change of `y` for a small change `t` of `x`, for an operation that keeps the
    /// shape. A residual connection adds the change at its other end, `beside`.
    pub(crate) fn tangent<T: Scalar>(
        &self,
        (parameters, index): (OfLayer<T>, usize),
        (x, y): (&[T], &[T]),
        (notes, beside): (&Notes<T>, &[T]),
        tangent: &mut [T],
        scratch: &mut Learned<T>,
    ) {
        match self {
            // The matrices of their derivatives are symmetric, so the way back serves here too.
            Self::Activation(_) | Self::BatchNorm(_) | Self::Dropout(_) => {
                self.backward((parameters, index), (x, y), notes, tangent, scratch);
            }
            Self::LayerNorm(norm) => norm.tangent(parameters.of_operation(index), notes, tangent),
            Self::Skip(skip) => skip.add_up(beside, tangent),
            Self::Pool2d(_) => unreachable!("pooling goes on from one buffer to another"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activation(activation) => activation.fmt(f),
            Self::Pool2d(pool) => pool.fmt(f),
            Self::BatchNorm(_) => f.write_str("batch-norm"),
            Self::LayerNorm(_) => f.write_str("layer-norm"),
            Self::Dropout(dropout) => dropout.fmt(f),
            Self::Skip(skip) => skip.fmt(f),
        }
    }
}
