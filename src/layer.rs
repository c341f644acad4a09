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
mod pool2d;
mod shape;
mod unroll;

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use nalgebra::{DMatrix, DVector};

pub use batch_norm::BatchNorm;
pub use conv2d::Conv2d;
pub use dropout::Dropout;
pub use pool2d::{AvgPool2d, MaxPool2d, Pool2d};
pub use shape::Shape;

pub(crate) use batch_norm::NormGradient;
pub(crate) use conv2d::Convolution;
pub(crate) use gradient::{Tiles, UPDATE_COST};

use crate::{
    activation::Activation,
    buffer::{Columns, Notes, Pass},
    error::{Error, Result},
    linalg::{self, Start, filled_vector, zero_matrix},
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
#[derive(Clone, Debug, PartialEq)]
pub struct Layer<T> {
    pub(crate) map: LinearMap,
    pub(crate) weights: DMatrix<T>,
    pub(crate) bias: Option<DVector<T>>,
}

/// How the weights of a layer act on an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinearMap {
    Dense,
    Conv2d(Convolution),
}

/// Whether a layer adds a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    /// `a = W h + b`
    #[default]
    With,
    /// `a = W h`
    Without,
}

/// `∂J/∂W` and `∂J/∂b` of one layer, in the shapes of `W` and `b`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LayerGradient<T> {
    pub(crate) weights: DMatrix<T>,
    pub(crate) bias: Option<DVector<T>>,
}

impl<T: Scalar> Layer<T> {
    /// A layer of zeros whose weights are `rows × columns`.
    pub(crate) fn zeros(map: LinearMap, rows: usize, columns: usize, bias: Bias) -> Result<Self> {
        Ok(Self {
            map,
            weights: zero_matrix(rows, columns)?,
            bias: match bias {
                Bias::With => Some(filled_vector(rows, T::zero())?),
                Bias::Without => None,
            },
        })
    }

    /// `W`.
    #[must_use]
    pub fn weights(&self) -> &DMatrix<T> {
        &self.weights
    }

    /// `b`, unless the layer was built without one.
    #[must_use]
    pub fn bias(&self) -> Option<&DVector<T>> {
        self.bias.as_ref()
    }

    /// How many inputs a unit has, and how many units of the output read one input (as PyTorch
    /// counts them for a convolution).
    pub(crate) fn fans(&self) -> (usize, usize) {
        let (rows, columns) = self.weights.shape();
        match &self.map {
            LinearMap::Dense => (columns, rows),
            LinearMap::Conv2d(conv) => {
                (columns, rows * conv.windows.kernel.0 * conv.windows.kernel.1)
            }
        }
    }

    /// `a ← W h + b`, and while it is in cache `y ← f(a)`, if the layer has an activation. Returns
    /// a number that no `|a|` exceeds; ∞ if some `a` is NaN or infinite.
    pub(crate) fn forward(
        &self,
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
        self.map.apply(&self.weights, self.bias.as_ref(), h, a, y, &finish);
        f64::from_bits(largest.into_inner())
    }
}

impl LinearMap {
    /// `y ← M x (+ b)` with any `M` in the shape of `W`, and then `finish(place, y, z)` on pieces
    /// of `y` while they are in cache, and of `z`, in the shape of `y` or empty.
    pub(crate) fn apply<T: Scalar>(
        &self,
        weights: &DMatrix<T>,
        bias: Option<&DVector<T>>,
        x: &Columns<T>,
        y: &mut Columns<T>,
        z: &mut [T],
        finish: &(impl Fn(usize, &mut [T], &mut [T]) + Sync),
    ) {
        let y = y.as_mut_slice();
        match self {
            Self::Dense => {
                let start = bias.map_or(Start::Zero, |bias| Start::Column(bias.as_slice()));
                linalg::product_then(linalg::of(weights), x.mat(), start, y, z, finish);
            }
            Self::Conv2d(conv) => conv.apply(weights, bias, x.as_slice(), y, z, finish),
        }
    }

    /// `y ← Mᵀ x` with any `M` in the shape of `W`, and then `finish(place, y)` on pieces of it
    /// while they are in cache.
    pub(crate) fn apply_transpose<T: Scalar>(
        &self,
        weights: &DMatrix<T>,
        x: &Columns<T>,
        y: &mut Columns<T>,
        finish: &(impl Fn(usize, &mut [T]) + Sync),
    ) {
        let y = y.as_mut_slice();
        match self {
            Self::Dense => {
                let (transposed, x) = (linalg::of(weights).transpose(), x.mat());
                let finish = |place, y: &mut [T], _: &mut [T]| finish(place, y);
                linalg::product_then(transposed, x, Start::Zero, y, &mut [], &finish);
            }
            Self::Conv2d(conv) => conv.apply_transpose(weights, x.as_slice(), y, finish),
        }
    }
}

/// A local operation: it works on every unit, window or channel by itself.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Operation<T> {
    /// An elementwise function.
    Activation(Activation),
    /// The largest value, or the mean, of each window.
    Pool2d(Pool2d),
    /// Normalisation by the statistics of the batch.
    BatchNorm(BatchNorm<T>),
    /// Units dropped at random while training.
    Dropout(Dropout),
}

impl<T: Scalar> Operation<T> {
    /// The windows of a pooling operation; all others keep the shape of what they are given.
    pub(crate) fn pooling(&self) -> Option<&Pool2d> {
        match self {
            Self::Pool2d(pool) => Some(pool),
            _ => None,
        }
    }

    /// `y ← operation(x)`; notes are what the way back needs beyond `x` and `y`. Returns false if
    /// a number that does not show in `y` is not finite.
    pub(crate) fn forward(
        &self,
        x: &[T],
        y: &mut [T],
        notes: &mut Notes<T>,
        pass: Pass,
        frozen: bool,
    ) -> bool {
        match self {
            Self::Activation(activation) => activation.apply(x, y),
            Self::Pool2d(pool) => pool.forward(x, y, &mut notes.winners),
            Self::BatchNorm(norm) => {
                // What is frozen is the same function in every pass.
                let pass = if frozen { Pass::Evaluation } else { pass };
                return norm.forward(x, y, notes, pass);
            }
            Self::Dropout(dropout) => dropout.forward(x, y, &mut notes.kept, pass),
        }
        true
    }

    /// `δ ← (∂y/∂x)ᵀ δ` of an operation that keeps the shape, with what it was given and made.
    pub(crate) fn backward(
        &self,
        (x, y): (&[T], &[T]),
        notes: &Notes<T>,
        delta: &mut [T],
        gradient: &mut NormGradient<T>,
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
            Self::BatchNorm(norm) => norm.backward(x, notes, delta, gradient),
            Self::Dropout(dropout) => dropout.backward(&notes.kept, delta),
            Self::Pool2d(_) => unreachable!("pooling goes back from one buffer to another"),
        }
    }
}

impl<T> fmt::Display for Operation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activation(activation) => activation.fmt(f),
            Self::Pool2d(pool) => pool.fmt(f),
            Self::BatchNorm(_) => f.write_str("batch-norm"),
            Self::Dropout(dropout) => dropout.fmt(f),
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
