//! What a weighted layer computes: a linear map whose weights are an argument.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{conv2d::Convolution, thread_memory::ThreadMemory};
use crate::{
    activation::Activation,
    buffer::Columns,
    linalg::{self, Mat, Start},
    parameters::OfLayer,
    scalar::Scalar,
    vector::{ORDINARY, is_ordinary, magnitude},
};

/// How the weights of a layer act on an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinearMap {
    Dense,
    Conv2d(Convolution),
}

impl LinearMap {
    /// `fan_in` and `fan_out` of weights of this shape: how many inputs a unit has, and how many units
    /// read one input (for a convolution counted as in PyTorch).
    pub(crate) fn fans(&self, (rows, columns): (usize, usize)) -> (usize, usize) {
        match self {
            Self::Dense => (columns, rows),
            Self::Conv2d(conv) => (columns, rows * conv.windows.kernel.0 * conv.windows.kernel.1),
        }
    }

    /// The same map with `by` times as many units, or kernels.
    pub(crate) fn widened(self, by: usize) -> Self {
        match self {
            Self::Dense => Self::Dense,
            Self::Conv2d(conv) => Self::Conv2d(conv.widened(by)),
        }
    }

    /// How much memory of its own a thread needs to work on a layer with weights of this shape.
    pub(crate) fn thread_memory<T: Scalar>(&self, (rows, columns): (usize, usize)) -> ThreadMemory {
        match self {
            Self::Dense => {
                let scratch = Self::Dense.tiles(rows, columns, 2).size;
                ThreadMemory { scratch, ..ThreadMemory::default() }
            }
            Self::Conv2d(conv) => conv.thread_memory::<T>(),
        }
    }

    /// `y ← Bᵀ x`. `B` has a row for each unit of `x`. For a convolution it has a row for each kernel,
    /// and each position is multiplied separately.
    pub(crate) fn mix<T: Scalar>(&self, b: linalg::Mat<T>, x: &Columns<T>, y: &mut Columns<T>) {
        match self {
            Self::Dense => {
                linalg::product(b.transpose(), x.mat(), Start::Zero, y.as_mut_slice());
            }
            Self::Conv2d(conv) => {
                conv.mix(b, None, x.as_slice(), (y.as_mut_slice(), &mut []), &|_, _, _| ());
            }
        }
    }

    /// `a ← W h + b`, and `y ← f(a)` while `a` is in cache, if the layer has an activation. Returns an
    /// upper bound of all `|a|`; ∞ if some `a` is NaN or infinite.
    pub(crate) fn forward<T: Scalar>(
        &self,
        parameters: OfLayer<T>,
        h: &Columns<T>,
        a: &mut Columns<T>,
        then: Option<(Activation, &mut Columns<T>)>,
    ) -> f64 {
        // Positive floats compare like their bits, so an atomic integer can hold the maximum.
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

    /// `y ← M x (+ b)` with any matrix `M` in the shape of `W`. Calls `finish(place, y, z)` on pieces
    /// of `y` while they are in cache. `z` has the shape of `y` or is empty.
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
                let weights = Mat::from_column_major_slice(weights, rows, x.rows());
                linalg::product_then(weights, x.mat(), start, y, z, finish);
            }
            Self::Conv2d(conv) => conv.apply(weights, bias, x.as_slice(), y, z, finish),
        }
    }

    /// `y ← Mᵀ x` with any matrix `M` in the shape of `W`. Calls `finish(place, y)` on pieces of `y`
    /// while they are in cache.
    pub(crate) fn apply_transpose<T: Scalar>(
        &self,
        weights: &[T],
        x: &Columns<T>,
        y: &mut Columns<T>,
        finish: &(impl Fn(usize, &mut [T]) + Sync),
    ) {
        let (rows, y) = (y.rows(), y.as_mut_slice());
        match self {
            Self::Dense => {
                let weights = Mat::from_column_major_slice(weights, x.rows(), rows);
                let (transposed, x) = (weights.transpose(), x.mat());
                let finish = |place, y: &mut [T], _: &mut [T]| finish(place, y);
                linalg::product_then(transposed, x, Start::Zero, y, &mut [], &finish);
            }
            Self::Conv2d(conv) => conv.apply_transpose(weights, x.as_slice(), y, finish),
        }
    }
}
