//! Turning gradients into steps: SGD, RMSprop, Adam and AdamW, learning-rate schedules, max-norm.
//!
//! The rule of an optimiser is a plain value; what it remembers from step to step is the
//! [`OptimizerState`].

#[cfg(feature = "safetensors")]
mod description;
#[cfg(feature = "safetensors")]
mod moments;
mod guard;
mod schedule;
mod step;
mod update;

use std::sync::Arc;

pub use schedule::{Decay, Schedule};

#[cfg(feature = "safetensors")]
pub(crate) use {
    description::{OPTIMIZER, SCHEDULE},
    moments::MOMENTS,
};

pub(crate) use guard::{of_gradients, of_learned};
pub(crate) use step::{NextStep, Numbers};

use crate::{
    error::{Error, Result, require_fraction, require_not_negative, require_positive},
    network::Network,
    parameters::Parameters,
    scalar::Scalar,
    workspace::{Gradients, Layout, require_layout},
};

/// Stochastic gradient descent: `w ← w − η g`.
///
/// With classical momentum `v ← μ v + g`, `w ← w − η v` (Polyak 1964); with Nesterov's
/// `w ← w − η (g + μ v)` (Sutskever et al. 2013, in the form that PyTorch uses).
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Sgd {
    /// `η`, positive; 0.1 by default.
    pub learning_rate: f64,
    /// None by default.
    pub momentum: Momentum,
    /// None by default.
    pub weight_decay: WeightDecay,
}

impl Default for Sgd {
    fn default() -> Self {
        Self { learning_rate: 0.1, momentum: Momentum::None, weight_decay: WeightDecay::None }
    }
}

/// The momentum of [`Sgd`], with `μ` in `[0, 1)`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum Momentum {
    /// `w ← w − η g`
    #[default]
    None,
    /// `v ← μ v + g`, `w ← w − η v`
    Classical(f64),
    /// `v ← μ v + g`, `w ← w − η (g + μ v)`
    Nesterov(f64),
}

/// How the weights shrink, by `λ ≥ 0`. Biases, and the parameters of batch normalisation, do not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum WeightDecay {
    /// Not at all.
    #[default]
    None,
    /// `g ← g + λ w`: the gradient of the penalty `½ λ ‖w‖²` in the loss.
    L2(f64),
    /// `w ← w − η λ w` beside the step (Loshchilov and Hutter 2019).
    Decoupled(f64),
}

/// RMSprop as in Torch, which Nøkland (2016) uses: `m ← α m + (1 − α) g²`,
/// `w ← w − η g / (√m + ε)`, from `m = 0` and without bias correction (Tieleman and Hinton 2012).
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct RmsProp {
    /// `η`, positive; 1e-4 by default, as Nøkland takes for MNIST.
    pub learning_rate: f64,
    /// `α` in `[0, 1)`; 0.99 by default (Torch).
    pub decay: f64,
    /// `ε`, positive; 1e-8 by default (Torch).
    pub epsilon: f64,
}

impl Default for RmsProp {
    fn default() -> Self {
        Self { learning_rate: 1e-4, decay: 0.99, epsilon: 1e-8 }
    }
}

/// Adam (Kingma and Ba 2015, algorithm 1): `m ← β₁ m + (1 − β₁) g`, `v ← β₂ v + (1 − β₂) g²`,
/// `w ← w − η m̂ / (√v̂ + ε)` with `m̂ = m / (1 − β₁ᵗ)`, `v̂ = v / (1 − β₂ᵗ)`.
///
/// All defaults are those of the source.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Adam {
    /// `η`, positive; 1e-3 by default.
    pub learning_rate: f64,
    /// `β₁` in `[0, 1)`; 0.9 by default.
    pub beta1: f64,
    /// `β₂` in `[0, 1)`; 0.999 by default.
    pub beta2: f64,
    /// `ε`, positive; 1e-8 by default.
    pub epsilon: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Self { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// Adam with decoupled weight decay, `w ← w − η λ w` before the step (Loshchilov and Hutter
/// 2019, algorithm 2). Biases do not decay.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct AdamW {
    /// The step; [`Adam::default`] by default.
    pub adam: Adam,
    /// `λ ≥ 0`; 1e-2 by default (PyTorch).
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { adam: Adam::default(), weight_decay: 1e-2 }
    }
}

