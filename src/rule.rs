//! The learning rules: how the error finds its way to the hidden layers.

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, Result},
    route::{Hop, Magnitudes, Route, Through, require_layers},
    signal::Signal,
};

/// PFA's inner width, as a multiple of the layer's width (Li et al. 2024).
const WIDTH: usize = 10;

/// How the error reaches the hidden layers. The rules differ in nothing else.
///
/// With `a_l = W_l h_{l-1} + b_l`, `h_l = f(a_l)` and `e = ∂J/∂a_L`, hidden layer `l` receives
///
/// | rule | delta of hidden layer `l` | source |
/// |---|---|---|
/// | [`Bp`](Self::Bp) | `δ_l = (W_{l+1}ᵀ δ_{l+1}) ∘ f'(a_l)` | Rumelhart, Hinton and Williams 1986; Nøkland 2016, eq. 6 |
/// | [`Fa`](Self::Fa) | `δ_l = (B_l δ_{l+1}) ∘ f'(a_l)` | Lillicrap et al. 2016; Nøkland 2016, eq. 7 |
/// | [`Dfa`](Self::Dfa) | `δ_l = (B_l e) ∘ f'(a_l)` | Nøkland 2016, eq. 8 |
/// | [`Ifa`](Self::Ifa) | `δ_1 = (B_1 e) ∘ f'(a_1)`, `δ_l = (W_l δ_{l-1}) ∘ f'(a_l)` for `l ≥ 2` | Nøkland 2016, eq. 9 |
/// | [`Shallow`](Self::Shallow) | none: hidden layers do not learn | the control of every comparison |
/// | [`SDfa`](Self::SDfa) | `δ_l = (B_l sign(e)/N) ∘ f'(a_l)` | Frenkel, Lefebvre and Bol 2021 |
/// | [`Drtp`](Self::Drtp) | `δ_l = (B_l t/N) ∘ f'(a_l)` with the targets `t` | Frenkel, Lefebvre and Bol 2021 |
/// | [`USf`](Self::USf) | `δ_l = (s sign(W_{l+1})ᵀ δ_{l+1}) ∘ f'(a_l)`, `s = √(2/(fan_in + fan_out))` | Liao, Leibo and Poggio 2016; Xiao et al. 2019 |
/// | [`FrSf`](Self::FrSf) | `δ_l = ((\|B_l\| ∘ sign(W_{l+1})ᵀ) δ_{l+1}) ∘ f'(a_l)` | as uSF |
/// | [`BrSf`](Self::BrSf) | as frSF, with `B_l` drawn anew for every step | as uSF |
/// | [`Kp`](Self::Kp) | as FA, and `B_lᵀ` gets every update of `W_{l+1}` | Kolen and Pollack 1994; Akrout et al. 2019 |
/// | [`Dkp`](Self::Dkp) | as DFA, and `B_l` learns along `∂B_l = h_l eᵀ` | Webster, Choi and Ahn 2021 |
/// | [`Fdfa`](Self::Fdfa) | as DFA, and `B_l` learns `(∂a_L/∂h_l)ᵀ` along `∂B_l = B_l − v_l dᵀ`: noise `v ~ N(0, 1)` in all hidden layers changes the outputs by `d` | Bacho and Chu 2022 (arXiv 2212.07282) |
/// | [`Wm`](Self::Wm) | as FA, and `B_l` learns from noise that goes through the layer above: [`Mirror`](crate::Mirror) | Akrout et al. 2019 |
/// | [`Pfa`](Self::Pfa) | `δ_l = (R_lᵀ B_lᵀ δ_{l+1}) ∘ f'(a_l)`, and `R_l` learns along `∂R_l = (B_lᵀ δ_{l+1}) h_lᵀ` | Li et al. 2024 (arXiv 2405.20594) |
///
/// All rules share the gradients `∂W_l = δ_l h_{l-1}ᵀ` and `∂b_l = Σ δ_l` (Nøkland 2016, eq. 10), and
/// the output layer's `δ_L = e`. The matrices `B` are random and drawn once, but FDFA's start from 0.
/// They stay as they are, with three exceptions: brSF draws new magnitudes for every step, under frSF
/// and brSF the signs follow those of the weights, and under KP, DKP, FDFA and WM the matrices learn.
///
/// The next table says what a rule needs beside the forward pass, for one hidden layer. The layer has
/// `n_l` units, the layer above it has `n_{l+1}`, the network has `n_L` outputs, and the batch has `N`
/// samples:
///
/// | rule | reads | stores | multiply-adds of the way back |
/// |---|---|---|---|
/// | BP | `W_{l+1}`, `δ_{l+1}` | nothing | `n_l n_{l+1} N` |
/// | FA | `δ_{l+1}` | `n_l n_{l+1}` numbers | `n_l n_{l+1} N` |
/// | DFA | `e` | `n_l n_L` numbers | `n_l n_L N` |
/// | IFA | `W_l`, `δ_{l-1}`; the first layer `e` | `n_1 n_L` numbers in all | `n_l n_{l-1} N` |
/// | shallow | nothing | nothing | none |
/// | sDFA | one bit of each `e` | as DFA | as DFA |
/// | DRTP | the targets, not the output | as DFA | as DFA |
/// | uSF, frSF, brSF | the signs of `W_{l+1}`, `δ_{l+1}` | as FA | as FA, and `n_l n_{l+1}` signs a step |
/// | KP | the updates of `W_{l+1}`, `δ_{l+1}` | as FA, and the optimiser's moments of it | as FA, and a second update |
/// | DKP | `e`, `h_l` | as DFA, and the optimiser's moments of it | twice DFA's, and a second update |
/// | FDFA | `e`, what the layers above make of noise | as DFA, and the optimiser's moments of it | twice DFA's, a second update, and a forward pass of noise |
/// | WM | what the layer above makes of noise, `δ_{l+1}` | as FA | as FA, and `2 n_l n_{l+1}` for each sample of noise |
/// | PFA | `δ_{l+1}`, `h_l` | `k n_{l+1} (n_l + n_{l+1})` numbers, and the optimiser's moments of `R` | `k n_{l+1} (2 n_l + n_{l+1}) N` |
///
/// Where this crate differs from other programs:
///
/// - DRTP: Frenkel's code sends `t` without the `1/N`, so its learning rate of the hidden layers is `N`
///   times ours. The sign of `B` is a free choice.
/// - uSF: `willwx/sign-symmetry` takes `1/√fan_in` for `s`.
/// - KP and WM: Akrout's runs have no decay.
/// - DKP: Webster trains `B` with Adam at 1e-4 and a decay of 1e-6. Here the network's optimiser trains
///   it, unless there is [one for feedback](crate::OptimizerState::set_feedback_optimizer).
/// - FDFA: the same holds; its authors take Adam at 1e-4 for `B`.
/// - PFA: the inner width is ten times the layer's width (`k = 10`), as in the paper. For another width
///   write a route with [`Product`](crate::Through::Product).
///
/// ```
/// use feedback_alignment::FeedbackRule;
///
/// let rule: FeedbackRule = "dfa".parse()?;
/// assert_eq!(rule, FeedbackRule::Dfa);
/// assert_eq!(rule.to_string(), "DFA");
/// assert_eq!(FeedbackRule::all().count(), 15);
/// assert_eq!(FeedbackRule::nokland().map(|rule| rule.to_string()), ["BP", "FA", "DFA", "IFA"]);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FeedbackRule {
    /// Backpropagation: the error travels back through the transposed forward weights.
    Bp,
    /// Feedback alignment: as backpropagation, through fixed random matrices instead.
    Fa,
    /// Direct feedback alignment: the output error goes straight to every hidden layer.
    Dfa,
    /// Indirect feedback alignment: the output error goes straight to the first hidden layer and
    /// upward from there through the forward weights.
    Ifa,
    /// No feedback: the output layer learns on hidden layers that stay as they were drawn.
    Shallow,
    /// Sign-based direct feedback alignment: as DFA, with nothing but the sign of the error.
    SDfa,
    /// Direct random target projection: as DFA, with the targets in the place of the error.
    Drtp,
    /// Uniform sign-concordant feedback: as backpropagation, through the signs of the weights.
    USf,
    /// Sign-concordant feedback with fixed random magnitudes.
    FrSf,
    /// Sign-concordant feedback with random magnitudes that are drawn anew for every step.
    BrSf,
    /// Kolen and Pollack: as feedback alignment, through matrices that get the updates of the weights.
    Kp,
    /// Direct Kolen and Pollack: as DFA, through matrices that learn from errors and activations.
    Dkp,
    /// Forward direct feedback alignment: as DFA, through matrices that learn how a change of a hidden
    /// layer changes the outputs. They learn it from noise.
    Fdfa,
    /// Weight mirrors: as feedback alignment, through matrices that learn the weights from noise.
    Wm,
    /// Product feedback alignment: as backpropagation, but through the product of a fixed matrix and a
    /// matrix that learns. With time this product approaches the weights.
    Pfa,
}

