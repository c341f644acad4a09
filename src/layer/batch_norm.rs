//! Batch normalisation.

use super::shape::Shape;
use crate::{
    buffer::{Learned, Notes, Pass, Statistics},
    error::{Result, require, require_positive},
    scalar::Scalar,
    vector::{all_finite, sum_channels},
};

/// Batch normalisation (Ioffe and Szegedy 2015, algorithm 1): `y = γ (x − μ)/√(σ² + ε) + β`. After a
/// dense layer it normalises each feature, after a convolution each channel.
///
/// In training, `μ` and `σ²` are mean and variance (of the population) over the batch and, in an image,
/// over all positions. In evaluation they are the running statistics. These change with every optimiser
/// step by `r ← (1 − m) r + m · batch`, where the batch's variance is multiplied by `n/(n − 1)`, as in
/// PyTorch. `γ` starts at 1, `β` at 0, the running mean at 0, the running variance at 1.
///
/// After a [frozen](crate::Network::freeze) layer it uses the running statistics in training too, and
/// these do not change. So a frozen layer is the same function in training and evaluation (as in Keras
/// since version 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    channels: usize,
    momentum: f64,
    epsilon: f64,
    /// Values of one channel in a sample.
    plane: usize,
}

/// `γ`, `β`, running mean and running variance, each with a number for every channel.
type Values<'a, T> = [&'a [T]; 4];

impl BatchNorm {
    /// The default `m` and `ε`; PyTorch's.
    pub(crate) const DEFAULTS: (f64, f64) = (0.1, 1e-5);

    pub(crate) fn new<T: Scalar>(shape: Shape, momentum: f64, epsilon: f64) -> Result<Self> {
        let valid = momentum > 0.0 && momentum <= 1.0;
        require(valid, "momentum", momentum, "a number in (0, 1]")?;
        require_positive::<T>("epsilon", epsilon)?;
        Ok(Self { channels: shape.channels, momentum, epsilon, plane: shape.plane() })
    }

    /// `m`, the weight of the batch in the update of the running statistics.
    #[must_use]
    pub fn momentum(&self) -> f64 {
        self.momentum
    }

    /// `ε`
    #[must_use]
    pub fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// How many features or channels it normalises.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Values of one channel in one sample.
    pub(crate) fn plane(&self) -> usize {
        self.plane
    }

