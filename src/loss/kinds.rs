//! The losses, and how they turn logits and targets into classes and probabilities.

use std::{fmt, str::FromStr};

use nalgebra::DMatrix;

use super::formulas::softmax;
use crate::{
    activation::logistic,
    error::{Error, Result, require_finite},
    scalar::Scalar,
    targets::Targets,
};

/// A loss `J`, the mean over the batch of a loss per sample, on the logits `z = a_L`.
///
/// | loss | per sample | prediction `ŷ` | `e = ∂J/∂z` |
/// |---|---|---|---|
/// | softmax cross-entropy | `−Σ_k y_k ln ŷ_k` | `e^{z_k} / Σ_j e^{z_j}` | `(ŷ − y)/N` |
/// | logistic cross-entropy | `−Σ_k (y_k ln ŷ_k + (1 − y_k) ln(1 − ŷ_k))` | `1/(1 + e^{−z})` | `(ŷ − y)/N` |
/// | mean squared error | `½ Σ_k (ŷ_k − y_k)²` | `z` | `(ŷ − y)/N` |
///
/// `y` is a class label, as a one-hot column, or a column of real values. `N` is the batch size; it is
/// divided by here and nowhere later. (Nøkland's code sums over the batch instead. For RMSprop this
/// makes no difference. For plain SGD, multiply his learning rate by `N` to use it here.) All losses
/// sum over the outputs, the logistic loss too (Nøkland 2016, eq. 4 and 5).
///
/// ```
/// use feedback_alignment::{Loss, nalgebra::DMatrix};
///
/// let logits = DMatrix::from_column_slice(2, 1, &[0.0, 3_f64.ln()]);
/// let probabilities = Loss::SoftmaxCrossEntropy.probabilities(&logits)?;
/// assert!((probabilities[1] - 0.75).abs() < 1e-12);
/// assert_eq!(Loss::SoftmaxCrossEntropy.classes(&logits)?, [1]);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Loss {
    /// Softmax and cross-entropy, for classes that exclude each other. Needs at least two outputs.
    /// Real-valued targets are probabilities that sum to 1.
    #[default]
    SoftmaxCrossEntropy,
    /// A logistic unit and binary cross-entropy for each output. Nøkland (2016) uses it, even for ten
    /// classes. With one output the labels are 0 and 1. Real-valued targets lie in [0, 1].
    LogisticCrossEntropy,
    /// Squared error of the logits themselves. Labels count as one-hot vectors; with one output, as the
    /// number 0 or 1.
    MeanSquaredError,
}

impl Loss {
    /// All losses.
    #[must_use]
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        [Self::SoftmaxCrossEntropy, Self::LogisticCrossEntropy, Self::MeanSquaredError].into_iter()
    }

    /// `ŷ` of the logits, `n_L × N`: the probability of each class.
    ///
    /// # Errors
    /// [`Error::NoProbabilities`] for the squared error, [`Error::SoftmaxNeedsTwoOutputs`],
    /// [`Error::Empty`] without logits, [`Error::NonFinite`] for a NaN or an infinity.
    pub fn probabilities<T: Scalar>(self, logits: &DMatrix<T>) -> Result<DMatrix<T>> {
        require_logits(logits)?;
        let mut probabilities = logits.clone();
        match self {
            Self::SoftmaxCrossEntropy if logits.nrows() < 2 => {
                return Err(Error::SoftmaxNeedsTwoOutputs);
            }
            Self::SoftmaxCrossEntropy => {
                for (z, mut y) in logits.column_iter().zip(probabilities.column_iter_mut()) {
                    softmax(z.as_slice(), y.as_mut_slice());
                }
            }
            Self::LogisticCrossEntropy => probabilities.apply(|z| *z = logistic(*z)),
            Self::MeanSquaredError => return Err(Error::NoProbabilities { loss: self.name() }),
        }
        Ok(probabilities)
    }

    /// The class of each column of logits: the place of its largest logit; of several equal ones the
    /// first.
    ///
    /// With one output the class is 1 where the logit is positive (`ŷ > ½` under the logistic
    /// loss) and, under the squared error, where it is above ½.
    ///
    /// # Errors
    /// [`Error::Empty`] without logits, [`Error::NonFinite`] for a NaN or an infinity, which belongs to
    /// no class.
    pub fn classes<T: Scalar>(self, logits: &DMatrix<T>) -> Result<Vec<usize>> {
        require_logits(logits)?;
        Ok(logits.column_iter().map(|z| self.class(z.as_slice())).collect())
    }

    pub(crate) fn class<T: Scalar>(self, z: &[T]) -> usize {
        if let [z] = z {
            let threshold = if self == Self::MeanSquaredError { T::of(0.5) } else { T::zero() };
            return usize::from(*z > threshold);
        }
        let (mut best, mut top) = (0, z[0]);
        for (k, &z) in z.iter().enumerate() {
            // Without a branch, because a processor could not predict it.
            let above = z > top;
            best = if above { k } else { best };
            top = if above { z } else { top };
        }
        best
    }

    /// The class that a column of target values stands for; `None` if it stands for none. Under softmax
    /// it is the most probable class. Otherwise it is the one of a one-hot column; with one output, 0
    /// or 1.
    pub(crate) fn target_class<T: Scalar>(self, y: &[T]) -> Option<usize> {
        let (zero, one) = (T::zero(), T::one());
        if self == Self::SoftmaxCrossEntropy {
            return Some(self.class(y));
        }
        if let [y] = y {
            return (*y == zero || *y == one).then(|| usize::from(*y == one));
        }
        let hot = y.iter().position(|&y| y == one)?;
        let one_hot = y.iter().enumerate().all(|(k, &y)| k == hot || y == zero);
        one_hot.then_some(hot)
    }

    /// Whether all targets stand for classes.
    pub(crate) fn has_classes<T: Scalar>(self, targets: &Targets<T>) -> bool {
        match targets {
            Targets::Labels(_) => true,
            Targets::Values(values) => {
                values.column_iter().all(|y| self.target_class(y.as_slice()).is_some())
            }
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SoftmaxCrossEntropy => "softmax",
            Self::LogisticCrossEntropy => "logistic",
            Self::MeanSquaredError => "mse",
        }
    }
}

