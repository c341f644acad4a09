//! What is sent to hidden layers, and how it is written.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use crate::error::{Error, Result, require};

/// What a [`Hop`](crate::Hop) sends.
///
/// The error of a sample carries the `1/N` of the mean over the batch, and so do the signals that
/// are made of it. They are made for hidden layers: the output layer always learns from `e`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// The error at the output, `e = ∂J/∂a_L`, of shape `n_L × N`; written `e`.
    Error,
    /// `sign(e)/N`, where `sign(0) = 0`: one bit of the error and its scale over the batch; written
    /// `sign`. Through [`Matrix`](crate::Through::Matrix) to every layer this is sign-based direct
    /// feedback alignment, sDFA (Frenkel, Lefebvre and Bol 2021).
    ErrorSign,
    /// `sign(e)/N` where `|N e|` exceeds the threshold, else 0; written `ternary>0.1`. With the
    /// threshold 0 it is [`ErrorSign`](Self::ErrorSign). Hardware that multiplies by light sends
    /// such errors (Launay et al. 2020, arXiv 2012.06373). Under the cross-entropies `|N e|` is at
    /// most 1, so that a threshold of 1 sends nothing.
    ErrorTernary(Threshold),
    /// `e − ē`, the error without its mean over the batch, `ē = Σ e / N`, if the
    /// [common mode](crate::LayerDiagnosis::common_mode) `N ‖ē‖² / Σ‖e‖²` exceeds the threshold,
    /// and else `e`; written `centred>0.5`. With the threshold 0 the error is always centred, with
    /// 1 never. It keeps what all samples have in common, as they do at the start of training, from
    /// being written into every hidden layer (the code of DFA-Stall, Kempner Institute 2026).
    ErrorCentred(Threshold),
    /// `t/N`, the targets of the samples (of labels, one-hot columns); written `t`. Through
    /// [`Matrix`](crate::Through::Matrix) to every layer this is direct random target projection,
    /// DRTP (Frenkel, Lefebvre and Bol 2021; theirs carries no `1/N`): hidden layers never learn
    /// what the output was.
    Target,
    /// `δ_k` of another hidden layer, once all that leads there has arrived; written as its number.
    Delta(usize),
}

impl Signal {
    /// The hidden layer whose delta it is; none if it comes from the output.
    pub(crate) fn layer(self) -> Option<usize> {
        match self {
            Self::Delta(layer) => Some(layer),
            _ => None,
        }
    }

    /// Whether it is the error at the output, or made of it.
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

/// What something has to exceed: a number of at least 0.
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
    /// What everything exceeds but 0 itself.
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
    /// The shortest text that is read back to the bit.
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
