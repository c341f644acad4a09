//! The learning rules: how the error finds its way to the hidden layers.

use std::{fmt, str::FromStr};

use crate::error::Error;

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
///
/// The gradients `∂W_l = δ_l h_{l-1}ᵀ`, `∂b_l = Σ δ_l` (Nøkland 2016, eq. 10) are the same for all, and so is the output
/// layer's `δ_L = e`. The `B` are random, drawn once, and never change.
///
/// ```
/// use feedback_alignment::FeedbackRule;
///
/// let rule: FeedbackRule = "dfa".parse()?;
/// assert_eq!(rule, FeedbackRule::Dfa);
/// assert_eq!(rule.to_string(), "DFA");
/// assert_eq!(FeedbackRule::all().count(), 4);
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
}

impl FeedbackRule {
    /// All rules: BP, FA, DFA, IFA.
    #[must_use]
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        [Self::Bp, Self::Fa, Self::Dfa, Self::Ifa].into_iter()
    }

    /// The route of the feedback through a network of `blocks` weighted layers, in the order in
    /// which it can be delivered: this is all that a rule is.
    ///
    /// Blocks are counted from 0; the last one is the output layer, which needs no hop.
    ///
    /// ```
    /// use feedback_alignment::{FeedbackRule, rule::{Hop, Source, Transport}};
    ///
    /// let route = FeedbackRule::Ifa.hops(3); // two hidden layers
    /// assert_eq!(route[0], Hop { to: 0, source: Source::Error, transport: Transport::RandomDirect });
    /// assert_eq!(route[1], Hop { to: 1, source: Source::Delta(0), transport: Transport::ReceiverForward });
    /// ```
    #[must_use]
    pub fn hops(self, blocks: usize) -> Vec<Hop> {
        let hidden = 0..blocks.saturating_sub(1);
        let downward = |transport| move |to| Hop { to, source: Source::Delta(to + 1), transport };
        match self {
            Self::Bp => hidden.rev().map(downward(Transport::SenderTransposed)).collect(),
            Self::Fa => hidden.rev().map(downward(Transport::RandomTransposed)).collect(),
            Self::Dfa => hidden
                .map(|to| Hop { to, source: Source::Error, transport: Transport::RandomDirect })
                .collect(),
            Self::Ifa => hidden
                .map(|to| match to {
                    0 => Hop { to, source: Source::Error, transport: Transport::RandomDirect },
                    _ => Hop {
                        to,
                        source: Source::Delta(to - 1),
                        transport: Transport::ReceiverForward,
                    },
                })
                .collect(),
        }
    }
}

impl fmt::Display for FeedbackRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bp => "BP",
            Self::Fa => "FA",
            Self::Dfa => "DFA",
            Self::Ifa => "IFA",
        })
    }
}

impl FromStr for FeedbackRule {
    type Err = Error;

    /// Reads the name that `Display` writes, in upper or lower case.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::all().find(|rule| rule.to_string().eq_ignore_ascii_case(text)).ok_or_else(|| {
            Error::UnknownName {
                what: "feedback rule",
                found: text.to_owned(),
                expected: Self::all().map(|rule| rule.to_string()).collect::<Vec<_>>().join(", "),
            }
        })
    }
}

/// One leg of the feedback's route: `δ_to = (M · source) ∘ f'(a_to)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The hidden block that receives, counted from 0.
    pub to: usize,
    /// What is sent.
    pub source: Source,
    /// The matrix `M` that it passes through.
    pub transport: Transport,
}

/// What a hop sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The error at the output, `e = ∂J/∂a_L`, of shape `n_L × N`.
    Error,
    /// The delta of another block, `∂J/∂a`, that an earlier hop (or the loss) has left there.
    Delta(usize),
}

/// The matrix that a hop passes through. The receiver is block `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// `W_{i+1}ᵀ`, the sender's own weights.
    SenderTransposed,
    /// A fixed random matrix that stands in for the sender's weights: stored as `B_iᵀ`, in the
    /// shape of `W_{i+1}`, and applied as they would be.
    RandomTransposed,
    /// `B_i`, fixed and random, `n_i × n_L`.
    RandomDirect,
    /// `W_i`, the receiver's own weights, without the bias.
    ReceiverForward,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(rule: FeedbackRule, blocks: usize) -> Vec<(usize, Source, Transport)> {
        rule.hops(blocks).iter().map(|hop| (hop.to, hop.source, hop.transport)).collect()
    }

    /// Nøkland 2016, eq. 6-9, for three hidden layers.
    #[test]
    fn routes_are_those_of_the_paper() {
        use Source::{Delta, Error};
        use Transport::{RandomDirect, RandomTransposed, ReceiverForward, SenderTransposed};
        assert_eq!(
            route(FeedbackRule::Bp, 4),
            [
                (2, Delta(3), SenderTransposed),
                (1, Delta(2), SenderTransposed),
                (0, Delta(1), SenderTransposed)
            ]
        );
        assert_eq!(
            route(FeedbackRule::Fa, 4),
            [
                (2, Delta(3), RandomTransposed),
                (1, Delta(2), RandomTransposed),
                (0, Delta(1), RandomTransposed)
            ]
        );
        assert_eq!(
            route(FeedbackRule::Dfa, 4),
            [(0, Error, RandomDirect), (1, Error, RandomDirect), (2, Error, RandomDirect)]
        );
        assert_eq!(
            route(FeedbackRule::Ifa, 4),
            [
                (0, Error, RandomDirect),
                (1, Delta(0), ReceiverForward),
                (2, Delta(1), ReceiverForward)
            ]
        );
    }

    /// Every hidden block is served exactly once, and only after what it waits for.
    #[test]
    fn every_hop_finds_its_source_ready() {
        for rule in FeedbackRule::all() {
            for blocks in 1..7 {
                let mut ready = vec![false; blocks];
                ready[blocks - 1] = true;
                for hop in rule.hops(blocks) {
                    if let Source::Delta(from) = hop.source {
                        assert!(ready[from], "{rule}, {blocks} blocks: {hop:?}");
                    }
                    assert!(!std::mem::replace(&mut ready[hop.to], true));
                }
                assert!(ready.into_iter().all(|ready| ready), "{rule}, {blocks} blocks");
            }
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
