//! A learning rate that falls when a score on held-out data no longer improves.

use crate::error::{Result, require};

/// Lowers the learning rate after `patience` scores in a row that are no better than the best. Smaller
/// scores are better, as with error rates and losses.
///
/// A score `s` is better than the best so far, `s*`, if `s < s* − threshold · |s*|`. After `patience`
/// scores in a row that are not better, the rate becomes `max(factor · rate, lowest)`, and counting
/// starts again. Usually there is one score per epoch. The rate is the one before a
/// [`Schedule`](crate::Schedule) multiplies it. A checkpoint of the trainer saves the rate, but not
/// this value. With the feature `serde` you can save it beside the checkpoint.
///
/// ```
/// use feedback_alignment::{Dataset, Network, Plateau, Trainer, nalgebra::DMatrix};
///
/// let x = DMatrix::from_fn(2, 40, |i, j| ((i * 7 + j * 3) % 11) as f32 / 11.0);
/// let data = Dataset::new(x, (0..40).map(|j| j % 2).collect())?;
/// let (train, validation) = data.split_stratified(10, 1)?;
/// let network = Network::<f32>::builder(2).dense(8).tanh().dense(2).build()?;
/// let mut trainer = Trainer::builder(network).build()?;
/// let mut plateau = Plateau::new(0.01, 2)?.with_factor(0.5)?;
/// trainer.set_learning_rate(plateau.learning_rate())?;
/// for _ in 0..5 {
///     trainer.epoch(&train)?;
///     if let Some(rate) = plateau.observe(trainer.evaluate(&validation)?.loss)? {
///         trainer.set_learning_rate(rate)?;
///     }
/// }
/// assert_eq!(trainer.optimizer().learning_rate(), plateau.learning_rate());
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct Plateau {
    learning_rate: f64,
    patience: u64,
    factor: f64,
    threshold: f64,
    lowest: f64,
    waited: u64,
    best: Option<f64>,
}

impl Plateau {
    /// Begins at `learning_rate` and lowers it after `patience` scores in a row that are no better than
    /// the best. `patience` is at least 1.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a rate that is not positive and
    /// finite, and for a patience of 0.
    pub fn new(learning_rate: f64, patience: u64) -> Result<Self> {
        let valid = learning_rate > 0.0 && learning_rate.is_finite();
        require(valid, "learning_rate", learning_rate, "a positive number")?;
        require(patience > 0, "patience", 0.0, "at least 1")?;
        let (factor, threshold, lowest) = (0.1, 1e-4, 0.0);
        Ok(Self { learning_rate, patience, factor, threshold, lowest, waited: 0, best: None })
    }

    /// The factor that the rate is multiplied by, in `(0, 1)`; 0.1 by default.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for any other number.
    pub fn with_factor(self, factor: f64) -> Result<Self> {
        require(factor > 0.0 && factor < 1.0, "factor", factor, "a number in (0, 1)")?;
        Ok(Self { factor, ..self })
    }

    /// How much better a score has to be to count, as a fraction of the best score, in `[0, 1)`; 1e-4
    /// by default.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for any other number.
    pub fn with_threshold(self, threshold: f64) -> Result<Self> {
        let valid = (0.0..1.0).contains(&threshold);
        require(valid, "threshold", threshold, "a number from 0 up to, not including, 1")?;
        Ok(Self { threshold, ..self })
    }

    /// The lowest rate, from 0 to the learning rate; 0 by default.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for any other number.
    pub fn with_lowest(self, lowest: f64) -> Result<Self> {
        let valid = (0.0..=self.learning_rate).contains(&lowest);
        require(valid, "lowest", lowest, "a number from 0 to the learning rate")?;
        Ok(Self { lowest, ..self })
    }

    /// Takes note of a score. Returns the new learning rate if it falls now, to be given to
    /// [`Trainer::set_learning_rate`](crate::Trainer::set_learning_rate).
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a score that is NaN; nothing
    /// has then changed.
    pub fn observe(&mut self, score: f64) -> Result<Option<f64>> {
        require(!score.is_nan(), "score", score, "a number")?;
        if self.best.is_none_or(|best| self.is_better(score, best)) {
            (self.best, self.waited) = (Some(score), 0);
            return Ok(None);
        }
        self.waited = self.waited.saturating_add(1);
        if self.waited < self.patience {
            return Ok(None);
        }
        self.waited = 0;
        let rate = (self.factor * self.learning_rate).max(self.lowest);
        // A learning rate has to be positive. If the product underflows to 0, the old rate stays.
        let falls = rate > 0.0 && rate < self.learning_rate;
        Ok(falls.then(|| {
            self.learning_rate = rate;
            rate
        }))
    }

