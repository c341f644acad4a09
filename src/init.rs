//! The distributions of initial weights and of feedback matrices.

use std::{fmt, str::FromStr};

use rand::Rng;
use rand_distr::{Distribution, StandardNormal, Uniform};

use crate::{
    error::{Error, Result, require},
    rule::FeedbackRule,
    scalar::Scalar,
};

/// Enough layers to see whether a rule reads weights: IFA does so from the second hidden layer on.
const LAYERS: usize = 3;

/// Distribution of the initial weights and biases.
///
/// `fan_in` is the number of inputs of a unit, and `fan_out` the number of units that read one input
/// (for a dense layer: columns and rows of `W`). Biases are 0 unless stated otherwise. Numbers are
/// drawn as `f64` and rounded, so a seed gives the same network in both scalar types.
///
/// ```
/// use feedback_alignment::Init;
///
/// assert_eq!("he-normal".parse::<Init>()?, Init::HeNormal);
/// assert_eq!(Init::presets().next(), Some(Init::FanIn));
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Init {
    /// `W, b ~ U(±1/√fan_in)`, from which every rule learns. It is Torch's default, and Nøkland (2016)
    /// uses it for backpropagation and for every network with ReLU.
    #[default]
    FanIn,
    /// What Nøkland (2016) uses with `rule`. If every hidden unit saturates (tanh, logistic) and the
    /// rule can learn from zeros, as FA and DFA, weights and biases are zero. Otherwise, as with BP, IFA,
    /// the sign symmetries, FDFA and shallow, it is [`FanIn`](Self::FanIn).
    Nokland {
        /// The rule that will train the network.
        rule: FeedbackRule,
    },
    /// `W ~ U(±√(6 / (fan_in + fan_out)))`; Glorot and Bengio 2010, eq. 16.
    GlorotUniform,
    /// `W ~ N(0, 2 / (fan_in + fan_out))`; Glorot and Bengio 2010, eq. 12.
    GlorotNormal,
    /// `W ~ U(±√(6 / fan_in))`; He et al. 2015, eq. 10, as a uniform distribution.
    HeUniform,
    /// `W ~ N(0, 2 / fan_in)`; He et al. 2015, eq. 10.
    HeNormal,
    /// `W ~ U(±√(3 / fan_in))`; LeCun et al. 1998, eq. 16, as a uniform distribution.
    LecunUniform,
    /// `W ~ N(0, 1 / fan_in)`; LeCun et al. 1998, eq. 16.
    LecunNormal,
    /// `W ~ U(±bound)`.
    Uniform {
        /// Largest magnitude, positive.
        bound: f64,
    },
    /// `W ~ N(0, std²)`.
    Normal {
        /// Standard deviation, positive.
        std: f64,
    },
    /// `W = b = 0`. FA and DFA learn from there, except through ReLU; BP with a hidden layer and
    /// IFA with two or more do not.
    Zeros,
}

impl Init {
    /// The paper's initialisation for a network that `rule` will train: [`Init::Nokland`].
    #[must_use]
    pub fn nokland(rule: FeedbackRule) -> Self {
        Self::Nokland { rule }
    }

    /// All distributions without parameters: all but [`Nokland`](Self::Nokland),
    /// [`Uniform`](Self::Uniform) and [`Normal`](Self::Normal).
    #[must_use]
    pub fn presets() -> impl ExactSizeIterator<Item = Self> {
        [
            Self::FanIn,
            Self::GlorotUniform,
            Self::GlorotNormal,
            Self::HeUniform,
            Self::HeNormal,
            Self::LecunUniform,
            Self::LecunNormal,
            Self::Zeros,
        ]
        .into_iter()
    }