impl FeedbackRule {
    /// The rules of Nøkland (2016): BP, FA, DFA, IFA.
    #[must_use]
    pub fn nokland() -> [Self; 4] {
        [Self::Bp, Self::Fa, Self::Dfa, Self::Ifa]
    }

    /// All rules, those of [`nokland`](Self::nokland) first.
    #[must_use]
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        [
            Self::Bp,
            Self::Fa,
            Self::Dfa,
            Self::Ifa,
            Self::Shallow,
            Self::SDfa,
            Self::Drtp,
            Self::USf,
            Self::FrSf,
            Self::BrSf,
            Self::Kp,
            Self::Dkp,
            Self::Fdfa,
            Self::Wm,
            Self::Pfa,
        ]
        .into_iter()
    }

    /// The route of the feedback through a network with `layers` weighted layers, the output layer
    /// included. The route is all that distinguishes one rule from another.
    ///
    /// ```
    /// use feedback_alignment::FeedbackRule;
    ///
    /// // Three hidden layers and the output layer.
    /// assert_eq!(FeedbackRule::Bp.route(4)?.to_string(), "4:W(e)->2,W(2)->1,W(1)->0");
    /// assert_eq!(FeedbackRule::Fa.route(4)?.to_string(), "4:R(e)->2,R(2)->1,R(1)->0");
    /// assert_eq!(FeedbackRule::Dfa.route(4)?.to_string(), "4:B(e)->2,B(e)->1,B(e)->0");
    /// assert_eq!(FeedbackRule::Ifa.route(4)?.to_string(), "4:B(e)->0,W(0)->1,W(1)->2");
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for more than 65,536 layers.
    pub fn route(self, layers: usize) -> Result<Route> {
        require_layers(layers)?;
        let hidden = 0..layers.saturating_sub(1);
        let down = |through| move |to| Hop { to, signal: Signal::Delta(to + 1), through };
        let straight = |signal| move |to| Hop { to, signal, through: Through::Matrix };
        let through = |through| move |to| Hop { to, signal: Signal::Error, through };
        let direct = straight(Signal::Error);
        let signs = |magnitudes| down(Through::Signs(magnitudes));
        let up = |to| Hop { to, signal: Signal::Delta(to - 1), through: Through::Weights };
        let hops: Vec<Hop> = match self {
            Self::Bp => hidden.rev().map(down(Through::Weights)).collect(),
            Self::Fa => hidden.rev().map(down(Through::LikeWeights)).collect(),
            Self::Dfa => hidden.map(direct).collect(),
            Self::Ifa => hidden.map(|to| if to == 0 { direct(to) } else { up(to) }).collect(),
            Self::Shallow => Vec::new(),
            Self::SDfa => hidden.map(straight(Signal::ErrorSign)).collect(),
            Self::Drtp => hidden.map(straight(Signal::Target)).collect(),
            Self::USf => hidden.rev().map(signs(Magnitudes::Uniform)).collect(),
            Self::FrSf => hidden.rev().map(signs(Magnitudes::Fixed)).collect(),
            Self::BrSf => hidden.rev().map(signs(Magnitudes::New)).collect(),
            Self::Kp => hidden.rev().map(down(Through::KolenPollack)).collect(),
            Self::Dkp => hidden.map(through(Through::DirectKolenPollack)).collect(),
            Self::Fdfa => hidden.map(through(Through::Jacobian)).collect(),
            Self::Wm => hidden.rev().map(down(Through::Mirror)).collect(),
            Self::Pfa => hidden.rev().map(down(Through::Product(WIDTH))).collect(),
        };
        Route::new(layers, hops)
    }
}

