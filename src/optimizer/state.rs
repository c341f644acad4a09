//! The state of an optimiser: its settings, and what it remembers from step to step.

use std::sync::Arc;

use super::{Adam, AdamW, Optimizer, RmsProp, Schedule, Sgd};
use crate::{
    error::{Error, Result, require_positive},
    network::Network,
    parameters::Parameters,
    scalar::Scalar,
    workspace::{Gradients, Layout, require_layout},
};

/// How error messages call this stage.
pub(super) const STAGE: &str = "optimizer step";

/// An optimiser at work on one network: its moments and the number of steps made.
///
/// The fifth stage of a training step, and the only one that writes parameters.
#[derive(Clone, Debug)]
pub struct OptimizerState<T> {
    pub(super) optimizer: Optimizer,
    pub(super) schedule: Schedule,
    pub(super) max_norm: Option<f64>,
    /// The factor of each layer's learning rate; empty while all factors are 1.
    pub(super) rates: Vec<f64>,
    /// The optimiser of feedback that learns, if it has its own.
    pub(super) feedback: Option<Optimizer>,
    /// Whether the moments of the feedback are still those of another kind of optimiser.
    pub(crate) feedback_begins_anew: bool,
    pub(super) steps: u64,
    /// The network that the moments belong to.
    pub(super) layout: Arc<Layout>,
    /// The first and the second moment of every parameter; empty if the optimiser does not have it.
    pub(super) moments: [Parameters<T>; 2],
    /// An upper bound of the magnitudes of all first moments.
    pub(super) largest_moment: f64,
}

impl<T: PartialEq> PartialEq for OptimizerState<T> {
    /// Compares settings, steps and moments, not the network that they belong to.
    fn eq(&self, other: &Self) -> bool {
        (self.optimizer, self.schedule, self.max_norm, self.steps)
            == (other.optimizer, other.schedule, other.max_norm, other.steps)
            && (&self.rates, self.feedback) == (&other.rates, other.feedback)
            && self.moments == other.moments
    }
}

impl<T: Scalar> OptimizerState<T> {
    /// An optimiser that has made no step yet, with a constant learning rate and no max-norm.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a hyper-parameter out of its
    /// range, also if it is out of range only in the scalar type: 1e39 is infinite in `f32`.
    /// [`Error::TooLarge`](crate::Error::TooLarge).
    pub fn new(network: &Network<T>, optimizer: impl Into<Optimizer>) -> Result<Self> {
        let optimizer = optimizer.into();
        optimizer.check::<T>()?;
        let table = &network.layout.table;
        let moment = |index: usize| {
            if index < optimizer.moments() {
                Parameters::zeros(table)
            } else {
                Ok(Parameters::none(table))
            }
        };
        let moments = [moment(0)?, moment(1)?];
        Ok(Self {
            optimizer,
            schedule: Schedule::default(),
            max_norm: None,
            rates: Vec::new(),
            feedback: None,
            feedback_begins_anew: false,
            steps: 0,
            layout: Arc::clone(&network.layout),
            moments,
            largest_moment: 0.0,
        })
    }

    /// Sets the schedule of the learning rate.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a schedule out of its range.
    pub fn with_schedule(mut self, schedule: impl Into<Schedule>) -> Result<Self> {
        self.set_schedule(schedule)?;
        Ok(self)
    }

