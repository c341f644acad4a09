//! What a network is made of: weighted layers and the local operations between them.
//!
//! A weighted layer is a linear map whose weights are an argument. Because they are passed in, a
//! feedback rule can send deltas through other matrices than the layer's own, and no layer ever
//! learns which rule is at work. A local operation sends what arrives at its output back to its
//! input by its exact derivative.

mod batch_norm;
mod conv2d;
mod dropout;
mod gradient;
mod layer_norm;
mod pool2d;
mod shape;
mod skip;
mod unroll;

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use nalgebra::{DMatrixView, DVectorView};

pub use batch_norm::BatchNorm;
pub use conv2d::Conv2d;
pub use dropout::Dropout;
pub use layer_norm::LayerNorm;
pub use pool2d::{AvgPool2d, MaxPool2d, Pool2d};
pub use shape::Shape;
pub use skip::Skip;

pub(crate) use conv2d::Convolution;
pub(crate) use gradient::{Tile, Tiles, UPDATE_COST};
pub(crate) use skip::add;

use crate::{
    activation::Activation,
    buffer::{Columns, Notes, Pass, Statistics, reserve},
    error::{Error, Result},
    linalg::{self, Start},
    parameters::OfLayer,
    scalar::Scalar,
    threads::{Chunks, pieces, share_out},
    vector::{ORDINARY, is_ordinary, magnitude},
};

/// A weighted layer, `a = W h + b`: fully connected, or a convolution, which is the same with an
/// unrolled `h`.
///
/// | layer | `W` | `b` |
/// |---|---|---|
/// | dense | `outputs × inputs` | `outputs` |
/// | convolution | `C_out × (C_in · kh · kw)`, the kernels as rows, in the order of the image | `C_out` |
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a, T> {
    pub(crate) parameters: OfLayer<'a, T>,
    pub(crate) operations: &'a [Operation],
}

impl<T: PartialEq> PartialEq for Layer<'_, T> {
    /// Compares `W` and `b`, not the operations that follow.
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (self.parameters, other.parameters);
        one.slots[0].rows == two.slots[0].rows
            && one.weights() == two.weights()
            && one.bias() == two.bias()
    }
}

/// How the weights of a layer act on an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinearMap {
    Dense,
    Conv2d(Convolution),
}

/// Whether a layer adds a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Bias {
    /// `a = W h + b`
    #[default]
    With,
    /// `a = W h`
    Without,
}

impl<'a, T: Scalar> Layer<'a, T> {
    /// `W`.
    #[must_use]
    pub fn weights(self) -> DMatrixView<'a, T> {
        let slot = &self.parameters.slots[0];
        DMatrixView::from_slice(self.parameters.weights(), slot.rows, slot.columns)
    }

    /// `b`, unless the layer was built without one.
    #[must_use]
    pub fn bias(self) -> Option<DVectorView<'a, T>> {
        self.parameters.bias().map(|bias| DVectorView::from_slice(bias, bias.len()))
    }

    /// The operations that follow the layer, in order; none means that it is linear.
    #[must_use]
    pub fn operations(self) -> &'a [Operation] {
        self.operations
    }
}

impl LinearMap {
    /// How many inputs a unit has, and how many units of the output read one input (as PyTorch
    /// counts them for a convolution), of weights of this shape.
    pub(crate) fn fans(&self, (rows, columns): (usize, usize)) -> (usize, usize) {
        match self {
            Self::Dense => (columns, rows),
            Self::Conv2d(conv) => (columns, rows * conv.windows.kernel.0 * conv.windows.kernel.1),
        }
    }

    /// `a ← W h + b`, and while it is in cache `y ← f(a)`, if the layer has an activation. Returns
    /// a number that no `|a|` exceeds; ∞ if some `a` is NaN or infinite.
    pub(crate) fn forward<T: Scalar>(
        &self,
        parameters: OfLayer<T>,
        h: &Columns<T>,
        a: &mut Columns<T>,
        then: Option<(Activation, &mut Columns<T>)>,
    ) -> f64 {
        // The bits of a positive number are in the order of the numbers.
        let largest = AtomicU64::new(ORDINARY.to_bits());
        let (activation, y) = then.unzip();
        let finish = |_, a: &mut [T], y: &mut [T]| {
            if !is_ordinary(a) {
                largest.fetch_max(magnitude(a).to_bits(), Ordering::Relaxed);
            }
            if let Some(activation) = activation {
                activation.apply(a, y);
            }
        };
        let y = y.map_or(&mut [][..], Columns::as_mut_slice);
        self.apply(parameters.weights(), parameters.bias(), h, a, y, &finish);
        f64::from_bits(largest.into_inner())
    }

    /// `y ← M x (+ b)` with any `M` in the shape of `W`, and then `finish(place, y, z)` on pieces
    /// of `y` while they are in cache, and of `z`, in the shape of `y` or empty.
    pub(crate) fn apply<T: Scalar>(
        &self,
        weights: &[T],
        bias: Option<&[T]>,
        x: &Columns<T>,
        y: &mut Columns<T>,
        z: &mut [T],
        finish: &(impl Fn(usize, &mut [T], &mut [T]) + Sync),
    ) {
        let (rows, y) = (y.rows(), y.as_mut_slice());
        match self {
            Self::Dense => {
                let start = bias.map_or(Start::Zero, Start::Column);
                let weights = linalg::mat(weights, rows);
                linalg::product_then(weights, x.mat(), start, y, z, finish);
            }
            Self::Conv2d(conv) => conv.apply(weights, bias, x.as_slice(), y, z, finish),
        }
    }