    /// The distributions of a layer's weights and biases. `saturating` says whether every hidden unit
    /// of the network saturates.
    pub(crate) fn spread(
        self,
        fan_in: usize,
        fan_out: usize,
        saturating: bool,
    ) -> (Spread, Spread) {
        let (fan_in, fan_out) = (fan_in as f64, fan_out as f64);
        let weights = match self {
            Self::Nokland { rule }
                if saturating && rule.route(LAYERS).is_ok_and(|route| !route.needs_weights()) =>
            {
                Spread::Zero
            }
            Self::FanIn | Self::Nokland { .. } => {
                let spread = Spread::Uniform(fan_in.sqrt().recip());
                return (spread, spread);
            }
            Self::GlorotUniform => Spread::Uniform((6.0 / (fan_in + fan_out)).sqrt()),
            Self::GlorotNormal => Spread::Normal((2.0 / (fan_in + fan_out)).sqrt()),
            Self::HeUniform => Spread::Uniform((6.0 / fan_in).sqrt()),
            Self::HeNormal => Spread::Normal((2.0 / fan_in).sqrt()),
            Self::LecunUniform => Spread::Uniform((3.0 / fan_in).sqrt()),
            Self::LecunNormal => Spread::Normal(fan_in.sqrt().recip()),
            Self::Uniform { bound } => Spread::Uniform(bound),
            Self::Normal { std } => Spread::Normal(std),
            Self::Zeros => Spread::Zero,
        };
        (weights, Spread::Zero)
    }

    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Uniform { bound } => positive("bound", bound),
            Self::Normal { std } => positive("std", std),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FanIn => "fan-in",
            Self::Nokland { .. } => "nokland",
            Self::GlorotUniform => "glorot-uniform",
            Self::GlorotNormal => "glorot-normal",
            Self::HeUniform => "he-uniform",
            Self::HeNormal => "he-normal",
            Self::LecunUniform => "lecun-uniform",
            Self::LecunNormal => "lecun-normal",
            Self::Uniform { .. } => "uniform",
            Self::Normal { .. } => "normal",
            Self::Zeros => "zeros",
        })
    }
}

impl FromStr for Init {
    type Err = Error;

    /// Reads the name of one of the [`presets`](Init::presets), in upper or lower case.
    fn from_str(text: &str) -> Result<Self> {
        named("initialisation", text, Self::presets())
    }
}

/// Distribution of the random feedback matrices.
///
/// A matrix `B_l` has a row for each unit that receives the feedback, `n_l`, and a column for each unit
/// that sends it, `n_L` (under FA `n_{l+1}`). Here it is always drawn independently of the weights.
/// Nøkland's own code copies the initial `W_{l+1}` under FA, which is perfect alignment unless the
/// weights are then set to zero. Where a matrix takes the place of the kernels of a convolution, `n_l` is
/// `C_in · kh · kw` and `n_L` is `C_out`.
///
/// To draw from another distribution of `rand_distr` use [`Feedback::sample`](crate::Feedback::sample),
/// and for your own matrices [`Feedback::from_matrices`](crate::Feedback::from_matrices).
///
/// ```
/// use feedback_alignment::FeedbackInit;
///
/// let names: Vec<_> = FeedbackInit::presets().map(|init| init.to_string()).collect();
/// assert_eq!(names, ["nokland", "lillicrap", "frenkel", "lighton", "crafton"]);
/// assert_eq!("LightOn".parse::<FeedbackInit>()?, FeedbackInit::LightOn);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum FeedbackInit {
    /// `U(±1/√n_l)`, where `n_l` is the number of units that receive the feedback; Nøkland 2016 (his
    /// code).
    #[default]
    Nokland,
    /// `U(±0.5)`; Lillicrap et al. 2016.
    Lillicrap,
    /// `U(±√(6/n_l))`; Frenkel, Lefebvre and Bol 2019.
    Frenkel,
    /// `N(0, 1/(n_l n_L))`; Launay, Poli and Krzakala 2019.
    LightOn,
    /// For [sparse](crate::Through::Sparse) matrices with `s` entries in a row `U(±(n_L s)^¼/√n_l)`; a
    /// full matrix has `s = n_L`. For matrices of [low rank](crate::Through::LowRank) a standard
    /// deviation of `1/√n_l`. Crafton et al. 2019 (their code).
    Crafton,
    /// `U(±bound)`.
    Uniform {
        /// Largest magnitude, positive.
        bound: f64,
    },
    /// `N(0, std²)`.
    Normal {
        /// Standard deviation, positive.
        std: f64,
    },
}

impl FeedbackInit {
    /// All distributions without parameters: all but [`Uniform`](Self::Uniform) and
    /// [`Normal`](Self::Normal).
    #[must_use]
    pub fn presets() -> impl ExactSizeIterator<Item = Self> {
        [Self::Nokland, Self::Lillicrap, Self::Frenkel, Self::LightOn, Self::Crafton].into_iter()
    }

