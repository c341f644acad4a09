//! The matrices that a hop can pass through.

use std::{fmt, str::FromStr};

use crate::error::Error;

/// The matrix that a [`Hop`](crate::Hop) passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Through {
    /// The weights between two neighbouring layers: `W_{l+1}ᵀ` on the way down to layer `l`, `W_l`
    /// on the way up to it (without the bias); written `W`.
    Weights,
    /// Fixed random weights that replace the forward weights; written `R`. For a convolution these are
    /// kernels, and the feedback uses them as a convolution does.
    LikeWeights,
    /// `B`, fixed and random, with a row for every unit that receives and a column for every unit
    /// that sends; written `B`.
    Matrix,
    /// A sparse `B`: each row has this many entries at random places, and the rest is 0. So each
    /// receiving unit sees only a few of the sending units (Crafton et al. 2019). Zeros take neither
    /// memory nor time. Written `Bs1` for one entry.
    Sparse(usize),
    /// A `B` of this rank: the product `U V`, where `U` has this many columns and `V` this many rows
    /// (Crafton et al. 2019). Only the two factors are stored and multiplied. Written `Br1` for rank 1.
    LowRank(usize),
    /// A `B` cut from one matrix that all hops of this kind share. Each hop takes its first rows and
    /// columns and multiplies them by a factor, so that the entries are as large as those of a matrix
    /// drawn for this hop alone (Launay, Poli and Krzakala 2019). Written `Bc`, for common.
    Shared,
    /// A matrix that replaces the forward weights: it has their signs in the forward pass of the step,
    /// and magnitudes of its own (Liao, Leibo and Poggio 2016). Where a weight is 0, the sign bit of
    /// that 0 counts. Written `S`, `F` or `N` for [`Uniform`](Magnitudes::Uniform),
    /// [`Fixed`](Magnitudes::Fixed) or [`New`](Magnitudes::New).
    Signs(Magnitudes),
    /// A matrix that replaces the forward weights and gets every update that they get: the same
    /// gradient, the same optimiser with moments of its own, the same decay (Kolen and Pollack 1994).
    /// It never reads the weights. Written `K`.
    KolenPollack,
    /// A `B` that learns along `∂B = h sᵀ`. Here `h` is the output of the receiving layer and `s` is
    /// the signal sent to it (Webster, Choi and Ahn 2021). Written `D`.
    DirectKolenPollack,
    /// A `B` that learns the slopes of the outputs, `(∂a_L/∂h_l)ᵀ`, from noise. Its gradient is
    /// `∂B = B − v dᵀ`, the mean over the batch. The noise `v ~ N(0, 1)` is added to the output of each
    /// hidden layer, and `d` is the change that this makes at the output of the network, to first
    /// order. A second pass beside the forward pass computes it; the forward pass itself has no noise.
    /// `B` starts from 0 and learns at the rate of the layer that it leads to (Bacho and Chu 2022).
    /// Written `J`.
    Jacobian,
    /// A matrix that replaces the forward weights and learns their direction from noise. The noise
    /// passes through the layer alone: `B ← B + rate · Σ x yᵀ` (Akrout et al. 2019), with a decay; see
    /// [`Mirror`](crate::Mirror). Written `M`.
    Mirror,
    /// The product `Rᵀ Bᵀ`, which replaces `W_{l+1}ᵀ`. `B` is fixed and of shape `n_{l+1} × k n_{l+1}`,
    /// where `k` is this number. `R` learns along `∂R = (Bᵀ δ_{l+1}) h_lᵀ` (Li et al. 2024). Written
    /// `P1` for `k = 1`.
    Product(usize),
}

/// The magnitudes of the entries of a matrix that takes its signs from the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Magnitudes {
    /// All equal to `√(2/(fan_in + fan_out))` of the layer that the signs come from.
    Uniform,
    /// Random, drawn once.
    Fixed,
    /// Random, drawn anew for every step.
    New,
}

impl Through {
    /// Whether it is one matrix that replaces the weights between two layers and has their shape.
    pub(crate) fn is_like_weights(self) -> bool {
        matches!(self, Self::LikeWeights | Self::Signs(_) | Self::KolenPollack | Self::Mirror)
    }

    /// Whether it can connect any two layers. Otherwise it is, or replaces, the weights between
    /// neighbours.
    pub(crate) fn is_straight(self) -> bool {
        match self {
            Self::Matrix
            | Self::Sparse(_)
            | Self::LowRank(_)
            | Self::Shared
            | Self::DirectKolenPollack
            | Self::Jacobian => true,
            Self::Weights
            | Self::LikeWeights
            | Self::Signs(_)
            | Self::KolenPollack
            | Self::Mirror
            | Self::Product(_) => false,
        }
    }

    /// Whether the optimiser trains it.
    pub(crate) fn learns(self) -> bool {
        matches!(self, Self::KolenPollack) || self.has_gradient()
    }

    /// Whether it has a gradient of its own. Kolen-Pollack matrices learn too, but along the gradient
    /// of the weights.
    pub(crate) fn has_gradient(self) -> bool {
        matches!(self, Self::DirectKolenPollack | Self::Jacobian | Self::Product(_))
    }
}

impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = match self {
            Self::Weights => "W",
            Self::LikeWeights => "R",
            Self::Matrix => "B",
            Self::Sparse(entries) => return write!(f, "Bs{entries}"),
            Self::LowRank(rank) => return write!(f, "Br{rank}"),
            Self::Shared => "Bc",
            Self::Signs(Magnitudes::Uniform) => "S",
            Self::Signs(Magnitudes::Fixed) => "F",
            Self::Signs(Magnitudes::New) => "N",
            Self::KolenPollack => "K",
            Self::DirectKolenPollack => "D",
            Self::Jacobian => "J",
            Self::Mirror => "M",
            Self::Product(width) => return write!(f, "P{width}"),
        };
        f.write_str(letters)
    }
}

impl FromStr for Through {
    type Err = Error;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (letters, number) =
            text.split_at(text.trim_end_matches(|c: char| c.is_ascii_digit()).len());
        let number = || number.parse().ok();
        let found = match letters {
            "Bs" => number().map(Self::Sparse),
            "Br" => number().map(Self::LowRank),
            "P" => number().map(Self::Product),
            _ => ALL.into_iter().find(|through| through.to_string() == text),
        };
        found.ok_or_else(|| Error::UnknownName {
            what: "matrix",
            found: text.to_owned(),
            expected: "W, R, B, Bs1, Br1, Bc, S, F, N, K, D, J, M or P1, or another number".into(),
        })
    }
}

/// All variants that have no number.
const ALL: [Through; 11] = [
    Through::Weights,
    Through::LikeWeights,
    Through::Matrix,
    Through::Shared,
    Through::Signs(Magnitudes::Uniform),
    Through::Signs(Magnitudes::Fixed),
    Through::Signs(Magnitudes::New),
    Through::KolenPollack,
    Through::DirectKolenPollack,
    Through::Jacobian,
    Through::Mirror,
];