    /// `y ← γ (x − μ)/√(σ² + ε) + β`, with the statistics of the batch in a training pass, and the
    /// running ones in an evaluation pass. Returns whether the statistics are finite.
    pub(crate) fn forward<T: Scalar>(
        &self,
        values: Values<T>,
        x: &[T],
        y: &mut [T],
        notes: &mut Notes<T>,
        pass: Pass,
    ) -> bool {
        let [scale, shift, _, _] = values;
        let statistics = &mut notes.statistics;
        let finite = self.take_statistics(values, x, statistics, pass);
        let Statistics { mean, inverse_deviation, .. } = statistics;
        let size = self.channels * self.plane;
        for (x, y) in x.chunks_exact(size).zip(y.chunks_exact_mut(size)) {
            let planes = x.chunks_exact(self.plane).zip(y.chunks_exact_mut(self.plane));
            for (channel, (x, y)) in planes.enumerate() {
                let scale = scale[channel] * inverse_deviation[channel];
                let (mean, shift) = (mean[channel], shift[channel]);
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = scale * (x - mean) + shift;
                }
            }
        }
        finite
    }

    /// Mean and variance of each channel: the running ones, or those of the batch. The latter take two
    /// passes over the batch, because `mean of squares − square of mean` would lose digits.
    fn take_statistics<T: Scalar>(
        &self,
        [_, _, running_mean, running_variance]: Values<T>,
        x: &[T],
        statistics: &mut Statistics<T>,
        pass: Pass,
    ) -> bool {
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
            mean.extend_from_slice(running_mean);
            variance.extend_from_slice(running_variance);
        }
        let epsilon = T::of(self.epsilon);
        inverse_deviation.extend(variance.iter().map(|&v| (v + epsilon).sqrt().recip()));
        // Twice the variance, because the running one follows n/(n − 1) times that of the batch.
        let finite = |&v: &T| (v + v + epsilon).is_finite();
        all_finite(mean) && variance.iter().all(finite)
    }

    /// Channels, and values of each in a sample.
    fn shape(&self) -> (usize, usize) {
        (self.channels, self.plane)
    }

    /// Values of each channel in the batch.
    fn count<T>(&self, x: &[T]) -> f64 {
        (x.len() / self.channels) as f64
    }

    /// The way back. With `x̂ = (x − μ)/√(σ² + ε)` and `n` values in a channel: `∂γ = Σ δ x̂`,
    /// `∂β = Σ δ`, and `δ ← γ/√(σ² + ε) · (δ − ∂β/n − x̂ ∂γ/n)`. If running statistics were used, they
    /// do not depend on the batch, and `δ ← γ/√(σ² + ε) · δ`.
    pub(crate) fn backward<T: Scalar>(
        &self,
        [gamma, ..]: Values<T>,
        x: &[T],
        notes: &Notes<T>,
        delta: &mut [T],
        learned: &mut Learned<T>,
    ) {
        let Statistics { mean, variance, inverse_deviation, of_batch } = &notes.statistics;
        let (shape, count) = (self.shape(), self.count(x));
        learned.iter_mut().for_each(Vec::clear);
        let [scale, shift, batch_mean, batch_variance] = learned;
        let normalised = |channel: usize, x: T| (x - mean[channel]) * inverse_deviation[channel];
        let with_x = |channel, x, delta: T| (delta * normalised(channel, x)).as_f64();
        sum_channels(x, delta, shape, with_x, |_, sum| scale.push(T::of(sum)));
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
                let factor = gamma[channel] * inverse_deviation[channel];
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

    /// Moves a running statistic towards that of the batch.
    pub(crate) fn follow<T: Scalar>(&self, running: &mut [T], batch: &[T]) {
        let (keep, fresh) = (T::of(1.0 - self.momentum), T::of(self.momentum));
        for (running, &batch) in running.iter_mut().zip(batch) {
            *running = (keep * *running + fresh * batch).without_subnormals();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A layer with parameters of all signs, and numbers around a mean of `offset`.
    struct Case<T> {
        norm: BatchNorm,
        values: [Vec<T>; 4],
        x: Vec<T>,
        delta: Vec<T>,
    }

    fn case<T: Scalar>(
        [channels, plane, samples]: [usize; 3],
        offset: f64,
        seed: usize,
    ) -> Case<T> {
        let shape = Shape { channels, height: 1, width: plane };
        let norm = BatchNorm::new::<T>(shape, 0.2, 1e-3).unwrap();
        let number = |i: usize| ((i * 37 + i / 3 * 11 + seed * 13) % 101) as f64 / 25.0 - 2.0;
        let vector = |shift: usize| -> Vec<T> {
            (0..channels).map(|c| T::of(number(c * 7 + shift))).collect()
        };
        let variance = vector(4).into_iter().map(|v| v * v + T::of(0.1)).collect();
        let values = [vector(1), vector(2), vector(3), variance];
        let numbers = |offset: f64, shift: usize| {
            (0..channels * plane * samples).map(|i| T::of(offset + number(i + shift))).collect()
        };
        Case { norm, values, x: numbers(offset, 5), delta: numbers(0.1, 6) }
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
        let Case { norm, values, x, delta } = case::<T>(shape, offset, shape[0] + shape[2]);
        let slices = values.each_ref().map(|values| &values[..]);
        let [channels, plane, samples] = shape;
        let mut notes = Notes::new();
        let mut y = vec![T::of(f64::NAN); x.len()];
        assert!(norm.forward(slices, &x, &mut y, &mut notes, pass));
        let (mut back, mut learned) = (delta.clone(), Learned::default());
        norm.backward(slices, &x, &notes, &mut back, &mut learned);
        let mut after = values.clone();
        after.iter_mut().zip(&learned).skip(2).for_each(|(to, batch)| norm.follow(to, batch));
        let [scale, shift, running_mean, running_variance] = slices;

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
            let running = (running_mean[c].as_f64(), running_variance[c].as_f64());
            let (mean, variance) = if of_batch { (batch_mean, batch_variance) } else { running };
            let inverse = 1.0 / (variance + 1e-3).sqrt();
            let (scale, shift) = (scale[c].as_f64(), shift[c].as_f64());
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
            close(learned[0][c], of_scale, "∂γ");
            close(learned[1][c], of_shift, "∂β");
            if of_batch {
                let unbiased = batch_variance * n / (n - 1.0);
                close(after[2][c], 0.8 * running.0 + 0.2 * batch_mean, "mean");
                close(after[3][c], 0.8 * running.1 + 0.2 * unbiased, "variance");
            } else {
                assert_eq!(after, values, "nothing follows an evaluation pass");
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

    /// Each channel has one value everywhere, its own, and a shift of its own.
    #[test]
    fn a_constant_channel_becomes_its_shift() {
        let Case { norm, values, .. } = case::<f32>([3, 4, 5], 0.0, 1);
        let slices = values.each_ref().map(|values| &values[..]);
        let x: Vec<f32> = (0..60).map(|i| [14.62, -3.0, 1e6][i / 4 % 3]).collect();
        let mut y = vec![f32::NAN; 60];
        let pass = Pass::Training { seed: 0, time: 0 };
        norm.forward(slices, &x, &mut y, &mut Notes::new(), pass);
        for (i, &y) in y.iter().enumerate() {
            assert_eq!(y, values[1][i / 4 % 3]);
        }
    }
}
