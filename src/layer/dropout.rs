//! Dropout: units silenced at random while training.

use std::fmt;

use rand::Rng;

use crate::{
    buffer::Pass,
    error::{Result, require},
    scalar::Scalar,
    seed::{Purpose, stream},
};

/// Inverted dropout (Srivastava et al. 2014): while training each unit is silenced with
/// probability `p` and the others are divided by `1 − p`, so that the expectation stays; in
/// evaluation nothing happens.
///
/// Masks are drawn from the seed of the training run, the place of the operation in the network
/// and the number of the step. A delta on its way back passes through the same mask.
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

    /// `y ← mask ∘ x / (1 − p)` while training, else `y ← x`.
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
            // A product, so that a NaN is not hidden by the mask.
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
