//! How the learning rate changes in the course of training.

use crate::error::{Result, require};

/// How the learning rate changes with the number of steps: a linear warm-up, then a decay.
///
/// Steps are those of the optimiser; an epoch has one for each batch.
///
/// ```
/// use feedback_alignment::{Decay, Schedule};
///
/// let schedule = Schedule { warm_up: 10, decay: Decay::Cosine { steps: 100 } };
/// assert_eq!(schedule.factor(0), 0.1);
/// assert_eq!(schedule.factor(10), 1.0);
/// assert!((schedule.factor(60) - 0.5).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Schedule {
    /// The number of steps over which the learning rate rises linearly. The last of them has the full
    /// rate; 0 by default.
    pub warm_up: u64,
    /// The decay after the warm-up, whose steps are counted from there; [`Decay::Constant`] by default.
    pub decay: Decay,
}

/// How the learning rate falls: the factor after `s` steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum Decay {
    /// `1`
    #[default]
    Constant,
    /// `factor^⌊s / every⌋`
    Step {
        /// Steps from one fall to the next, at least 1.
        every: u64,
        /// The factor that each fall multiplies the rate by, in `(0, 1]`.
        factor: f64,
    },
    /// `factor^(s / every)`: as [`Step`](Self::Step), but smooth.
    Exponential {
        /// Steps in which the rate falls by `factor`, at least 1.
        every: u64,
        /// The factor by which the rate falls in that time, in `(0, 1]`.
        factor: f64,
    },
    /// `½ (1 + cos(π s / steps))`, and 0 from then on (Loshchilov and Hutter 2017, eq. 5).
    Cosine {
        /// Steps until the rate is 0, at least 1.
        steps: u64,
    },
}

impl From<Decay> for Schedule {
    fn from(decay: Decay) -> Self {
        Self { warm_up: 0, decay }
    }
}

impl Schedule {
    /// The factor of the learning rate in the step that follows `steps` steps.
    ///
    /// An `every` of 0 counts as 1 here. Optimisers refuse it.
    #[must_use]
    pub fn factor(self, steps: u64) -> f64 {
        if steps < self.warm_up {
            return (steps + 1) as f64 / self.warm_up as f64;
        }
        let s = steps - self.warm_up;
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Step { every, factor } => factor.powf((s / every.max(1)) as f64),
            Decay::Exponential { every, factor } => factor.powf(s as f64 / every.max(1) as f64),
            Decay::Cosine { steps } => {
                let fraction = (s as f64 / steps as f64).min(1.0);
                0.5 * (1.0 + (std::f64::consts::PI * fraction).cos())
            }
        }
    }

    pub(super) fn check(self) -> Result<()> {
        match self.decay {
            Decay::Constant => Ok(()),
            Decay::Cosine { steps } => require(steps > 0, "steps", steps as f64, "at least 1"),
            Decay::Step { every, factor } | Decay::Exponential { every, factor } => {
                require(every > 0, "every", every as f64, "at least 1")?;
                require(factor > 0.0 && factor <= 1.0, "factor", factor, "a number in (0, 1]")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    #[test]
    fn schedules_follow_their_formulas() {
        let factors = |schedule: Schedule| [0, 5, 10, 15, 40].map(|step| schedule.factor(step));
        assert_eq!(factors(Schedule::default()), [1.0; 5]);
        let step = Decay::Step { every: 10, factor: 0.5 };
        assert_eq!(factors(step.into()), [1.0, 1.0, 0.5, 0.5, 0.0625]);
        let smooth = Decay::Exponential { every: 10, factor: 0.25 };
        assert_eq!(factors(smooth.into()), [1.0, 0.5, 0.25, 0.125, 0.25_f64.powi(4)]);
        let cosine = factors(Decay::Cosine { steps: 20 }.into());
        let half = std::f64::consts::FRAC_1_SQRT_2 / 2.0;
        for (found, expected) in cosine.into_iter().zip([1.0, 0.5 + half, 0.5, 0.5 - half, 0.0]) {
            assert_relative_eq!(found, expected, epsilon = 1e-12);
        }
        let warm = Schedule { warm_up: 20, decay: step };
        assert_eq!(factors(warm), [0.05, 0.3, 0.55, 0.8, 0.25]);
    }
}