    /// Whether a score is better than another. Any finite score is better than infinity.
    fn is_better(&self, score: f64, best: f64) -> bool {
        let margin = if best.is_finite() { self.threshold * best.abs() } else { 0.0 };
        score < best - margin
    }

    /// The learning rate now.
    #[must_use]
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    /// The best score so far.
    #[must_use]
    pub fn best_score(&self) -> Option<f64> {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, from the whole list of scores: how often the rate has fallen after each.
    fn naive(scores: &[f64], patience: usize, threshold: f64) -> Vec<usize> {
        let (mut falls, mut best_at, mut last) = (Vec::new(), 0, 0);
        for at in 0..scores.len() {
            let best = scores[best_at];
            if at > 0 && scores[at] < best - threshold * best.abs() {
                (best_at, last) = (at, at);
            }
            let falls_now = at - last == patience;
            if falls_now {
                last = at;
            }
            falls.push(falls.last().unwrap_or(&0) + usize::from(falls_now));
        }
        falls
    }

    proptest! {
        #[test]
        fn it_falls_when_the_definition_says_so(
            scores in proptest::collection::vec((-4..5_i8).prop_map(|s| f64::from(s) / 4.0), 1..60),
            patience in 1..5_u8,
            threshold in prop_oneof![Just(0.0), Just(0.25), Just(0.9)],
        ) {
            let mut plateau = Plateau::new(1.0, patience.into()).unwrap();
            plateau = plateau.with_factor(0.5).unwrap().with_threshold(threshold).unwrap();
            let mut before = 0;
            for (&score, falls) in scores.iter().zip(naive(&scores, patience.into(), threshold)) {
                let rate = 0.5_f64.powi(i32::try_from(falls).unwrap());
                let expected = (falls > before).then_some(rate);
                prop_assert_eq!(plateau.observe(score).unwrap(), expected);
                prop_assert_eq!(plateau.learning_rate(), rate);
                before = falls;
            }
        }
    }

    #[test]
    fn the_rate_stops_at_the_lowest_and_never_becomes_zero() {
        let mut plateau = Plateau::new(1.0, 1).unwrap().with_lowest(0.05).unwrap();
        let rates = [(); 5].map(|()| plateau.observe(1.0).unwrap());
        assert_eq!(rates, [None, Some(0.1), Some(0.05), None, None]);
        let mut plateau = Plateau::new(f64::MIN_POSITIVE, 1).unwrap();
        let rates = (0..100).map(|_| plateau.observe(1.0).unwrap());
        assert!(rates.flatten().all(|rate| rate > 0.0));
        assert!(plateau.learning_rate() > 0.0);
    }

    #[test]
    fn settings_leave_each_other_as_they_are() {
        let plateau = Plateau::new(0.5, 3).unwrap();
        let one = plateau.with_factor(0.2).unwrap().with_threshold(0.3).unwrap().with_lowest(0.5);
        let other = plateau.with_lowest(0.5).unwrap().with_threshold(0.3).unwrap().with_factor(0.2);
        assert_eq!(one.unwrap(), other.unwrap());
    }

    #[test]
    fn by_itself_a_score_is_better_if_it_is_lower_by_a_ten_thousandth() {
        let mut plateau = Plateau::new(1.0, 9).unwrap();
        let bests = [1.0, 0.99991, 0.99989].map(|score| {
            plateau.observe(score).unwrap();
            plateau.best_score().unwrap()
        });
        assert_eq!(bests, [1.0, 1.0, 0.99989]);
    }

    #[test]
    fn infinite_scores_are_the_worst_and_the_best() {
        let mut plateau = Plateau::new(1.0, 2).unwrap();
        let scores = [f64::INFINITY, 1e300, 1.0, f64::NEG_INFINITY];
        assert!(scores.iter().all(|&score| plateau.observe(score).unwrap().is_none()));
        assert_eq!(plateau.best_score(), Some(f64::NEG_INFINITY));
        let before = plateau;
        assert!(plateau.observe(f64::NAN).is_err());
        assert_eq!(plateau, before);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Plateau::new(rate, 1).is_err());
        }
        assert!(Plateau::new(0.1, 0).is_err());
        let plateau = Plateau::new(0.1, 1).unwrap();
        for bad in [-0.1, 1.0, 2.0, f64::NAN, f64::INFINITY] {
            assert!(plateau.with_factor(bad).is_err());
            assert!(plateau.with_threshold(bad).is_err());
            assert!(plateau.with_lowest(bad).is_err());
        }
        assert!(plateau.with_factor(0.0).is_err());
    }
}