    pub(crate) fn spread(self, receivers: usize, senders: usize) -> Spread {
        let (receivers, senders) = (receivers as f64, senders as f64);
        match self {
            Self::Nokland => Spread::Uniform(receivers.sqrt().recip()),
            Self::Lillicrap => Spread::Uniform(0.5),
            Self::Frenkel => Spread::Uniform((6.0 / receivers).sqrt()),
            Self::LightOn => Spread::Normal((receivers * senders).sqrt().recip()),
            Self::Crafton => Spread::Uniform((senders / receivers).sqrt()),
            Self::Uniform { bound } => Spread::Uniform(bound),
            Self::Normal { std } => Spread::Normal(std),
        }
    }

    /// The distribution of the entries of a sparse matrix with `entries` of them in a row.
    pub(crate) fn sparse(self, receivers: usize, senders: usize, entries: usize) -> Spread {
        match self {
            Self::Crafton => {
                let root = (senders as f64 * entries as f64).sqrt().sqrt();
                Spread::Uniform(root / (receivers as f64).sqrt())
            }
            _ => self.spread(receivers, senders),
        }
    }

    /// The distribution whose variance the entries of a matrix of low rank have.
    pub(crate) fn of_rank(self, receivers: usize, senders: usize) -> Spread {
        match self {
            Self::Crafton => Spread::Normal((receivers as f64).sqrt().recip()),
            _ => self.spread(receivers, senders),
        }
    }

    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Uniform { bound } => positive("bound", bound),
            Self::Normal { std } => positive("std", std),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for FeedbackInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nokland => "nokland",
            Self::Lillicrap => "lillicrap",
            Self::Frenkel => "frenkel",
            Self::LightOn => "lighton",
            Self::Crafton => "crafton",
            Self::Uniform { .. } => "uniform",
            Self::Normal { .. } => "normal",
        })
    }
}

impl FromStr for FeedbackInit {
    type Err = Error;

    /// Reads the name of one of the [`presets`](FeedbackInit::presets), in upper or lower case.
    fn from_str(text: &str) -> Result<Self> {
        named("feedback initialisation", text, Self::presets())
    }
}

/// The preset with this name, in upper or lower case.
fn named<P>(what: &'static str, text: &str, presets: impl Iterator<Item = P>) -> Result<P>
where
    P: fmt::Display,
{
    let mut names = Vec::new();
    for preset in presets {
        let name = preset.to_string();
        if name.eq_ignore_ascii_case(text) {
            return Ok(preset);
        }
        names.push(name);
    }
    Err(Error::UnknownName { what, found: text.to_owned(), expected: names.join(", ") })
}

fn positive(name: &'static str, value: f64) -> Result<()> {
    require(value.is_finite() && value > 0.0, name, value, "a positive number")
}

/// A distribution around zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Spread {
    Zero,
    /// `U(−bound, bound)`
    Uniform(f64),
    /// `N(0, std²)`
    Normal(f64),
}

impl Spread {
    pub(crate) fn variance(self) -> f64 {
        match self {
            Self::Zero => 0.0,
            Self::Uniform(bound) => bound * bound / 3.0,
            Self::Normal(std) => std * std,
        }
    }