    /// Bounds the norm of the incoming weights of every unit: after each step a row of `W` that
    /// is longer is scaled down to `max_norm` (Srivastava et al. 2014, section 5.1).
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) unless it is positive.
    pub fn with_max_norm(mut self, max_norm: f64) -> Result<Self> {
        self.set_max_norm(Some(max_norm))?;
        Ok(self)
    }

    /// The optimiser with its constants.
    #[must_use]
    pub fn config(&self) -> Optimizer {
        self.optimizer
    }

    /// The schedule of the learning rate.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// The bound on the norm of every unit's incoming weights.
    #[must_use]
    pub fn max_norm(&self) -> Option<f64> {
        self.max_norm
    }

    /// Replaces the learning rate, before the schedule's factor; moments and steps stay.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) unless it is positive in the
    /// scalar; nothing has then changed.
    pub fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        let mut optimizer = self.optimizer;
        match &mut optimizer {
            Optimizer::Sgd(Sgd { learning_rate: rate, .. })
            | Optimizer::RmsProp(RmsProp { learning_rate: rate, .. })
            | Optimizer::Adam(Adam { learning_rate: rate, .. })
            | Optimizer::AdamW(AdamW { adam: Adam { learning_rate: rate, .. }, .. }) => {
                *rate = learning_rate;
            }
        }
        optimizer.check::<T>()?;
        Self::check_rates(optimizer, &self.rates)?;
        self.optimizer = optimizer;
        Ok(())
    }

    /// Replaces the constants by others of the same kind of optimiser; moments and steps stay. If
    /// [`Sgd`] had no momentum before, it starts at 0.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a hyper-parameter out of its
    /// range, [`Error::OptimizerKind`](crate::Error::OptimizerKind) for another kind,
    /// [`Error::StageMismatch`](crate::Error::StageMismatch) for another network than the state
    /// was made for, [`Error::TooLarge`](crate::Error::TooLarge); nothing has then changed.
    pub fn set_optimizer(
        &mut self,
        network: &Network<T>,
        optimizer: impl Into<Optimizer>,
    ) -> Result<()> {
        self.require_network(network)?;
        let optimizer = optimizer.into();
        let (expected, found) = (self.optimizer.kind(), optimizer.kind());
        if expected != found {
            return Err(Error::OptimizerKind { expected, found });
        }
        Self::check_rates(optimizer, &self.rates)?;
        if self.optimizer.moments() == optimizer.moments() {
            optimizer.check::<T>()?;
        } else {
            // Of one kind, only SGD can change its number of moments, by its momentum.
            self.moments = Self::new(network, optimizer)?.moments;
            self.largest_moment = 0.0;
        }
        self.optimizer = optimizer;
        Ok(())
    }

    /// The optimiser of feedback that learns; `None` means the network's optimiser.
    #[must_use]
    pub fn feedback_optimizer(&self) -> Option<Optimizer> {
        self.feedback
    }

    /// Sets a separate optimiser for feedback that learns, as under KP, DKP, FDFA and PFA. Its learning
    /// rate is multiplied by the schedule's factor. If it is of another kind than the one before, the
    /// moments start at 0, because they mean something else. With `None`, the default, the feedback uses
    /// the network's optimiser and the rate factors of the layers.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a hyper-parameter out of its
    /// range; the old one then stays.
    pub fn set_feedback_optimizer(&mut self, optimizer: Option<Optimizer>) -> Result<()> {
        if let Some(optimizer) = optimizer {
            optimizer.check::<T>()?;
        }
        let before = self.feedback_kind();
        self.feedback = optimizer;
        // Before the first step there are none; those of a checkpoint are of its own optimiser.
        self.feedback_begins_anew |= self.steps > 0 && self.feedback_kind() != before;
        Ok(())
    }

    /// The kind of optimiser that the feedback follows.
    fn feedback_kind(&self) -> &'static str {
        self.feedback.unwrap_or(self.optimizer).kind()
    }

    /// Replaces the schedule. Its steps count from the first step of this state.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a schedule out of its range;
    /// the old one then stays.
    pub fn set_schedule(&mut self, schedule: impl Into<Schedule>) -> Result<()> {
        let schedule = schedule.into();
        schedule.check()?;
        self.schedule = schedule;
        Ok(())
    }

    /// Replaces or removes the bound of [`with_max_norm`](Self::with_max_norm).
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) unless it is positive in the
    /// scalar; the old one then stays.
    pub fn set_max_norm(&mut self, max_norm: Option<f64>) -> Result<()> {
        if let Some(max_norm) = max_norm {
            require_positive::<T>("max_norm", max_norm)?;
        }
        self.max_norm = max_norm;
        Ok(())
    }

    /// Multiplies the learning rate of weighted layer `layer` by `factor`, in addition to the schedule;
    /// 1 by default. It applies to the layer's weights and bias and to the normalisations after it.
    /// Layers are counted from 0.
    ///
    /// ```
    /// use feedback_alignment::{Network, OptimizerState, Sgd};
    ///
    /// let network = Network::<f32>::builder(4).dense(3).tanh().dense(2).build()?;
    /// let mut optimizer = OptimizerState::new(&network, Sgd::default())?;
    /// optimizer.set_rate_factor(1, 10.0)?;
    /// assert_eq!([0, 1].map(|layer| optimizer.rate_factor(layer).unwrap()), [1.0, 10.0]);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`](crate::Error::NoSuchLayer);
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) unless the factor, and the rate
    /// times the factor, are positive in the scalar type (to stop a layer, [freeze](Network::freeze)
    /// it). After an error nothing has changed.
    pub fn set_rate_factor(&mut self, layer: usize, factor: f64) -> Result<()> {
        self.rate_factor(layer)?;
        require_positive::<T>("rate_factor", factor)?;
        Self::check_rates(self.optimizer, &[factor])?;
        self.rates.resize(self.layout.blocks.len(), 1.0);
        self.rates[layer] = factor;
        if self.rates.iter().all(|&rate| rate == 1.0) {
            self.rates.clear();
        }
        Ok(())
    }

    /// Fails unless the learning rate of every layer is positive in the scalar.
    fn check_rates(optimizer: Optimizer, factors: &[f64]) -> Result<()> {
        let mut rates = factors.iter().map(|factor| factor * optimizer.learning_rate());
        rates.try_for_each(|rate| require_positive::<T>("rate_factor × learning_rate", rate))
    }

    /// The factor that [`set_rate_factor`](Self::set_rate_factor) has set for a layer.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`](crate::Error::NoSuchLayer).
    pub fn rate_factor(&self, layer: usize) -> Result<f64> {
        let count = self.layout.blocks.len();
        if layer >= count {
            return Err(Error::NoSuchLayer { what: "weighted layer", layer, count });
        }
        Ok(self.rates.get(layer).copied().unwrap_or(1.0))
    }

    /// Number of steps made.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The learning rate of the next step, schedule included.
    #[must_use]
    pub fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate() * self.schedule.factor(self.steps)
    }

    /// Fails unless the gradients and this state belong to the network.
    pub(crate) fn require_gradients(
        &self,
        network: &Network<T>,
        gradients: &Gradients<T>,
    ) -> Result<()> {
        self.require_network(network)?;
        require_layout(STAGE, "gradients", &network.layout, &gradients.layout)
    }

    /// Fails unless this state was made for a network like this one.
    pub(crate) fn require_network(&self, network: &Network<T>) -> Result<()> {
        require_layout(STAGE, "the optimizer's moments", &network.layout, &self.layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::{Decay, Momentum, WeightDecay};

    #[test]
    fn impossible_hyper_parameters_are_refused() {
        let network = Network::<f32>::builder(2).dense(1).build().unwrap();
        let refused = |optimizer: Optimizer| {
            matches!(OptimizerState::new(&network, optimizer), Err(Error::InvalidParameter { .. }))
        };
        for bad in [0.0, -0.1, f64::NAN, f64::INFINITY, 1e-60] {
            assert!(refused(Sgd { learning_rate: bad, ..Sgd::default() }.into()), "{bad}");
            assert!(refused(RmsProp { learning_rate: bad, ..RmsProp::default() }.into()));
            assert!(refused(RmsProp { epsilon: bad, ..RmsProp::default() }.into()));
            assert!(refused(Adam { epsilon: bad, ..Adam::default() }.into()));
        }
        for bad in [-0.1, 1.0, 1.5, f64::NAN] {
            assert!(refused(Sgd { momentum: Momentum::Classical(bad), ..Sgd::default() }.into()));
            assert!(refused(Sgd { momentum: Momentum::Nesterov(bad), ..Sgd::default() }.into()));
            assert!(refused(RmsProp { decay: bad, ..RmsProp::default() }.into()));
            assert!(refused(Adam { beta1: bad, ..Adam::default() }.into()));
            assert!(refused(Adam { beta2: bad, ..Adam::default() }.into()));
        }
        for bad in [-0.1, f64::NAN, f64::INFINITY] {
            assert!(refused(Sgd { weight_decay: WeightDecay::L2(bad), ..Sgd::default() }.into()));
            assert!(refused(AdamW { weight_decay: bad, ..AdamW::default() }.into()));
        }
        let state = || OptimizerState::new(&network, Sgd::default()).unwrap();
        assert!(state().with_max_norm(0.0).is_err());
        assert!(state().with_schedule(Decay::Cosine { steps: 0 }).is_err());
        assert!(state().with_schedule(Decay::Step { every: 0, factor: 0.5 }).is_err());
        assert!(state().with_schedule(Decay::Exponential { every: 5, factor: 1.5 }).is_err());
    }
}
