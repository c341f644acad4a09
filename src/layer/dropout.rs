//! Dropout: units that are set to 0 at random in training.

use std::fmt;

use rand::Rng;

use crate::{
    buffer::Pass,
    error::{Result, require},
    scalar::Scalar,
    seed::{Purpose, stream},
};

/// Inverted dropout (Srivastava et al. 2014). In training each unit is set to 0 with probability `p`,
/// and the others are divided by `1 − p`, which keeps the expected value. In evaluation it does
/// nothing.
///
/// The mask is drawn from the seed of the training run, the place of the operation in the network and
/// the number of the step. A delta on its way back passes through the same mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// `p` in `[0, 1)`.
    pub probability: f64,
    /// Which dropout of the network this is, counted from 0.
    place: u64,
}

impl Dropout {
    pub(crate) fn new(probability: f64, place: u64) -> Result<Self> {
        let valid = (0.0..1.0).contains(&probability);
        require(valid, "probability", probability, "a number from 0 up to, not including, 1")?;
        Ok(Self { probability, place })
    }

    /// `y ← mask ∘ x / (1 − p)` in training, `y ← x` in evaluation.
    pub(crate) fn forward<T: Scalar>(
        &self,
        x: &[T],
        y: &mut [T],
        kept: &mut Vec<bool>,
        pass: Pass,
    ) {
        let Pass::Training { seed, time } = pass else {
            y.copy_from_slice(x);
            return;
        };
        kept.resize(x.len(), true);
        let mut rng = stream(seed, Purpose::Dropout, self.place, time);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // p·2³² is in range.
        let threshold = (self.probability * 2_f64.powi(32)) as u32;
        // Two decisions from each draw of 64 bits.
        for pair in kept.chunks_mut(2) {
            let draw = rng.next_u64();
            #[allow(clippy::cast_possible_truncation)] // The two halves of the draw.
            let halves = [draw as u32, (draw >> 32) as u32];
            for (kept, half) in pair.iter_mut().zip(halves) {
                *kept = half >= threshold;
            }
        }
        let scale = self.scale();
        for ((y, &x), &kept) in y.iter_mut().zip(x).zip(kept.iter()) {
            // A product and not an assignment of 0, so that a NaN stays visible.
            *y = x * if kept { scale } else { T::zero() };
        }
    }

    /// `δ ← mask ∘ δ / (1 − p)`
    pub(crate) fn backward<T: Scalar>(&self, kept: &[bool], delta: &mut [T]) {
        let scale = self.scale();
        for (delta, &kept) in delta.iter_mut().zip(kept) {
            *delta *= if kept { scale } else { T::zero() };
        }
    }

    fn scale<T: Scalar>(&self) -> T {
        T::of(1.0 / (1.0 - self.probability))
    }
}

impl fmt::Display for Dropout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dropout {}", self.probability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training(seed: u64, time: u64) -> Pass {
        Pass::Training { seed, time }
    }

    /// What becomes of ones, and the mask.
    fn ones(dropout: Dropout, length: usize, pass: Pass) -> (Vec<f64>, Vec<bool>) {
        let (mut y, mut kept) = (vec![f64::NAN; length], Vec::new());
        dropout.forward(&vec![1.0; length], &mut y, &mut kept, pass);
        (y, kept)
    }

    #[test]
    fn the_expectation_stays() {
        for p in [0.0, 0.001, 0.1, 0.5, 0.9, 0.999] {
            let length = 200_001;
            let (y, kept) = ones(Dropout::new(p, 3).unwrap(), length, training(1, 0));
            let scale = 1.0 / (1.0 - p);
            assert!(y.iter().zip(&kept).all(|(&y, &kept)| y == if kept { scale } else { 0.0 }));
            // Six standard deviations of a mean; the masks are always the same.
            let deviation = (p / (1.0 - p) / length as f64).sqrt();
            let mean = y.iter().sum::<f64>() / length as f64;
            assert!((mean - 1.0).abs() <= 6.0 * deviation + 1e-12, "{p}: {mean}");
            assert_eq!(kept.iter().all(|&kept| kept), p == 0.0);
            // Neighbours, which share a draw, are independent.
            let pairs = kept.chunks_exact(2).filter(|pair| !pair[0] && !pair[1]).count() as f64;
            let expected = p * p * (length / 2) as f64;
            assert!((pairs - expected).abs() <= 6.0 * (expected + 1.0).sqrt(), "{p}: {pairs}");
        }
    }

    #[test]
    fn a_delta_passes_through_the_same_mask() {
        let dropout = Dropout::new(0.4, 0).unwrap();
        let (y, kept) = ones(dropout, 101, training(5, 7));
        let mut delta: Vec<f64> = (0..101).map(f64::from).collect();
        dropout.backward(&kept, &mut delta);
        assert!(delta.iter().zip(&y).enumerate().all(|(i, (&delta, &y))| delta == i as f64 * y));
    }

    #[test]
    fn masks_depend_on_seed_time_and_place_alone() {
        let mask = |place, seed, time| {
            ones(Dropout::new(0.5, place).unwrap(), 200, training(seed, time)).1
        };
        let first = mask(0, 1, 2);
        assert_eq!(mask(0, 1, 2), first);
        for other in [mask(1, 1, 2), mask(0, 2, 2), mask(0, 1, 3)] {
            assert_ne!(other, first);
        }
    }

    #[test]
    fn evaluation_leaves_everything_as_it_is() {
        let (mut y, mut kept) = ([0.0; 3], Vec::new());
        let x = [1.0, f32::NAN, -0.0];
        Dropout::new(0.9, 0).unwrap().forward(&x, &mut y, &mut kept, Pass::Evaluation);
        assert_eq!(y.map(f32::to_bits), x.map(f32::to_bits));
        assert!(kept.is_empty());
    }

    #[test]
    fn a_dropped_nan_is_not_hidden() {
        let (mut y, mut kept) = ([0.0; 64], Vec::new());
        Dropout::new(0.5, 0).unwrap().forward(&[f32::NAN; 64], &mut y, &mut kept, training(1, 1));
        assert!(kept.contains(&false) && y.iter().all(|y| y.is_nan()));
    }
}
