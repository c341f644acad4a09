//! Batch normalisation.

use nalgebra::DVector;

use super::Shape;
use crate::{
    buffer::{Notes, Pass, Statistics},
    error::{Result, require, require_positive},
    linalg::filled_vector,
    scalar::Scalar,
    vector::{all_finite, sum_channels},
};

/// Batch normalisation (Ioffe and Szegedy 2015, algorithm 1), of each feature after a dense layer,
/// of each channel after a convolution: `y = γ (x − μ)/√(σ² + ε) + β`.
///
/// While training, `μ` and `σ²` are mean and variance (of the population) over the batch and, in
/// an image, its positions; in evaluation they are the running statistics, which follow by
/// `r ← (1 − m) r + m · batch` with every optimiser step (the variance corrected by `n/(n − 1)`),
/// as in PyTorch. `γ` starts at 1, `β` at 0, the running mean at 0, the running variance at 1.
///
/// After a [frozen](crate::Network::freeze) layer it normalises by the running statistics in
/// training too, and these stay: a frozen layer is one function, whatever the pass (as in Keras
/// since version 2).
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm<T> {
    pub(crate) scale: DVector<T>,
    pub(crate) shift: DVector<T>,
    pub(crate) running_mean: DVector<T>,
    pub(crate) running_variance: DVector<T>,
    momentum: f64,
    epsilon: f64,
    /// Values of one channel in a sample.
    plane: usize,
}

/// `∂J/∂γ`, `∂J/∂β`, and the statistics of the batch for the running ones to follow.
#[derive(Debug, PartialEq)]
pub(crate) struct NormGradient<T> {
    pub(crate) scale: Vec<T>,
    pub(crate) shift: Vec<T>,
    pub(crate) mean: Vec<T>,
    pub(crate) variance: Vec<T>,
}

impl<T: Clone> Clone for NormGradient<T> {
    fn clone(&self) -> Self {
        Self {
            scale: self.scale.clone(),
            shift: self.shift.clone(),
            mean: self.mean.clone(),
            variance: self.variance.clone(),
        }
    }

    /// Into the memory that is there, which the derived one does not do.
    fn clone_from(&mut self, source: &Self) {
        self.scale.clone_from(&source.scale);
        self.shift.clone_from(&source.shift);
        self.mean.clone_from(&source.mean);
        self.variance.clone_from(&source.variance);
    }
}

impl<T> NormGradient<T> {
    /// Nothing learned.
    pub(crate) fn empty() -> Self {
        Self { scale: Vec::new(), shift: Vec::new(), mean: Vec::new(), variance: Vec::new() }
    }
}

impl<T: Scalar> BatchNorm<T> {
    /// `m` and `ε` where the user names none; PyTorch's.
    pub(crate) const DEFAULTS: (f64, f64) = (0.1, 1e-5);

    pub(crate) fn new(shape: Shape, momentum: f64, epsilon: f64) -> Result<Self> {
        let valid = momentum > 0.0 && momentum <= 1.0;
        require(valid, "momentum", momentum, "a number in (0, 1]")?;
        require_positive::<T>("epsilon", epsilon)?;
        let constant = |value| filled_vector(shape.channels, value);
        Ok(Self {
            scale: constant(T::one())?,
            shift: constant(T::zero())?,
            running_mean: constant(T::zero())?,
            running_variance: constant(T::one())?,
            momentum,
            epsilon,
            plane: shape.plane(),
        })
    }

    /// `γ`, one for each channel.
    #[must_use]
    pub fn scale(&self) -> &DVector<T> {
        &self.scale
    }

    /// `β`, one for each channel.
    #[must_use]
    pub fn shift(&self) -> &DVector<T> {
        &self.shift
    }

    /// The running mean of each channel, for evaluation.
    #[must_use]
    pub fn running_mean(&self) -> &DVector<T> {
        &self.running_mean
    }

    /// The running variance of each channel, for evaluation.
    #[must_use]
    pub fn running_variance(&self) -> &DVector<T> {
        &self.running_variance
    }

    /// Values of one channel in one sample.
    pub(crate) fn plane(&self) -> usize {
        self.plane
    }

