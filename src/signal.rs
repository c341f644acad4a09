//! The signals that hidden layers receive, and how they are written as text.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use crate::error::{Error, Result, require};

/// What a [`Hop`](crate::Hop) sends.
///
/// The loss is a mean over the batch, so the error of each sample carries a factor `1/N`, and so do the
/// signals made from it. Only hidden layers receive these signals: the output layer always learns from
/// `e` itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// The error at the output, `e = ∂J/∂a_L`, of shape `n_L × N`; written `e`.
    Error,
    /// `sign(e)/N`, where `sign(0) = 0`: only the sign of the error is left; written `sign`. When every
    /// layer receives it through [`Matrix`](crate::Through::Matrix), this is sign-based direct feedback
    /// alignment, sDFA (Frenkel, Lefebvre and Bol 2021).
    ErrorSign,
    /// `sign(e)/N` where `|N e|` exceeds the threshold, and 0 elsewhere; written `ternary>0.1`. With
    /// the threshold 0 it equals [`ErrorSign`](Self::ErrorSign). Optical hardware sends such errors
    /// (Launay et al. 2020, arXiv 2012.06373). Under the cross-entropies, without class weights, `|N e|`
    /// is at most 1, so a threshold of 1 sends nothing.
    ErrorTernary(Threshold),
    /// `e − ē`, the error without its mean over the batch, `ē = Σ e / N`; written `centred>0.5`. The
    /// mean is subtracted only if the [common mode](crate::LayerDiagnosis::common_mode)
    /// `N ‖ē‖² / Σ‖e‖²` exceeds the threshold; otherwise `e` itself is sent. With the threshold 0 the
    /// error is always centred, with 1 never. At the start of training the errors of all samples are
    /// much alike, and every hidden layer would learn this common part first. Centring prevents that
    /// (from the code of DFA-Stall, Kempner Institute 2026).
    ErrorCentred(Threshold),
    /// `t/N`, the targets of the samples; labels become one-hot columns; written `t`. When every layer
    /// receives it through [`Matrix`](crate::Through::Matrix), this is direct random target projection,
    /// DRTP (Frenkel, Lefebvre and Bol 2021, without the `1/N`). Hidden layers then never learn what
    /// the output was.
    Target,
    /// `δ_k`, the finished delta of another hidden layer `k`; written as the number of that layer.
    Delta(usize),
}

impl Signal {
    /// The hidden layer whose delta it is; `None` if the signal comes from the output.
    pub(crate) fn layer(self) -> Option<usize> {
        match self {
            Self::Delta(layer) => Some(layer),
            _ => None,
        }
    }

    /// Whether it is the error at the output or made from it.
    pub(crate) fn is_error(self) -> bool {
        !matches!(self, Self::Target | Self::Delta(_))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error => f.write_str("e"),
            Self::ErrorSign => f.write_str("sign"),
            Self::ErrorTernary(threshold) => write!(f, "{TERNARY}{threshold}"),
            Self::ErrorCentred(threshold) => write!(f, "{CENTRED}{threshold}"),
            Self::Target => f.write_str("t"),
            Self::Delta(layer) => layer.fmt(f),
        }
    }
}

const TERNARY: &str = "ternary>";
const CENTRED: &str = "centred>";

impl FromStr for Signal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let threshold = |number: &str| Threshold::new(number.parse().ok()?).ok();
        let parse = || {
            Some(match text {
                "e" => Self::Error,
                "sign" => Self::ErrorSign,
                "t" => Self::Target,
                _ => match (text.strip_prefix(TERNARY), text.strip_prefix(CENTRED)) {
                    (Some(number), _) => Self::ErrorTernary(threshold(number)?),
                    (_, Some(number)) => Self::ErrorCentred(threshold(number)?),
                    _ => Self::Delta(text.parse().ok()?),
                },
            })
        };
        parse().ok_or_else(|| Error::UnknownName {
            what: "signal",
            found: text.to_owned(),
            expected:
                "e, sign, ternary>0.1 or centred>0.0 with a threshold, t, the number of a layer"
                    .into(),
        })
    }
}

/// A threshold that a number has to exceed. It is finite and at least 0.
///
/// ```
/// use feedback_alignment::{Signal, Threshold};
///
/// let tenth = Threshold::new(0.1)?;
/// assert_eq!(tenth.value(), 0.1);
/// assert_eq!("ternary>0.1".parse::<Signal>()?, Signal::ErrorTernary(tenth));
/// assert!(Threshold::new(f64::NAN).is_err());
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Threshold(f64);

impl Threshold {
    /// Zero: every positive number exceeds it.
    pub const ZERO: Self = Self(0.0);

    /// A threshold of this value.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] unless it is at least 0 and finite.
    pub fn new(value: f64) -> Result<Self> {
        let valid = value >= 0.0 && value.is_finite();
        require(valid, "threshold", value, "a number of at least 0")?;
        Ok(Self(value.abs())) // −0 is 0.
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }
}

impl Eq for Threshold {} // It is never NaN.

impl Hash for Threshold {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state); // Equal numbers have equal bits: it is never −0.
    }
}

impl fmt::Display for Threshold {
    /// The shortest text that gives exactly the same number when it is read back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_threshold_comes_back_to_the_bit(bits: u64) {
            let value = f64::from_bits(bits);
            let Ok(threshold) = Threshold::new(value) else {
                prop_assert!(value < 0.0 || !value.is_finite());
                return Ok(());
            };
            for signal in [Signal::ErrorTernary(threshold), Signal::ErrorCentred(threshold)] {
                let text = signal.to_string();
                prop_assert_eq!(text.parse::<Signal>().unwrap(), signal);
                let end = format!(">{:?}", value.abs());
                prop_assert!(text.ends_with(&end));
            }
            prop_assert_eq!(threshold.value().to_bits(), value.abs().to_bits());
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        assert_eq!(Threshold::new(-0.0).unwrap().value().to_bits(), 0);
        for text in ["", "E", "ternary", "ternary>", "ternary>-0.1", "centred>NaN", "centred>inf"] {
            let refused = text.parse::<Signal>();
            assert!(matches!(refused, Err(Error::UnknownName { what: "signal", .. })), "{text}");
        }
        for value in [-1e-300, f64::NAN, f64::INFINITY] {
            assert!(matches!(Threshold::new(value), Err(Error::InvalidParameter { .. })));
        }
    }
}
