//! Layer normalisation.

use super::shape::Shape;
use crate::{
    buffer::{Learned, Notes, Statistics},
    error::{Result, require_positive},
    scalar::Scalar,
    vector::{all_finite, sum_channels, sum_plane},
};

/// Layer normalisation (Ba, Kiros and Hinton 2016, eq. 4) over all features of a sample, or all
/// channels and pixels of an image: `y = γ ∘ (x − μ)/√(σ² + ε) + β`.
///
/// `μ` and `σ²` are mean and variance (of the population) over the values of one sample. So training
/// and evaluation are the same function, and a batch of one sample works. `γ` and `β` have an entry for
/// every value, as in PyTorch's `LayerNorm` over the whole shape. `γ` starts at 1, `β` at 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNorm {
    values: usize,
    epsilon: f64,
}

/// `γ` and `β`.
type Values<'a, T> = [&'a [T]; 2];

impl LayerNorm {
    /// The default `ε`; PyTorch's.
    pub(crate) const EPSILON: f64 = 1e-5;

    pub(crate) fn new<T: Scalar>(shape: Shape, epsilon: f64) -> Result<Self> {
        require_positive::<T>("epsilon", epsilon)?;
        Ok(Self { values: shape.len(), epsilon })
    }

    /// `ε`
    #[must_use]
    pub fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// How many values of a sample it normalises together.
    #[must_use]
    pub fn values(&self) -> usize {
        self.values
    }

    /// `x̂ = (x − μ)/√(σ² + ε)`, which is stored for the way back, and `y ← γ ∘ x̂ + β`. Returns
    /// whether the statistics are finite.
    pub(crate) fn forward<T: Scalar>(
        &self,
        [scale, shift]: Values<T>,
        x: &[T],
        y: &mut [T],
        notes: &mut Notes<T>,
    ) -> bool {
        let Notes { statistics, normalised, .. } = notes;
        let Statistics { mean, variance, inverse_deviation, .. } = statistics;
        [&mut *mean, variance, inverse_deviation, normalised].into_iter().for_each(Vec::clear);
        let (count, epsilon) = (self.values as f64, T::of(self.epsilon));
        for (x, y) in x.chunks_exact(self.values).zip(y.chunks_exact_mut(self.values)) {
            let m = T::of(sum_plane(x, x, |x, _| x.as_f64()) / count);
            let square = |x: T, _| (x.as_f64() - m.as_f64()).powi(2);
            let v = T::of(sum_plane(x, x, square) / count);
            let r = (v + epsilon).sqrt().recip();
            for ((y, &x), (&scale, &shift)) in y.iter_mut().zip(x).zip(scale.iter().zip(shift)) {
                let x = (x - m) * r;
                normalised.push(x);
                *y = scale * x + shift;
            }
            mean.push(m);
            variance.push(v);
            inverse_deviation.push(r);
        }
        all_finite(mean) && all_finite(variance)
    }

    /// The way back. `∂γ = Σ δ x̂` and `∂β = Σ δ` over samples. With `g = γ ∘ δ`,
    /// `δ ← (g − ḡ − x̂ mean(g x̂))/√(σ² + ε)`, where the means are over the values of a sample.
    pub(crate) fn backward<T: Scalar>(
        &self,
        [gamma, _]: Values<T>,
        notes: &Notes<T>,
        delta: &mut [T],
        learned: &mut Learned<T>,
    ) {
        learned.iter_mut().for_each(Vec::clear);
        let [scale, shift, ..] = learned;
        let (x, shape) = (&notes.normalised, (self.values, 1));
        let with_x = |_, x: T, delta: T| (delta * x).as_f64();
        sum_channels(x, delta, shape, with_x, |_, sum| scale.push(T::of(sum)));
        sum_channels(x, delta, shape, |_, _, d| d.as_f64(), |_, sum| shift.push(T::of(sum)));

        for delta in delta.chunks_exact_mut(self.values) {
            delta.iter_mut().zip(gamma).for_each(|(delta, &gamma)| *delta *= gamma);
        }
        self.project(notes, delta);
    }

