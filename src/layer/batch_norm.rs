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

    /// Appends zeros until it is as long as another.
    pub(crate) fn fill_up_to(&mut self, other: &Self)
    where
        T: Scalar,
    {
        for (own, other) in [
            (&mut self.scale, &other.scale),
            (&mut self.shift, &other.shift),
            (&mut self.mean, &other.mean),
            (&mut self.variance, &other.variance),
        ] {
            own.resize(own.len().max(other.len()), T::zero());
        }
    }

    /// Forgets what was learned.
    pub(crate) fn clear(&mut self) {
        let Self { scale, shift, mean, variance } = self;
        [scale, shift, mean, variance].into_iter().for_each(Vec::clear);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A layer with parameters of all signs, and numbers around a mean of `offset`.
    struct Case<T> {
        norm: BatchNorm<T>,
        x: Vec<T>,
        delta: Vec<T>,
    }

    fn case<T: Scalar>(
        [channels, plane, samples]: [usize; 3],
        offset: f64,
        seed: usize,
    ) -> Case<T> {
        let shape = Shape { channels, height: 1, width: plane };
        let mut norm = BatchNorm::new(shape, 0.2, 1e-3).unwrap();
        let number = |i: usize| ((i * 37 + i / 3 * 11 + seed * 13) % 101) as f64 / 25.0 - 2.0;
        let vector = |shift: usize| DVector::from_fn(channels, |c, _| T::of(number(c * 7 + shift)));
        (norm.scale, norm.shift, norm.running_mean) = (vector(1), vector(2), vector(3));
        norm.running_variance = vector(4).map(|v| v * v + T::of(0.1));
        let numbers = |offset: f64, shift: usize| {
            (0..channels * plane * samples).map(|i| T::of(offset + number(i + shift))).collect()
        };
        Case { norm, x: numbers(offset, 5), delta: numbers(0.1, 6) }
    }

    /// Places of the values of a channel.
    fn places(channel: usize, channels: usize, plane: usize, samples: usize) -> Vec<usize> {
        (0..samples)
            .flat_map(|n| (0..plane).map(move |p| (n * channels + channel) * plane + p))
            .collect()
    }

    /// Everything against loops over the definition in `f64`; `tolerance` is relative to numbers
    /// of magnitude 1.
    fn check<T: Scalar>(shape: [usize; 3], offset: f64, pass: Pass, tolerance: f64) {
        let Case { norm, x, delta } = case::<T>(shape, offset, shape[0] + shape[2]);
        let [channels, plane, samples] = shape;
        let mut notes = Notes::new();
        let mut y = vec![T::of(f64::NAN); x.len()];
        assert!(norm.forward(&x, &mut y, &mut notes, pass));
        let (mut back, mut gradient) = (delta.clone(), NormGradient::empty());
        norm.backward(&x, &notes, &mut back, &mut gradient);
        let mut after = norm.clone();
        after.commit(&gradient);

        let close = |found: T, expected: f64, what: &str| {
            let error = (found.as_f64() - expected).abs();
            assert!(error <= tolerance * expected.abs().max(1.0), "{what}: {found:?}, {expected}");
        };
        let of_batch = pass != Pass::Evaluation;
        for c in 0..channels {
            let places = places(c, channels, plane, samples);
            let n = places.len() as f64;
            let at = |values: &[T], place: usize| values[place].as_f64();
            let batch_mean = places.iter().map(|&p| at(&x, p)).sum::<f64>() / n;
            let squares = places.iter().map(|&p| (at(&x, p) - batch_mean).powi(2));
            let batch_variance = squares.sum::<f64>() / n;
            let running = (norm.running_mean[c].as_f64(), norm.running_variance[c].as_f64());
            let (mean, variance) = if of_batch { (batch_mean, batch_variance) } else { running };
            let inverse = 1.0 / (variance + 1e-3).sqrt();
            let (scale, shift) = (norm.scale[c].as_f64(), norm.shift[c].as_f64());
            let normal = |p: usize| (at(&x, p) - mean) * inverse;
            let (mut of_scale, mut of_shift) = (0.0, 0.0);
            for &p in &places {
                close(y[p], scale * normal(p) + shift, "y");
                of_scale += at(&delta, p) * normal(p);
                of_shift += at(&delta, p);
                // Row by row of the Jacobian.
                let mut expected = 0.0;
                for &q in &places {
                    let own = if p == q { 1.0 } else { 0.0 };
                    let through = if of_batch { (1.0 + normal(p) * normal(q)) / n } else { 0.0 };
                    expected += at(&delta, q) * scale * inverse * (own - through);
                }
                close(back[p], expected, "δ");
            }
            close(gradient.scale[c], of_scale, "∂γ");
            close(gradient.shift[c], of_shift, "∂β");
            if of_batch {
                let unbiased = batch_variance * n / (n - 1.0);
                close(after.running_mean[c], 0.8 * running.0 + 0.2 * batch_mean, "mean");
                close(after.running_variance[c], 0.8 * running.1 + 0.2 * unbiased, "variance");
            } else {
                assert_eq!(after, norm, "nothing follows an evaluation pass");
            }
        }
    }

    proptest! {
        #[test]
        fn normalisation_agrees_with_its_definition(
            channels in 1..20_usize, plane in 1..9_usize, samples in 2..12_usize,
        ) {
            for pass in [Pass::Evaluation, Pass::Training { seed: 0, time: 0 }] {
                check::<f64>([channels, plane, samples], 0.3, pass, 1e-12);
                check::<f32>([channels, plane, samples], 0.3, pass, 2e-4);
            }
        }
    }

    /// Where the mean is far from 0 the variance must not be lost.
    #[test]
    fn a_large_mean_does_not_drown_the_variance() {
        let pass = Pass::Training { seed: 0, time: 0 };
        check::<f64>([2, 5, 40], 1e6, pass, 1e-8);
        check::<f32>([2, 5, 40], 256.0, pass, 1e-3);
    }

    /// The rest of a plane of ones: all channels are alike, none is mixed up with another.
    #[test]
    fn a_constant_channel_becomes_its_shift() {
        let Case { norm, .. } = case::<f32>([3, 4, 5], 0.0, 1);
        let x: Vec<f32> = (0..60).map(|i| [14.62, -3.0, 1e6][i / 4 % 3]).collect();
        let mut y = vec![f32::NAN; 60];
        norm.forward(&x, &mut y, &mut Notes::new(), Pass::Training { seed: 0, time: 0 });
        for (i, &y) in y.iter().enumerate() {
            assert_eq!(y, norm.shift[i / 4 % 3]);
        }
    }
}
