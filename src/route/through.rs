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
    /// Fixed random weights in the place of those; written `R`. For a convolution these are
    /// kernels, used as its own are.
    LikeWeights,
    /// `B`, fixed and random, with a row for every unit that receives and a column for every unit
    /// that sends; written `B`.
    Matrix,
    /// `B` with so many entries in a row, at random places, all others 0: each unit sees so many of
    /// those that send (Crafton et al. 2019). Only the entries are stored and worked on. Written `Bs1`
    /// for one entry.
    Sparse(usize),
    /// `B` of so small a rank: the product `U V` of a factor of so many columns and one of so many rows
    /// (Crafton et al. 2019). Only the factors are stored and worked on. Written `Br1` for rank 1.
    LowRank(usize),
    /// `B` from one matrix for all hops of this kind: each takes its first rows and columns, times a
    /// factor that makes the entries as large as those of a matrix of its own (Launay, Poli and
    /// Krzakala 2019). Written `Bc`, for common.
    Shared,
    /// In the place of those weights a matrix of their signs, as they are in the forward pass of the
    /// step, and of magnitudes of its own (Liao, Leibo and Poggio 2016). A weight of 0 gives its sign
    /// bit. Written `S`, `F` or `N` for [`Uniform`](Magnitudes::Uniform), [`Fixed`](Magnitudes::Fixed)
    /// or [`New`](Magnitudes::New).
    Signs(Magnitudes),
    /// In the place of those weights a matrix that gets every update of theirs: the same gradient, the
    /// same optimiser with moments of its own, the same decay (Kolen and Pollack 1994). It never reads
    /// the weights. Written `K`.
    KolenPollack,
    /// `B` that learns along `∂B = h sᵀ`, with what the receiving layer passes on, `h`, and what is
    /// sent to it, `s` (Webster, Choi and Ahn 2021). Written `D`.
    DirectKolenPollack,
    /// `B` that learns the slopes of the outputs, `(∂a_L/∂h_l)ᵀ`, from noise, along `∂B = B − v dᵀ`, the mean
    /// over the batch: `v ~ N(0, 1)` is added to what each hidden layer passes on, in a pass of small
    /// changes along the forward pass of the step, and `d` is what becomes of them at the output. It
    /// starts from 0, and learns at the rate of the layer that it leads to (Bacho and Chu 2022). Written
    /// `J`.
    Jacobian,
    /// In the place of those weights a matrix that learns their direction from noise, which goes
    /// through the layer by itself: `B ← B + rate · Σ x yᵀ` (Akrout et al. 2019); see
    /// [`Mirror`](crate::Mirror). Written `M`.
    Mirror,
    /// In the place of `W_{l+1}ᵀ` the product `Rᵀ Bᵀ` of a fixed `B`, of shape `n_{l+1} × k n_{l+1}`
    /// with this `k`, and an `R` that learns along `∂R = (Bᵀ δ_{l+1}) h_lᵀ` (Li et al. 2024). Written
    /// `P1` for `k = 1`.
    Product(usize),
}

/// The magnitudes of a matrix that has the signs of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Magnitudes {
    /// All `√(2/(fan_in + fan_out))` of the layer whose signs they have.
    Uniform,
    /// Random, drawn once.
    Fixed,
    /// Random, drawn anew for every step.
    New,
}

impl Through {
    /// Whether it is a matrix in the shape of the weights between two layers, in their place.
    pub(crate) fn is_like_weights(self) -> bool {
        matches!(self, Self::LikeWeights | Self::Signs(_) | Self::KolenPollack | Self::Mirror)
    }

    /// Whether it stands between any two layers, and not for weights.
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

    /// Whether it gets a step of the optimiser.
    pub(crate) fn learns(self) -> bool {
        matches!(self, Self::KolenPollack) || self.has_gradient()
    }

    /// Whether it learns along a gradient of its own, and not along that of the weights.
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