    /// `y ← Mᵀ x` with any `M` in the shape of `W`, and then `finish(place, y)` on pieces of it
    /// while they are in cache.
    pub(crate) fn apply_transpose<T: Scalar>(
        &self,
        weights: &[T],
        x: &Columns<T>,
        y: &mut Columns<T>,
        finish: &(impl Fn(usize, &mut [T]) + Sync),
    ) {
        let y = y.as_mut_slice();
        match self {
            Self::Dense => {
                let (transposed, x) = (linalg::mat(weights, x.rows()).transpose(), x.mat());
                let finish = |place, y: &mut [T], _: &mut [T]| finish(place, y);
                linalg::product_then(transposed, x, Start::Zero, y, &mut [], &finish);
            }
            Self::Conv2d(conv) => conv.apply_transpose(weights, x.as_slice(), y, finish),
        }
    }
}

/// An operation between two weighted layers, without weights. All but [`Skip`] are local.
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
    /// Units dropped at random while training.
    Dropout(Dropout),
    /// What an earlier layer passes on is added.
    Skip(Skip),
}

/// What an operation with parameters learns from a batch, in the order of its slots: a gradient, or
/// the statistics of the batch for running ones to follow. Empty where it learns nothing.
pub(crate) type Learned<T> = [Vec<T>; 4];

impl Operation {
    /// The residual connection that it is, if it is one.
    pub(crate) fn skip(&self) -> Option<&Skip> {
        match self {
            Self::Skip(skip) => Some(skip),
            _ => None,
        }
    }

    /// Makes room for what it notes of so many samples, from each of which it makes `size` numbers.
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

    /// Makes room for what it learns.
    pub(crate) fn reserve_learned<T>(&self, learned: &mut Learned<T>) -> Result<()> {
        let (parts, count) = match self {
            Self::BatchNorm(norm) => (4, norm.channels()),
            Self::LayerNorm(norm) => (2, norm.values()),
            Self::Activation(_) | Self::Pool2d(_) | Self::Dropout(_) | Self::Skip(_) => (0, 0),
        };
        learned[..parts].iter_mut().try_for_each(|numbers| reserve(numbers, count))
    }

    /// The windows of a pooling operation; all others keep the shape of what they are given.
    pub(crate) fn pooling(&self) -> Option<&Pool2d> {
        match self {
            Self::Pool2d(pool) => Some(pool),
            _ => None,
        }
    }

    /// `y ← operation(x)`, of operation number `index` after a layer with these parameters; `beside` is
    /// what a residual connection adds, and notes are what the way back needs beyond `x` and `y`. Returns false if
    /// a number that does not show in `y` is not finite.
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
                // What is frozen is the same function in every pass.
                let pass = if frozen { Pass::Evaluation } else { pass };
                return norm.forward(parameters.of_operation(index), x, y, notes, pass);
            }
            Self::LayerNorm(norm) => {
                return norm.forward(parameters.of_operation(index), x, y, notes);
            }
            Self::Dropout(dropout) => dropout.forward(x, y, &mut notes.kept, pass),
            Self::Skip(_) => Skip::forward(x, beside, y),
        }
        true
    }

    /// `δ ← (∂y/∂x)ᵀ δ` of an operation that keeps the shape, with what it was given and made.
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
                /// Elements that a thread takes on at least.
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
            // The copy that takes the short way is the business of the block.
            Self::Skip(_) => {}
            Self::Pool2d(_) => unreachable!("pooling goes back from one buffer to another"),
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

/// Windows that slide over the planes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) input: Shape,
    pub(crate) output: Shape,
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: (usize, usize),
    pub(crate) padding: (usize, usize),
}

impl Windows {
    /// Windows over `input`, as many as fit: `⌊(size + 2·padding − kernel)/stride⌋ + 1` along
    /// each side; `name` is what errors call the layer.
    pub(crate) fn new(
        name: &dyn fmt::Display,
        input: Shape,
        channels: usize,
        kernel: (usize, usize),
        stride: (usize, usize),
        padding: (usize, usize),
    ) -> Result<Self> {
        let refuse = |reason| {
            let (layer, input) = (name.to_string(), input.to_string());
            Error::Window { layer, input, reason }
        };
        if stride.0 == 0 || stride.1 == 0 {
            return Err(refuse("a stride of 0 never moves on"));
        }
        if kernel.0 == 0 || kernel.1 == 0 {
            return Err(refuse("a kernel without a pixel sees nothing"));
        }
        let count = |size: usize, padding: usize, kernel: usize, stride: usize| {
            let padded = padding.checked_mul(2).and_then(|padding| padding.checked_add(size))?;
            Some(padded.checked_sub(kernel)? / stride + 1)
        };
        let too_large = "the kernel is larger than its padded input";
        let height = count(input.height, padding.0, kernel.0, stride.0);
        let width = count(input.width, padding.1, kernel.1, stride.1);
        let (Some(height), Some(width)) = (height, width) else { return Err(refuse(too_large)) };
        let output = Shape { channels, height, width };
        if output.checked_len().is_none() {
            return Err(Error::TooLarge { rows: channels, columns: height.saturating_mul(width) });
        }
        Ok(Self { input, output, kernel, stride, padding })
    }
}