impl<T: Scalar> Targets<'_, T> {
    /// The class of sample `index`; `None` if its target is not a class under this loss.
    pub(crate) fn class(&self, index: usize, loss: Loss) -> Option<usize> {
        match self {
            Self::Labels(labels) => Some(labels[index]),
            Self::Values(values) => loss.target_class(values.column(index).as_slice()),
        }
    }
}

/// Fails unless there are logits and all are finite.
fn require_logits<T: Scalar>(logits: &DMatrix<T>) -> Result<()> {
    if logits.is_empty() {
        return Err(Error::Empty { what: "the matrix of logits".into() });
    }
    let what = || "the matrix of logits (outputs × samples)".to_owned();
    require_finite(what, logits.nrows(), logits.as_slice())
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Loss {
    type Err = Error;

    /// Reads `softmax`, `logistic` or `mse`.
    fn from_str(text: &str) -> Result<Self> {
        Self::all().find(|loss| loss.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
            Error::UnknownName {
                what: "loss",
                found: text.to_owned(),
                expected: Self::all().map(Self::name).collect::<Vec<_>>().join(", "),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_output_tells_two_classes_apart() {
        let logits = DMatrix::from_column_slice(1, 4, &[-1.0, 0.0, 0.3, 2.0]);
        assert_eq!(Loss::LogisticCrossEntropy.classes(&logits).unwrap(), [0, 0, 1, 1]);
        assert_eq!(Loss::MeanSquaredError.classes(&logits).unwrap(), [0, 0, 0, 1]);
        let refused = Loss::SoftmaxCrossEntropy.probabilities(&logits);
        assert!(matches!(refused, Err(Error::SoftmaxNeedsTwoOutputs)));
    }

    #[test]
    fn of_equal_logits_the_first_is_the_class() {
        let columns = [
            ([1.0, 1.0, 1.0], 0),
            ([-1.0, 2.0, 2.0], 1),
            ([-3.0, -4.0, -3.0], 0),
            ([-0.0, 0.0, -1.0], 0),
            ([0.0, -0.0, 0.0], 0),
            ([-1.0, -1.0, -0.5], 2),
        ];
        let logits = columns.iter().flat_map(|(z, _)| *z);
        let logits = DMatrix::<f32>::from_iterator(3, columns.len(), logits);
        for loss in Loss::all() {
            assert_eq!(loss.classes(&logits).unwrap(), columns.map(|(_, class)| class), "{loss}");
        }
        // A probability stands for a class in the same way.
        let half = [0.0, 0.5, 0.5];
        assert_eq!(Loss::SoftmaxCrossEntropy.target_class(&half), Some(1));
        assert_eq!(Loss::LogisticCrossEntropy.target_class(&half), None);
    }

    #[test]
    fn names_round_trip() {
        for loss in Loss::all() {
            assert_eq!(loss.to_string().parse::<Loss>().unwrap(), loss);
        }
        assert!("hinge".parse::<Loss>().is_err());
    }
}