/// Any of the optimisers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// RMSprop.
    RmsProp(RmsProp),
    /// Adam.
    Adam(Adam),
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
}

impl Default for Optimizer {
    /// RMSprop with Nøkland's constants.
    fn default() -> Self {
        Self::RmsProp(RmsProp::default())
    }
}

macro_rules! from_config {
    ($($config:ident),*) => {$(
        impl From<$config> for Optimizer {
            fn from(config: $config) -> Self {
                Self::$config(config)
            }
        }
    )*};
}

from_config!(Sgd, RmsProp, Adam, AdamW);

impl Optimizer {
    fn learning_rate(self) -> f64 {
        match self {
            Self::Sgd(Sgd { learning_rate, .. })
            | Self::RmsProp(RmsProp { learning_rate, .. })
            | Self::Adam(Adam { learning_rate, .. })
            | Self::AdamW(AdamW { adam: Adam { learning_rate, .. }, .. }) => learning_rate,
        }
    }

    /// What errors call the kind.
    fn kind(self) -> &'static str {
        match self {
            Self::Sgd(_) => "SGD",
            Self::RmsProp(_) => "RMSprop",
            Self::Adam(_) => "Adam",
            Self::AdamW(_) => "AdamW",
        }
    }

    /// How many numbers it remembers for each parameter.
    fn moments(self) -> usize {
        match self {
            Self::Sgd(Sgd { momentum: Momentum::None, .. }) => 0,
            Self::Sgd(_) | Self::RmsProp(_) => 1,
            Self::Adam(_) | Self::AdamW(_) => 2,
        }
    }

    fn check<T: Scalar>(self) -> Result<()> {
        let (positive, fraction) = (require_positive::<T>, require_fraction::<T>);
        let rate = self.learning_rate();
        let penalty = |value: f64| {
            require_not_negative::<T>("weight_decay", value)?;
            require_not_negative::<T>("weight_decay × learning_rate", value * rate)
        };
        positive("learning_rate", rate)?;
        match self {
            Self::Sgd(Sgd { momentum, weight_decay, .. }) => {
                match momentum {
                    Momentum::None => {}
                    Momentum::Classical(mu) | Momentum::Nesterov(mu) => fraction("momentum", mu)?,
                }
                match weight_decay {
                    WeightDecay::None => Ok(()),
                    WeightDecay::L2(lambda) | WeightDecay::Decoupled(lambda) => penalty(lambda),
                }
            }
            Self::RmsProp(RmsProp { decay, epsilon, .. }) => {
                fraction("decay", decay)?;
                positive("epsilon", epsilon)
            }
            Self::Adam(adam) | Self::AdamW(AdamW { adam, .. }) => {
                fraction("beta1", adam.beta1)?;
                fraction("beta2", adam.beta2)?;
                positive("epsilon", adam.epsilon)?;
                match self {
                    Self::AdamW(AdamW { weight_decay, .. }) => penalty(weight_decay),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// An optimiser at work on one network: its moments and the number of steps made.
///
/// The fifth stage of a training step, and the only one that writes parameters.
#[derive(Clone, Debug)]
pub struct OptimizerState<T> {
    optimizer: Optimizer,
    schedule: Schedule,
    max_norm: Option<f64>,
    /// What the learning rate of each layer is multiplied by; empty while all factors are 1.
    rates: Vec<f64>,
    steps: u64,
    /// The network that the moments are of.
    layout: Arc<Layout>,
    /// The first and the second moment of every parameter; those that the optimiser lacks are empty.
    moments: [Parameters<T>; 2],
    /// A number that no first moment exceeds.
    largest_moment: f64,
}

impl<T: PartialEq> PartialEq for OptimizerState<T> {
    /// Compares configuration, steps and moments, not the network that they are of.
    fn eq(&self, other: &Self) -> bool {
        (self.optimizer, self.schedule, self.max_norm, self.steps)
            == (other.optimizer, other.schedule, other.max_norm, other.steps)
            && self.rates == other.rates
            && self.moments == other.moments
    }
}

impl<T: Scalar> OptimizerState<T> {
    /// An optimiser that has made no step yet, with a constant learning rate and no max-norm.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a hyper-parameter out of its
    /// range, also where the scalar rounds it to something else: 1e39 is infinite in `f32`;
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

    /// Replaces the constants by others of the same kind of optimiser; moments and steps stay.
    /// Momentum that [`Sgd`] did not have starts at 0.
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
            // Only momentum comes and goes within a kind.
            self.moments = Self::new(network, optimizer)?.moments;
            self.largest_moment = 0.0;
        }
        self.optimizer = optimizer;
        Ok(())
    }

    /// Replaces the schedule, whose steps count from the first step of this state.
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

    /// Replaces or lifts the bound of [`with_max_norm`](Self::with_max_norm).
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

    /// Multiplies the learning rate of weighted layer `layer`, its bias and the batch normalisation
    /// after it by `factor`, on top of the schedule; 1 by default. Layers are counted from 0.
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
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) unless factor and rate are
    /// positive in the scalar (to stop a layer, [freeze](Network::freeze) it); nothing has then
    /// changed.
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

    /// What [`set_rate_factor`](Self::set_rate_factor) has set for a layer.
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

    /// The learning rate of the next step, after the schedule.
    #[must_use]
    pub fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate() * self.schedule.factor(self.steps)
    }

    /// Makes one step on every parameter of the layers that are not
    /// [frozen](Network::freeze).
    ///
    /// # Errors
    /// [`Error::StageMismatch`](crate::Error::StageMismatch) if the gradients, or this state, are
    /// of another network; [`Error::NonFinite`](crate::Error::NonFinite) if a parameter, a moment
    /// or a running statistic would become infinite or NaN. Nothing has then changed.
    pub fn step(&mut self, network: &mut Network<T>, gradients: &Gradients<T>) -> Result<()> {
        self.require_gradients(network, gradients)?;
        let bound = guard::of_gradients(network, gradients);
        self.guarded(network, bound, |step, blocks, mut numbers| {
            for (layer, block) in blocks.iter().enumerate().filter(|(_, block)| !block.frozen) {
                let (gradient, learned) = gradients.of_layer(layer);
                step.follow((layer, block), numbers.layer(layer), gradient, learned);
            }
        })
    }

    /// Fails unless gradients and this state are of the network.
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

/// What errors call this stage.
const STAGE: &str = "optimizer step";

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use nalgebra::{DMatrix, DVector};

    use super::{step::NextStep, update::Update, *};
    use crate::error::Error;

    /// Three steps on a parameter of 1 with gradients 0.5, −0.2, 0.1.
    fn three_steps(optimizer: impl Into<Optimizer>) -> f64 {
        let optimizer = optimizer.into();
        let mut w = [1.0_f64];
        let (mut m, mut v) = ([0.0], [0.0]);
        for (t, g) in [(1, 0.5), (2, -0.2), (3, 0.1)] {
            let update = Update::new(optimizer, optimizer.learning_rate(), t);
            update.apply(&mut w, &[g], [&mut m, &mut v]);
        }
        w[0]
    }

    /// Values computed with PyTorch, in float64:
    /// ```python
    /// def run(make):
    ///     w = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    ///     optimizer = make([w])
    ///     for g in (0.5, -0.2, 0.1):
    ///         w.grad = torch.tensor([g], dtype=torch.float64)
    ///         optimizer.step()
    ///     return w.item()
    /// ```
    #[test]
    fn three_steps_are_those_of_pytorch() {
        let sgd = Sgd { learning_rate: 0.1, ..Sgd::default() };
        let adam = Adam { learning_rate: 0.1, ..Adam::default() };
        let cases: [(Optimizer, f64); 8] = [
            (sgd.into(), 0.96),
            (Sgd { momentum: Momentum::Classical(0.9), ..sgd }.into(), 0.8925),
            (Sgd { momentum: Momentum::Nesterov(0.9), ..sgd }.into(), 0.863_25),
            (Sgd { weight_decay: WeightDecay::L2(0.3), ..sgd }.into(), 0.875_028),
            (
                Sgd {
                    momentum: Momentum::Nesterov(0.9),
                    weight_decay: WeightDecay::L2(0.3),
                    ..sgd
                }
                .into(),
                0.647_084_352,
            ),
            (RmsProp { learning_rate: 0.1, ..RmsProp::default() }.into(), 0.188_770_030_209_380_57),
            (adam.into(), 0.827_500_240_835_695_6),
            (AdamW { adam, weight_decay: 0.3 }.into(), 0.747_120_058_234_000_2),
        ];
        for (optimizer, expected) in cases {
            assert_relative_eq!(three_steps(optimizer), expected, max_relative = 1e-14);
        }
    }

    /// `w ← w − η (g + v) − η λ w`, by hand.
    #[test]
    fn decoupled_decay_stands_beside_the_momentum() {
        let sgd = Sgd {
            learning_rate: 0.1,
            momentum: Momentum::Classical(0.5),
            weight_decay: WeightDecay::Decoupled(0.2),
        };
        let w1 = 1.0 - 0.1 * 0.5 - 0.02;
        let w2 = w1 - 0.1 * (0.25 - 0.2) - 0.02 * w1;
        let w3 = w2 - 0.1 * (0.025 + 0.1) - 0.02 * w2;
        assert_relative_eq!(three_steps(sgd), w3, max_relative = 1e-14);
    }

    /// Oracle: `η g / (√0.01 |g| + 1e-8)`, nearly `10 η sign(g)` whatever the gradient.
    #[test]
    fn the_first_step_of_rmsprop_is_ten_times_the_learning_rate() {
        for g in [3.0_f64, 1e-2, -1e-3] {
            let mut w = [0.0];
            let optimizer = Optimizer::default();
            Update::new(optimizer, 1e-4, 1).apply(&mut w, &[g], [&mut [0.0], &mut []]);
            let exact = -1e-4 * g / (0.01_f64.sqrt() * g.abs() + 1e-8);
            assert_relative_eq!(w[0], exact, max_relative = 1e-12);
            assert_relative_eq!(w[0], -1e-3 * g.signum(), max_relative = 1e-3);
        }
    }

    #[test]
    fn rows_are_bounded_and_keep_their_direction() {
        let mut weights = DMatrix::from_row_slice(3, 2, &[3.0, 4.0, 0.3, 0.4, 0.0, 0.0]);
        let step = NextStep::new(Sgd::default().into(), (0.1, 1), Some(1.0), &[]);
        step.bound(weights.as_mut_slice(), 3);
        let expected = DMatrix::from_row_slice(3, 2, &[0.6, 0.8, 0.3, 0.4, 0.0, 0.0]);
        assert_relative_eq!(weights, expected, epsilon = 1e-15);
    }

    #[test]
    fn weight_decay_spares_the_bias() {
        let mut network = Network::<f64>::builder(2).dense(1).build().unwrap();
        network.set_bias(0, DVector::from_element(1, 3.0)).unwrap();
        let before = network.clone();
        let mut gradients = Gradients::new();
        gradients.fit(&network.layout).unwrap();
        (0..2).for_each(|index| *gradients.slot_mut(0, index).1 = true);
        for weight_decay in [WeightDecay::L2(0.5), WeightDecay::Decoupled(0.5)] {
            let sgd = Sgd { learning_rate: 0.1, weight_decay, ..Sgd::default() };
            let mut network = network.clone();
            OptimizerState::new(&network, sgd).unwrap().step(&mut network, &gradients).unwrap();
            let (old, new) = (before.layer(0).unwrap(), network.layer(0).unwrap());
            assert_eq!(new.bias(), old.bias());
            assert_relative_eq!(new.weights().into_owned(), old.weights() * 0.95, epsilon = 1e-15);
        }
    }

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
