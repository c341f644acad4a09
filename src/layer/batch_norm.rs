//! Batch normalisation.

use nalgebra::DVector;

use super::Shape;
use crate::{
    buffer::{Notes, Pass},
    error::{Result, require},
    scalar::Scalar,
};

/// Batch normalisation (Ioffe and Szegedy 2015, algorithm 1), of each feature after a dense layer,
/// of each channel after a convolution: `y = γ (x − μ)/√(σ² + ε) + β`.
///
/// While training, `μ` and `σ²` are mean and variance (of the population) over the batch and, in
/// an image, its positions; in evaluation they are the running statistics, which follow by
/// `r ← (1 − m) r + m · batch` with every optimiser step (the variance corrected by `n/(n − 1)`),
/// as in PyTorch. `γ` starts at 1, `β` at 0, the running mean at 0, the running variance at 1.
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
        let valid = epsilon.is_finite() && T::of(epsilon) > T::zero();
        require(valid, "epsilon", epsilon, "a positive number that the scalar can represent")?;
        let constant = |value| DVector::from_element(shape.channels, value);
        Ok(Self {
            scale: constant(T::one()),
            shift: constant(T::zero()),
            running_mean: constant(T::zero()),
            running_variance: constant(T::one()),
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

    pub(crate) fn forward(&self, x: &[T], y: &mut [T], notes: &mut Notes<T>, pass: Pass) {
        let channels = self.scale.len();
        if matches!(pass, Pass::Training { .. }) {
            self.take_statistics(x, notes);
        }
        let (mean, variance) = match pass {
            Pass::Training { .. } => (&notes.mean[..], &notes.variance[..]),
            Pass::Evaluation => (self.running_mean.as_slice(), self.running_variance.as_slice()),
        };
        let planes = x.chunks_exact(self.plane).zip(y.chunks_exact_mut(self.plane));
        for (index, (x, y)) in planes.enumerate() {
            let channel = index % channels;
            let scale = self.scale[channel] * self.inverse_deviation(variance[channel]);
            let (mean, shift) = (mean[channel], self.shift[channel]);
            for (y, &x) in y.iter_mut().zip(x) {
                *y = scale * (x - mean) + shift;
            }
        }
    }

    /// Mean and variance of each channel over the batch: two passes, which do not cancel.
    fn take_statistics(&self, x: &[T], notes: &mut Notes<T>) {
        let channels = self.scale.len();
        let count = T::of((x.len() / channels) as f64);
        for sums in [&mut notes.mean, &mut notes.variance] {
            sums.clear();
            sums.resize(channels, T::zero());
        }
        for (index, plane) in x.chunks_exact(self.plane).enumerate() {
            plane.iter().for_each(|&x| notes.mean[index % channels] += x);
        }
        notes.mean.iter_mut().for_each(|mean| *mean /= count);
        for (index, plane) in x.chunks_exact(self.plane).enumerate() {
            let mean = notes.mean[index % channels];
            plane.iter().for_each(|&x| notes.variance[index % channels] += (x - mean) * (x - mean));
        }
        notes.variance.iter_mut().for_each(|variance| *variance /= count);
    }

    /// The way back through the statistics of the batch: with `x̂ = (x − μ)/√(σ² + ε)` and `n`
    /// values in a channel, `∂γ = Σ δ x̂`, `∂β = Σ δ`, and
    /// `δ ← γ/√(σ² + ε) · (δ − ∂β/n − x̂ ∂γ/n)`.
    pub(crate) fn backward(
        &self,
        x: &[T],
        notes: &Notes<T>,
        delta: &mut [T],
        gradient: &mut NormGradient<T>,
    ) {
        let channels = self.scale.len();
        let count = T::of((x.len() / channels) as f64);
        for sums in [&mut gradient.scale, &mut gradient.shift] {
            sums.clear();
            sums.resize(channels, T::zero());
        }
        gradient.mean.clone_from(&notes.mean);
        gradient.variance.clear();
        let unbiased = count / (count - T::one());
        gradient.variance.extend(notes.variance.iter().map(|&variance| variance * unbiased));

        let planes = x.chunks_exact(self.plane).zip(delta.chunks_exact(self.plane));
        for (index, (x, delta)) in planes.enumerate() {
            let channel = index % channels;
            let (mean, inverse) =
                (notes.mean[channel], self.inverse_deviation(notes.variance[channel]));
            for (&x, &delta) in x.iter().zip(delta) {
                gradient.scale[channel] += delta * ((x - mean) * inverse);
                gradient.shift[channel] += delta;
            }
        }
        let planes = x.chunks_exact(self.plane).zip(delta.chunks_exact_mut(self.plane));
        for (index, (x, delta)) in planes.enumerate() {
            let channel = index % channels;
            let (mean, inverse) =
                (notes.mean[channel], self.inverse_deviation(notes.variance[channel]));
            let factor = self.scale[channel] * inverse;
            let (scale, shift) = (gradient.scale[channel] / count, gradient.shift[channel] / count);
            for (&x, delta) in x.iter().zip(delta) {
                *delta = factor * (*delta - shift - (x - mean) * inverse * scale);
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
                *running = keep * *running + fresh * batch;
            }
        }
    }

    fn inverse_deviation(&self, variance: T) -> T {
        (variance + T::of(self.epsilon)).sqrt().recip()
    }
}