    /// `y ← γ (x − μ)/√(σ² + ε) + β`, by the statistics of the batch in a training pass, by the
    /// running ones in an evaluation pass. Returns whether the statistics are finite.
    pub(crate) fn forward(&self, x: &[T], y: &mut [T], notes: &mut Notes<T>, pass: Pass) -> bool {
        let statistics = &mut notes.statistics;
        let finite = self.take_statistics(x, statistics, pass);
        let Statistics { mean, inverse_deviation, .. } = statistics;
        let channels = self.scale.len();
        let size = channels * self.plane;
        for (x, y) in x.chunks_exact(size).zip(y.chunks_exact_mut(size)) {
            let planes = x.chunks_exact(self.plane).zip(y.chunks_exact_mut(self.plane));
            for (channel, (x, y)) in planes.enumerate() {
                let scale = self.scale[channel] * inverse_deviation[channel];
                let (mean, shift) = (mean[channel], self.shift[channel]);
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = scale * (x - mean) + shift;
                }
            }
        }
        finite
    }

    /// Mean and variance of each channel: of the batch in two passes, which do not cancel, or the
    /// running ones.
    fn take_statistics(&self, x: &[T], statistics: &mut Statistics<T>, pass: Pass) -> bool {
        let Statistics { mean, variance, inverse_deviation, of_batch } = statistics;
        mean.clear();
        variance.clear();
        inverse_deviation.clear();
        *of_batch = matches!(pass, Pass::Training { .. });
        if *of_batch {
            let (shape, count) = (self.shape(), self.count(x));
            sum_channels(x, x, shape, |_, x, _| x.as_f64(), |_, sum| mean.push(T::of(sum / count)));
            let square = |channel: usize, x: T, _| {
                let difference = x.as_f64() - mean[channel].as_f64();
                difference * difference
            };
            sum_channels(x, x, shape, square, |_, sum| variance.push(T::of(sum / count)));
        } else {
            mean.extend_from_slice(self.running_mean.as_slice());
            variance.extend_from_slice(self.running_variance.as_slice());
        }
        let epsilon = T::of(self.epsilon);
        inverse_deviation.extend(variance.iter().map(|&v| (v + epsilon).sqrt().recip()));
        // Twice the variance, since the running one follows n/(n − 1) times the batch's.
        let finite = |&v: &T| (v + v + epsilon).is_finite();
        all_finite(mean) && variance.iter().all(finite)
    }

    /// Channels, and values of each in a sample.
    fn shape(&self) -> (usize, usize) {
        (self.scale.len(), self.plane)
    }

    /// Values of each channel in the batch.
    fn count(&self, x: &[T]) -> f64 {
        (x.len() / self.scale.len()) as f64
    }

    /// The way back: with `x̂ = (x − μ)/√(σ² + ε)` and `n` values in a channel, `∂γ = Σ δ x̂`,
    /// `∂β = Σ δ`, and `δ ← γ/√(σ² + ε) · (δ − ∂β/n − x̂ ∂γ/n)` through the statistics of the
    /// batch, or `δ ← γ/√(σ² + ε) · δ` where running statistics stood in their place.
    pub(crate) fn backward(
        &self,
        x: &[T],
        notes: &Notes<T>,
        delta: &mut [T],
        gradient: &mut NormGradient<T>,
    ) {
        let Statistics { mean, variance, inverse_deviation, of_batch } = &notes.statistics;
        let (shape, count) = (self.shape(), self.count(x));
        let NormGradient { scale, shift, mean: batch_mean, variance: batch_variance } = gradient;
        scale.clear();
        shift.clear();
        batch_mean.clear();
        batch_variance.clear();
        let normalised = |channel: usize, x: T| (x - mean[channel]) * inverse_deviation[channel];
        let learned = |channel, x, delta: T| (delta * normalised(channel, x)).as_f64();
        sum_channels(x, delta, shape, learned, |_, sum| scale.push(T::of(sum)));
        sum_channels(x, delta, shape, |_, _, d| d.as_f64(), |_, sum| shift.push(T::of(sum)));
        if *of_batch {
            batch_mean.extend_from_slice(mean);
            let unbiased = T::of(count / (count - 1.0));
            batch_variance.extend(variance.iter().map(|&variance| variance * unbiased));
        }

        let (size, count) = (shape.0 * shape.1, T::of(count));
        for (x, delta) in x.chunks_exact(size).zip(delta.chunks_exact_mut(size)) {
            let planes = x.chunks_exact(self.plane).zip(delta.chunks_exact_mut(self.plane));
            for (channel, (x, delta)) in planes.enumerate() {
                let factor = self.scale[channel] * inverse_deviation[channel];
                if !of_batch {
                    delta.iter_mut().for_each(|delta| *delta *= factor);
                    continue;
                }
                let (scale, shift) = (scale[channel] / count, shift[channel] / count);
                for (&x, delta) in x.iter().zip(delta) {
                    *delta = factor * (*delta - shift - normalised(channel, x) * scale);
                }
            }
        }
    }

    /// The running statistics follow those of the batch.
    pub(crate) fn commit(&mut self, gradient: &NormGradient<T>) {
        let (keep, fresh) = (T::of(1.0 - self.momentum), T::of(self.momentum));
        for (running, batch) in [
            (&mut self.running_mean, &gradient.mean),
            (&mut self.running_variance, &gradient.variance),
        ] {
            for (running, &batch) in running.iter_mut().zip(batch) {
                *running = (keep * *running + fresh * batch).without_subnormals();
            }
        }
    }
}