impl fmt::Display for FeedbackRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bp => "BP",
            Self::Fa => "FA",
            Self::Dfa => "DFA",
            Self::Ifa => "IFA",
            Self::Shallow => "shallow",
            Self::SDfa => "sDFA",
            Self::Drtp => "DRTP",
            Self::USf => "uSF",
            Self::FrSf => "frSF",
            Self::BrSf => "brSF",
            Self::Kp => "KP",
            Self::Dkp => "DKP",
            Self::Fdfa => "FDFA",
            Self::Wm => "WM",
            Self::Pfa => "PFA",
        })
    }
}

impl FromStr for FeedbackRule {
    type Err = Error;

    /// Reads the name that `Display` writes, in upper or lower case.
    fn from_str(text: &str) -> Result<Self> {
        Self::all().find(|rule| rule.to_string().eq_ignore_ascii_case(text)).ok_or_else(|| {
            Error::UnknownName {
                what: "feedback rule",
                found: text.to_owned(),
                expected: Self::all().map(|rule| rule.to_string()).collect::<Vec<_>>().join(", "),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hidden_layer_is_served_once() {
        for rule in FeedbackRule::all().filter(|&rule| rule != FeedbackRule::Shallow) {
            for layers in 1..7 {
                let mut served: Vec<_> =
                    rule.route(layers).unwrap().hops().iter().map(|hop| hop.to).collect();
                served.sort_unstable();
                assert_eq!(served, (0..layers - 1).collect::<Vec<_>>(), "{rule}");
            }
            assert!(rule.route(0).unwrap().hops().is_empty());
        }
    }

    #[test]
    fn names_round_trip_and_unknown_ones_are_refused() {
        for rule in FeedbackRule::all() {
            assert_eq!(rule.to_string().parse::<FeedbackRule>().unwrap(), rule);
            assert_eq!(rule.to_string().to_lowercase().parse::<FeedbackRule>().unwrap(), rule);
        }
        let message = "backprop".parse::<FeedbackRule>().unwrap_err().to_string();
        assert!(
            message.contains("'backprop'") && message.contains("BP, FA, DFA, IFA"),
            "{message}"
        );
        assert_eq!(format!("[{:>4}]", FeedbackRule::Bp), "[  BP]");
    }
}