    /// Fills `values` with random numbers, in their order in memory.
    pub(crate) fn fill<T: Scalar, R: Rng + ?Sized>(self, values: &mut [T], rng: &mut R) {
        match self {
            Self::Zero => values.fill(T::zero()),
            Self::Uniform(bound) => {
                let distribution = Uniform::new(-1.0, 1.0).expect("the bounds are in order");
                values.fill_with(|| T::of(bound * distribution.sample(rng)));
            }
            Self::Normal(std) => values.fill_with(|| {
                let z: f64 = StandardNormal.sample(rng);
                T::of(std * z)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

    use super::*;

    /// Largest magnitude, mean and variance of a large sample.
    fn moments(spread: Spread) -> (f64, f64, f64) {
        let mut values = vec![0.0_f64; 200_000];
        spread.fill(&mut values, &mut Xoshiro256PlusPlus::seed_from_u64(3));
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        (values.iter().fold(0.0, |max, v| max.max(v.abs())), mean, variance)
    }

    #[test]
    fn presets_have_the_moments_that_their_sources_state() {
        let (fan_in, fan_out) = (30, 20);
        let weights = |init: Init| moments(init.spread(fan_in, fan_out, true).0);
        for (init, variance) in [
            (Init::FanIn, 1.0_f64 / 90.0),
            (Init::GlorotUniform, 2.0 / 50.0),
            (Init::GlorotNormal, 2.0 / 50.0),
            (Init::HeUniform, 2.0 / 30.0),
            (Init::HeNormal, 2.0 / 30.0),
            (Init::LecunUniform, 1.0 / 30.0),
            (Init::LecunNormal, 1.0 / 30.0),
            (Init::Uniform { bound: 0.3 }, 0.03),
            (Init::Normal { std: 0.2 }, 0.04),
        ] {
            let (_, mean, found) = weights(init);
            assert!(mean.abs() < 5.0 * (variance / 200_000.0).sqrt(), "{init:?}: mean {mean}");
            assert_relative_eq!(found, variance, max_relative = 0.02);
        }
        for (init, variance) in [
            (FeedbackInit::Nokland, 1.0 / 90.0),
            (FeedbackInit::Lillicrap, 1.0 / 12.0),
            (FeedbackInit::Frenkel, 2.0 / 30.0),
            (FeedbackInit::LightOn, 1.0 / 600.0),
            (FeedbackInit::Uniform { bound: 0.3 }, 0.03),
            (FeedbackInit::Normal { std: 0.2 }, 0.04),
        ] {
            let (largest, _, found) = moments(init.spread(30, 20));
            assert_relative_eq!(found, variance, max_relative = 0.02);
            if let Spread::Uniform(bound) = init.spread(30, 20) {
                assert!(largest <= bound && largest > 0.999 * bound, "{init:?}: {largest}");
            }
        }
    }

    #[test]
    fn the_papers_initialisation_depends_on_rule_and_units() {
        for rule in FeedbackRule::nokland() {
            let zero = matches!(rule, FeedbackRule::Fa | FeedbackRule::Dfa);
            let expected = if zero { Spread::Zero } else { Spread::Uniform(0.5) };
            assert_eq!(Init::nokland(rule).spread(4, 9, true), (expected, expected), "{rule}");
            let relu = Init::nokland(rule).spread(4, 9, false);
            assert_eq!(relu, (Spread::Uniform(0.5), Spread::Uniform(0.5)), "{rule}");
        }
        assert_eq!(Init::HeNormal.spread(4, 9, true).1, Spread::Zero);
    }

    #[test]
    fn names_round_trip_and_unknown_ones_are_refused() {
        for init in Init::presets() {
            assert_eq!(init.to_string().parse::<Init>().unwrap(), init);
            assert_eq!(init.to_string().to_uppercase().parse::<Init>().unwrap(), init);
        }
        for init in FeedbackInit::presets() {
            assert_eq!(init.to_string().parse::<FeedbackInit>().unwrap(), init);
            assert_eq!(init.to_string().to_uppercase().parse::<FeedbackInit>().unwrap(), init);
        }
        for name in ["he", "nokland", "uniform", ""] {
            let message = name.parse::<Init>().unwrap_err().to_string();
            assert!(message.contains("fan-in, glorot-uniform, glorot-normal"), "{message}");
            assert!(message.contains(&format!("'{name}'")), "{message}");
        }
        for name in ["he-normal", "uniform", "normal"] {
            let message = name.parse::<FeedbackInit>().unwrap_err().to_string();
            assert!(message.contains("nokland, lillicrap, frenkel, lighton, crafton"), "{message}");
        }
        assert_eq!(format!("[{:>8}]", FeedbackInit::Nokland), "[ nokland]");
    }

    #[test]
    fn impossible_scales_are_refused() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Init::Uniform { bound: value }.check().is_err());
            assert!(Init::Normal { std: value }.check().is_err());
            assert!(FeedbackInit::Uniform { bound: value }.check().is_err());
            assert!(FeedbackInit::Normal { std: value }.check().is_err());
        }
    }
}