    /// The change of `y` for a small change `t` of `x`: `t ← γ ∘ (t − t̄ − x̂ mean(t x̂))/√(σ² + ε)`,
    /// where the means are over the values of a sample.
    pub(crate) fn tangent<T: Scalar>(
        &self,
        [gamma, _]: Values<T>,
        notes: &Notes<T>,
        tangent: &mut [T],
    ) {
        self.project(notes, tangent);
        for tangent in tangent.chunks_exact_mut(self.values) {
            tangent.iter_mut().zip(gamma).for_each(|(tangent, &gamma)| *tangent *= gamma);
        }
    }

    /// `t ← (t − t̄ − x̂ mean(t x̂))/√(σ² + ε)`: multiplies by the derivative of `x̂`. This matrix is
    /// symmetric, so it serves both ways.
    fn project<T: Scalar>(&self, notes: &Notes<T>, t: &mut [T]) {
        let (x, count) = (&notes.normalised, self.values as f64);
        let samples = x.chunks_exact(self.values).zip(t.chunks_exact_mut(self.values));
        for ((x, t), &r) in samples.zip(&notes.statistics.inverse_deviation) {
            let mean = T::of(sum_plane(t, t, |t, _| t.as_f64()) / count);
            let along = T::of(sum_plane(t, x, |t, x| (t * x).as_f64()) / count);
            for (t, &x) in t.iter_mut().zip(x) {
                *t = r * (*t - mean - x * along);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(i: usize) -> f64 {
        ((i * 37 + i / 3 * 11) % 101) as f64 / 25.0 - 2.0
    }

    /// Everything against loops over the definition in `f64`, row by row of the Jacobian.
    fn check<T: Scalar>(values: usize, samples: usize, offset: f64, tolerance: f64) {
        let norm = LayerNorm::new::<T>(values.into(), 1e-3).unwrap();
        let numbers = |length: usize, shift: usize, offset: f64| -> Vec<T> {
            (0..length).map(|i| T::of(offset + number(i + shift))).collect()
        };
        let (gamma, beta) = (numbers(values, 1, 0.1), numbers(values, 7, 0.0));
        let (x, delta) = (numbers(values * samples, 3, offset), numbers(values * samples, 11, 0.2));
        let (mut y, mut notes) = (vec![T::of(f64::NAN); x.len()], Notes::new());
        assert!(norm.forward([&gamma, &beta], &x, &mut y, &mut notes));
        let (mut back, mut learned) = (delta.clone(), Learned::default());
        norm.backward([&gamma, &beta], &notes, &mut back, &mut learned);

        let close = |found: T, expected: f64, what: &str| {
            let error = (found.as_f64() - expected).abs();
            assert!(error <= tolerance * expected.abs().max(1.0), "{what}: {found:?}, {expected}");
        };
        let f = |v: &[T], i: usize| v[i].as_f64();
        let (mut of_scale, mut of_shift) = (vec![0.0; values], vec![0.0; values]);
        for sample in 0..samples {
            let (start, n) = (sample * values, values as f64);
            let of = start..start + values;
            let mean = of.clone().map(|i| f(&x, i)).sum::<f64>() / n;
            let variance = of.clone().map(|i| (f(&x, i) - mean).powi(2)).sum::<f64>() / n;
            let inverse = 1.0 / (variance + 1e-3).sqrt();
            let normal = |i: usize| (f(&x, start + i) - mean) * inverse;
            for i in 0..values {
                close(y[start + i], f(&gamma, i) * normal(i) + f(&beta, i), "y");
                of_scale[i] += f(&delta, start + i) * normal(i);
                of_shift[i] += f(&delta, start + i);
                let through = |j: usize| {
                    let own = if i == j { 1.0 } else { 0.0 };
                    let jacobian = own - (1.0 + normal(i) * normal(j)) / n;
                    f(&delta, start + j) * f(&gamma, j) * inverse * jacobian
                };
                close(back[start + i], (0..values).map(through).sum(), "δ");
            }
        }
        for i in 0..values {
            close(learned[0][i], of_scale[i], "∂γ");
            close(learned[1][i], of_shift[i], "∂β");
        }
        assert!(learned[2].is_empty() && learned[3].is_empty());
    }

    /// `⟨J t, δ⟩ = ⟨t, Jᵀ δ⟩`
    #[test]
    fn a_tangent_is_the_transpose_of_the_way_back() {
        let norm = LayerNorm::new::<f64>(5.into(), 1e-3).unwrap();
        let numbers = |length: usize, shift: usize| -> Vec<f64> {
            (0..length).map(|i| number(i * 3 + shift)).collect()
        };
        let (gamma, beta, x) = (numbers(5, 1), numbers(5, 7), numbers(15, 3));
        let (delta, t) = (numbers(15, 11), numbers(15, 29));
        let (mut y, mut notes) = (vec![0.0; 15], Notes::new());
        norm.forward([&gamma, &beta], &x, &mut y, &mut notes);
        let (mut back, mut on, mut learned) = (delta.clone(), t.clone(), Learned::default());
        norm.backward([&gamma, &beta], &notes, &mut back, &mut learned);
        norm.tangent([&gamma, &beta], &notes, &mut on);
        let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        assert!((inner(&on, &delta) - inner(&t, &back)).abs() < 1e-12);
        assert!(inner(&on, &delta).abs() > 0.1);
    }

    proptest! {
        #[test]
        fn normalisation_agrees_with_its_definition(values in 1..40_usize, samples in 1..12_usize) {
            check::<f64>(values, samples, 0.3, 1e-12);
            check::<f32>(values, samples, 0.3, 2e-4);
        }
    }

    /// Where the mean is far from 0 the variance must not be lost.
    #[test]
    fn a_large_mean_does_not_drown_the_variance() {
        check::<f64>(30, 4, 1e6, 1e-8);
        check::<f32>(30, 4, 256.0, 1e-3);
    }

    /// Values computed with PyTorch, in float64:
    /// ```python
    /// norm = torch.nn.LayerNorm(4, eps=1e-5, dtype=torch.float64)
    /// norm.weight.data = torch.tensor([0.5, 1.0, -2.0, 1.5], dtype=torch.float64)
    /// norm.bias.data = torch.tensor([0.1, -0.2, 0.3, 0.0], dtype=torch.float64)
    /// x = torch.tensor([[1.0, 2.0, 4.0, -1.0]], dtype=torch.float64, requires_grad=True)
    /// y = norm(x)
    /// y.backward(torch.tensor([[1.0, -1.0, 0.5, 2.0]], dtype=torch.float64))
    /// print(y.tolist(), x.grad.tolist(), norm.weight.grad.tolist())
    /// ```
    #[test]
    fn a_sample_is_normalised_as_in_pytorch() {
        let norm = LayerNorm::new::<f64>(4.into(), 1e-5).unwrap();
        let values = [&[0.5, 1.0, -2.0, 1.5][..], &[0.1, -0.2, 0.3, 0.0]];
        let (mut y, mut notes) = ([0.0; 4], Notes::new());
        norm.forward(values, &[1.0, 2.0, 4.0, -1.0], &mut y, &mut notes);
        let (mut delta, mut learned) = ([1.0, -1.0, 0.5, 2.0], Learned::default());
        norm.backward(values, &notes, &mut delta, &mut learned);
        for (found, expected) in [(&y[..], Y), (&delta, BACK), (&learned[0], SCALE)] {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-14, "{found}, {expected}");
            }
        }
    }

    const Y: [f64; 4] = [
        -0.038_674_835_710_570_29,
        0.077_349_671_421_140_58,
        -2.473_496_714_211_406,
        -2.080_122_535_658_554,
    ];
    const BACK: [f64; 4] = [
        -0.160_008_720_139_464_2,
        -0.533_365_458_413_387_3,
        0.384_019_093_565_609_8,
        0.309_355_084_987_241_5,
    ];
    const SCALE: [f64; 4] = [
        -0.277_349_671_421_140_64,
        -0.277_349_671_421_140_53,
        0.693_374_178_552_851_4,
        -2.773_496_714_211_406,
    ];
}
