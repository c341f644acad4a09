//! Stopping when a score on held-out data no longer improves.

use crate::{
    error::{Result, require},
    network::Network,
    scalar::Scalar,
};

/// Keeps the network with the best score so far, and says when to stop: after `patience` scores in a
/// row that are no better. Smaller scores are better, as with error rates and losses.
///
/// ```
/// use feedback_alignment::{Dataset, EarlyStopping, Network, Trainer, nalgebra::DMatrix};
///
/// let x = DMatrix::from_fn(2, 40, |i, j| ((i * 7 + j * 3) % 11) as f32 / 11.0);
/// let data = Dataset::new(x, (0..40).map(|j| j % 2).collect())?;
/// let (train, validation) = data.split(10, 1)?;
/// let network = Network::<f32>::builder(2).dense(8).tanh().dense(2).build()?;
/// let mut trainer = Trainer::builder(network).build()?;
/// let mut stopping = EarlyStopping::new(3)?;
/// while !stopping.is_finished() && trainer.epochs() < 50 {
///     trainer.epoch(&train)?;
///     let score = trainer.evaluate(&validation)?.loss;
///     stopping.observe(trainer.network(), score)?;
/// }
/// let best = stopping.into_best().expect("at least one epoch was made");
/// assert_eq!(best.input_len(), 2);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct EarlyStopping<T> {
    patience: u64,
    waited: u64,
    best: Option<(f64, Network<T>)>,
}

impl<T: Scalar> EarlyStopping<T> {
    /// Stops after `patience` scores in a row that are no better than the best. `patience` is at least
    /// 1.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a patience of 0.
    pub fn new(patience: u64) -> Result<Self> {
        require(patience > 0, "patience", 0.0, "at least 1")?;
        Ok(Self { patience, waited: 0, best: None })
    }

    /// Takes note of a score. If it is the best so far, keeps a copy of the network and returns true.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a score that is NaN; nothing
    /// has then changed.
    pub fn observe(&mut self, network: &Network<T>, score: f64) -> Result<bool> {
        require(!score.is_nan(), "score", score, "a number")?;
        let improved = self.best.as_ref().is_none_or(|&(best, _)| score < best);
        if improved {
            self.best = Some((score, network.clone()));
            self.waited = 0;
        } else {
            self.waited = self.waited.saturating_add(1);
        }
        Ok(improved)
    }

    /// Whether it is time to stop.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.waited >= self.patience
    }

    /// The best score so far.
    #[must_use]
    pub fn best_score(&self) -> Option<f64> {
        self.best.as_ref().map(|&(score, _)| score)
    }

    /// The network with the best score so far.
    #[must_use]
    pub fn best(&self) -> Option<&Network<T>> {
        self.best.as_ref().map(|(_, network)| network)
    }

    /// The network with the best score, when training is done.
    #[must_use]
    pub fn into_best(self) -> Option<Network<T>> {
        self.best.map(|(_, network)| network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_after_patience_and_keeps_the_best_network() {
        let network = |seed| Network::<f64>::builder(1).dense(1).seed(seed).build().unwrap();
        let mut stopping = EarlyStopping::new(2).unwrap();
        assert!(stopping.best().is_none() && stopping.best_score().is_none());
        for (seed, score, improved, finished) in [
            (1, 0.5, true, false),
            (2, 0.6, false, false),
            (3, 0.4, true, false),
            (4, 0.4, false, false),
            (5, f64::INFINITY, false, true),
            (6, 0.3, true, false),
            (7, 0.9, false, false),
        ] {
            assert_eq!(stopping.observe(&network(seed), score).unwrap(), improved, "{seed}");
            assert_eq!(stopping.is_finished(), finished, "{seed}");
        }
        assert!(stopping.observe(&network(8), f64::NAN).is_err());
        assert_eq!(stopping.best_score(), Some(0.3));
        assert_eq!(stopping.best(), Some(&network(6)));
        assert_eq!(stopping.into_best(), Some(network(6)));
        assert!(EarlyStopping::<f32>::new(0).is_err());
    }
}
