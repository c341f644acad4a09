//! The optimisers as plain values: which one, with which constants.

use crate::{
    error::{Result, require_fraction, require_not_negative, require_positive},
    scalar::Scalar,
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

/// How the weights shrink, with a rate `λ ≥ 0`. Biases and the parameters of normalisations do not
/// shrink.
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
    /// `w ← w − η λ w` beside the step (Loshchilov and Hutter 2019, with the decay multiplied by the
    /// learning rate).
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
/// `w ← w − η m̂ / (√v̂ + ε)` with `m̂ = m / (1 − β₁ᵗ)`, `v̂ = v / (1 − β₂ᵗ)`, where `t` counts the steps
/// of the optimiser.
///
/// So a layer that is released late, or a matrix that begins to learn late, starts with moments of 0
/// that are hardly corrected any more: its first steps are up to 6.6 times `η`. PyTorch counts the steps
/// of each parameter by itself.
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

/// Adam with decoupled weight decay, `w ← w − η λ w` before the step (Loshchilov and Hutter 2019,
/// algorithm 2, with the decay multiplied by the learning rate, as in PyTorch). Biases do not decay.
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
    pub(super) fn learning_rate(self) -> f64 {
        match self {
            Self::Sgd(Sgd { learning_rate, .. })
            | Self::RmsProp(RmsProp { learning_rate, .. })
            | Self::Adam(Adam { learning_rate, .. })
            | Self::AdamW(AdamW { adam: Adam { learning_rate, .. }, .. }) => learning_rate,
        }
    }

    /// How error messages call the kind.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Sgd(_) => "SGD",
            Self::RmsProp(_) => "RMSprop",
            Self::Adam(_) => "Adam",
            Self::AdamW(_) => "AdamW",
        }
    }

    /// How many numbers it remembers for each parameter.
    pub(super) fn moments(self) -> usize {
        match self {
            Self::Sgd(Sgd { momentum: Momentum::None, .. }) => 0,
            Self::Sgd(_) | Self::RmsProp(_) => 1,
            Self::Adam(_) | Self::AdamW(_) => 2,
        }
    }

    pub(super) fn check<T: Scalar>(self) -> Result<()> {
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
