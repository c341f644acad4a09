//! Losses on logits, and the error `e = ∂J/∂a_L` that every learning rule starts from.

mod weighted;

use std::{fmt, str::FromStr};

use multiversion::multiversion;
use nalgebra::{DMatrix, DMatrixView};

pub(crate) use weighted::require_class_weights;

use crate::{
    activation::{logistic, softplus},
    buffer::Columns,
    error::{Error, Result, require_finite, require_shape},
    scalar::Scalar,
    vector::sum_in_order,
    workspace::{Activations, Deltas},
};

/// A loss `J`, the mean over the batch of a loss per sample, on the logits `z = a_L`.
///
/// | loss | per sample | prediction `ŷ` | `e = ∂J/∂z` |
/// |---|---|---|---|
/// | softmax cross-entropy | `−Σ_k y_k ln ŷ_k` | `e^{z_k} / Σ_j e^{z_j}` | `(ŷ − y)/N` |
/// | logistic cross-entropy | `−Σ_k (y_k ln ŷ_k + (1 − y_k) ln(1 − ŷ_k))` | `1/(1 + e^{−z})` | `(ŷ − y)/N` |
/// | mean squared error | `½ Σ_k (ŷ_k − y_k)²` | `z` | `(ŷ − y)/N` |
///
/// `y` is a class label, one-hot, or a column of real values. `N` is the batch size: nothing later
/// divides by it. (Nøkland's code sums over the batch instead; RMSprop does not care, for plain
/// SGD his learning rate corresponds to one `N` times larger here.) The outputs are summed, also
/// by the logistic loss (Nøkland 2016, eq. 4 and 5).
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
    /// Softmax and cross-entropy, for classes that exclude each other. Needs two outputs or more;
    /// real-valued targets are probabilities that sum to 1.
    #[default]
    SoftmaxCrossEntropy,
    /// A logistic unit and binary cross-entropy for each output: what Nøkland (2016) uses, also
    /// for ten classes. With one output the labels are 0 and 1; real-valued targets lie in [0, 1].
    LogisticCrossEntropy,
    /// Squared error of the logits themselves; labels count as one-hot vectors, with one output
    /// as the number 0 or 1.
    MeanSquaredError,
}

/// What the outputs of a batch should have been.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a, T: Scalar> {
    /// The class of each sample, counted from 0.
    Labels(&'a [usize]),
    /// The target values, `n_L × N`.
    Values(DMatrixView<'a, T>),
}

impl<T: Scalar> Targets<'_, T> {
    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Labels(labels) => labels.len(),
            Self::Values(values) => values.ncols(),
        }
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of sample `index`, if its target is one under this loss.
    pub(crate) fn class(&self, index: usize, loss: Loss) -> Option<usize> {
        match self {
            Self::Labels(labels) => Some(labels[index]),
            Self::Values(values) => loss.target_class(values.column(index).as_slice()),
        }
    }

    /// `y ←` the targets of all samples: one-hot columns of `outputs` rows, or the values. With one
    /// output, labels are the numbers 0 and 1.
    fn write(&self, y: &mut [T], outputs: usize) {
        match self {
            Self::Labels(labels) => {
                y.fill(T::zero());
                for (y, &label) in y.chunks_exact_mut(outputs).zip(*labels) {
                    match y {
                        [y] => *y = T::of(label as f64),
                        _ => y[label] = T::one(),
                    }
                }
            }
            Self::Values(values) => {
                y.chunks_exact_mut(outputs)
                    .zip(values.column_iter())
                    .for_each(|(y, values)| y.iter_mut().zip(&values).for_each(|(y, &v)| *y = v));
            }
        }
    }
}

impl<'a, T: Scalar> From<&'a [usize]> for Targets<'a, T> {
    fn from(labels: &'a [usize]) -> Self {
        Self::Labels(labels)
    }
}

impl<'a, T: Scalar, const N: usize> From<&'a [usize; N]> for Targets<'a, T> {
    fn from(labels: &'a [usize; N]) -> Self {
        Self::Labels(labels)
    }
}

impl<'a, T: Scalar> From<&'a Vec<usize>> for Targets<'a, T> {
    fn from(labels: &'a Vec<usize>) -> Self {
        Self::Labels(labels)
    }
}

impl<'a, T: Scalar> From<&'a DMatrix<T>> for Targets<'a, T> {
    fn from(values: &'a DMatrix<T>) -> Self {
        Self::Values(values.into())
    }
}

impl Loss {
    /// All losses.
    #[must_use]
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        [Self::SoftmaxCrossEntropy, Self::LogisticCrossEntropy, Self::MeanSquaredError].into_iter()
    }

    /// Returns `J` and leaves `e = ∂J/∂a_L` in `deltas`, as the delta of the output layer.
    ///
    /// `J` may come out infinite where it overflows: it is the caller who stops there.
    ///
    /// # Errors
    /// [`Error::SampleCount`], [`Error::ShapeMismatch`], [`Error::LabelOutOfRange`],
    /// [`Error::TargetOutOfRange`] for targets that do not fit the logits or the loss,
    /// [`Error::SoftmaxNeedsTwoOutputs`], [`Error::TooLarge`], and [`Error::Empty`] before the
    /// first forward pass.
    pub fn error<'a, T: Scalar>(
        self,
        targets: impl Into<Targets<'a, T>>,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<f64> {
        let targets = targets.into();
        let logits = self.prepare(&targets, activations, deltas)?;
        Ok(self.evaluate(&targets, logits, deltas.error_mut()))
    }

    /// The logits, once targets and deltas fit them.
    fn prepare<'a, T: Scalar>(
        self,
        targets: &Targets<T>,
        activations: &'a Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<&'a Columns<T>> {
        let logits = activations.logit_columns()?;
        self.check(targets, logits.rows(), activations.batch)?;
        deltas.fit(activations)?;
        deltas.set_target(|target| targets.write(target, logits.rows()))?;
        Ok(logits)
    }

    /// `J` of logits and targets that fit each other; `e ← ∂J/∂a_L`.
    pub(crate) fn evaluate<T: Scalar>(
        self,
        targets: &Targets<T>,
        logits: &Columns<T>,
        e: &mut Columns<T>,
    ) -> f64 {
        let e = e.as_mut_slice();
        let sum = self.sum(targets, logits.as_slice(), e, logits.rows());
        let batch = targets.len() as f64;
        let scale = T::of(batch);
        e.iter_mut().for_each(|e| *e /= scale);
        sum / batch
    }

    /// The sum of the losses of samples whose columns have `outputs` rows; `e ← ŷ − y`.
    fn sum<T: Scalar>(self, targets: &Targets<T>, z: &[T], e: &mut [T], outputs: usize) -> f64 {
        match self {
            Self::SoftmaxCrossEntropy => softmax_cross_entropy(targets, z, e, outputs),
            Self::LogisticCrossEntropy => {
                targets.write(e, outputs);
                by_pieces(z, e, logistic_cross_entropy)
            }
            Self::MeanSquaredError => {
                targets.write(e, outputs);
                by_pieces(z, e, squared_error)
            }
        }
    }

    /// `ŷ` of the logits, `n_L × N`: probabilities of the classes.
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

    /// The class of each column of logits: the largest, the first of them if several are equal.
    ///
    /// With one output the class is 1 where the logit is positive (`ŷ > ½` under the logistic
    /// loss) and, under the squared error, where it is above ½.
    ///
    /// # Errors
    /// [`Error::Empty`] without logits, [`Error::NonFinite`] for a NaN or an infinity, which is of
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
            // Without a branch, which nothing could predict.
            let above = z > top;
            best = if above { k } else { best };
            top = if above { z } else { top };
        }
        best
    }

    /// The class that a column of target values stands for, if it is one: under softmax the most
    /// probable, else the one of a one-hot column; with one output, 0 or 1.
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

    /// Whether all targets are classes.
    pub(crate) fn has_classes<T: Scalar>(self, targets: &Targets<T>) -> bool {
        match targets {
            Targets::Labels(_) => true,
            Targets::Values(values) => {
                values.column_iter().all(|y| self.target_class(y.as_slice()).is_some())
            }
        }
    }

    /// Fails unless `targets` suit this loss on `outputs` logits of `batch` samples.
    pub(crate) fn check<T: Scalar>(
        self,
        targets: &Targets<T>,
        outputs: usize,
        batch: usize,
    ) -> Result<()> {
        self.check_outputs(outputs)?;
        if let Targets::Values(values) = targets
            && values.shape() == (batch, outputs)
            && batch != outputs
        {
            let what = "the target (outputs × samples)".to_owned();
            return Err(Error::SamplesInRows { what, found: values.shape() });
        }
        if targets.len() != batch {
            return Err(Error::SampleCount { inputs: batch, targets: targets.len() });
        }
        match targets {
            Targets::Labels(labels) => {
                let classes = outputs.max(2);
                match labels.iter().position(|&label| label >= classes) {
                    Some(sample) => Err(Error::LabelOutOfRange {
                        label: labels[sample],
                        sample,
                        outputs,
                        classes,
                    }),
                    None => Ok(()),
                }
            }
            Targets::Values(values) => {
                let what = || "the target (outputs × samples)".to_owned();
                require_shape(what, (outputs, batch), values.shape())?;
                (0..batch).try_for_each(|sample| {
                    self.check_values(sample, values.column(sample).as_slice())
                })
            }
        }
    }

    pub(crate) fn check_outputs(self, outputs: usize) -> Result<()> {
        match self {
            Self::SoftmaxCrossEntropy if outputs < 2 => Err(Error::SoftmaxNeedsTwoOutputs),
            _ => Ok(()),
        }
    }

    fn check_values<T: Scalar>(self, sample: usize, y: &[T]) -> Result<()> {
        let refuse = |expected, found: T| {
            let (loss, found) = (self.name(), found.as_f64());
            Err(Error::TargetOutOfRange { loss, sample, expected, found })
        };
        if let Some(&y) = y.iter().find(|y| !y.is_finite()) {
            return refuse("finite", y);
        }
        if self == Self::MeanSquaredError {
            return Ok(());
        }
        if let Some(&y) = y.iter().find(|&&y| y < T::zero() || y > T::one()) {
            return refuse("in [0, 1]", y);
        }
        let sum = sum_in_order(y);
        if self == Self::SoftmaxCrossEntropy && (sum - T::one()).abs() > T::of(1e-4) {
            return refuse("probabilities that sum to 1", sum);
        }
        Ok(())
    }

    fn name(self) -> &'static str {
        match self {
            Self::SoftmaxCrossEntropy => "softmax",
            Self::LogisticCrossEntropy => "logistic",
            Self::MeanSquaredError => "mse",
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

/// `y ← softmax(z)`
fn softmax<T: Scalar>(z: &[T], y: &mut [T]) {
    let max = largest(z);
    y.iter_mut().zip(z).for_each(|(y, &z)| *y = z - max);
    exponentials(y);
    let sum = sum_in_order(y);
    y.iter_mut().for_each(|y| *y /= sum);
}

/// The largest value, or NaN if one is.
fn largest<T: Scalar>(z: &[T]) -> T {
    z.iter().fold(z[0], |max, &z| if z <= max { max } else { z })
}

/// `Σ −y ln ŷ` over the samples, whose columns have `outputs` rows; `e ← ŷ − y`.
fn softmax_cross_entropy<T: Scalar>(
    targets: &Targets<T>,
    z: &[T],
    e: &mut [T],
    outputs: usize,
) -> f64 {
    /// Samples at a time.
    const PIECE: usize = 64;
    let (mut loss, mut sample) = (0.0, 0);
    for (z, e) in z.chunks(PIECE * outputs).zip(e.chunks_mut(PIECE * outputs)) {
        let mut maxima = [T::zero(); PIECE];
        let columns = z.chunks_exact(outputs).zip(e.chunks_exact_mut(outputs));
        for ((z, e), max) in columns.zip(&mut maxima) {
            *max = largest(z);
            e.iter_mut().zip(z).for_each(|(e, &z)| *e = z - *max);
        }
        exponentials(e);
        let columns = z.chunks_exact(outputs).zip(e.chunks_exact_mut(outputs));
        for ((z, e), &max) in columns.zip(&maxima) {
            let sum = sum_in_order(e);
            e.iter_mut().for_each(|e| *e /= sum);
            // −Σ y_k ln ŷ_k = Σ y_k (ln Σ_j e^{z_j} − z_k), every term of it at least 0.
            let log_sum = sum.ln();
            let mut learn = |k: usize, y: T| {
                e[k] -= y;
                y * (log_sum + (max - z[k]))
            };
            let of_sample = match targets {
                Targets::Labels(labels) => learn(labels[sample], T::one()).as_f64(),
                Targets::Values(values) => {
                    let mut loss = 0.0;
                    for k in 0..outputs {
                        let y = values[(k, sample)];
                        if y != T::zero() {
                            loss += learn(k, y).as_f64();
                        }
                    }
                    loss
                }
            };
            loss += of_sample;
            sample += 1;
        }
    }
    loss
}

/// `e ← eᵉ`, element by element.
#[multiversion(targets = "simd")]
fn exponentials<T: Scalar>(e: &mut [T]) {
    e.iter_mut().for_each(|e| *e = e.fast_exp());
}

/// The sum of a loss, over pieces of 256 numbers in the scalar and over the pieces in `f64`.
fn by_pieces<T: Scalar>(z: &[T], e: &mut [T], loss: impl Fn(&[T], &mut [T]) -> T) -> f64 {
    const PIECE: usize = 256;
    z.chunks(PIECE).zip(e.chunks_mut(PIECE)).map(|(z, e)| loss(z, e).as_f64()).sum()
}

/// `Σ −y ln σ(z) − (1 − y) ln σ(−z)`, with `−ln σ(−z) = softplus(z)`; `e` comes as `y` and leaves
/// as `σ(z) − y`.
#[multiversion(targets = "simd")]
fn logistic_cross_entropy<T: Scalar>(z: &[T], e: &mut [T]) -> T {
    element_by_element(z, e, |z, y| {
        let certain = y == T::one();
        let loss = softplus(if certain { -z } else { z }) - if certain { T::zero() } else { y * z };
        (logistic(z) - y, loss)
    })
}

/// `Σ ½ (z − y)²`; `e` comes as `y` and leaves as `z − y`.
#[multiversion(targets = "simd")]
fn squared_error<T: Scalar>(z: &[T], e: &mut [T]) -> T {
    element_by_element(z, e, |z, y| (z - y, T::of(0.5) * (z - y) * (z - y)))
}

/// `(e, loss) ← f(z, e)`; returns the sum of the losses, in lanes so that it can be vectorised.
#[allow(clippy::inline_always)] // Or it would not be.
#[inline(always)]
fn element_by_element<T: Scalar>(z: &[T], e: &mut [T], f: impl Fn(T, T) -> (T, T)) -> T {
    let mut sums = [T::zero(); 16];
    for (z, e) in z.chunks(16).zip(e.chunks_mut(16)) {
        for ((sum, &z), e) in sums.iter_mut().zip(z).zip(e) {
            let (error, loss) = f(z, *e);
            *e = error;
            *sum += loss;
        }
    }
    sums.iter().fold(T::zero(), |sum, &part| sum + part)
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
    use approx::assert_relative_eq;

    use super::*;

    fn loss_and_error(loss: Loss, z: &[f64], y: &[f64]) -> (f64, Vec<f64>) {
        let mut logits = Columns::new(z.len());
        logits.set_batch(1).unwrap();
        logits.as_mut_slice().copy_from_slice(z);
        let mut e = logits.clone();
        let y = DMatrix::from_column_slice(y.len(), 1, y);
        let value = loss.evaluate(&Targets::from(&y), &logits, &mut e);
        (value, e.as_slice().to_vec())
    }

    #[test]
    fn errors_are_the_derivatives_of_the_losses() {
        let z = [0.3, -1.2, 2.0];
        for (loss, y) in [
            (Loss::SoftmaxCrossEntropy, [0.2, 0.5, 0.3]),
            (Loss::SoftmaxCrossEntropy, [0.0, 1.0, 0.0]),
            (Loss::LogisticCrossEntropy, [0.2, 1.0, 0.0]),
            (Loss::MeanSquaredError, [-3.0, 0.5, 7.0]),
        ] {
            let (_, e) = loss_and_error(loss, &z, &y);
            for k in 0..3 {
                let shifted = |by: f64| {
                    let mut z = z;
                    z[k] += by;
                    loss_and_error(loss, &z, &y).0
                };
                let difference = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                assert_relative_eq!(e[k], difference, epsilon = 1e-9);
            }
        }
    }

    /// Expected values from the definitions, in exact arithmetic where the limits are.
    #[test]
    fn extreme_logits_stay_finite() {
        let (value, e) = loss_and_error(Loss::SoftmaxCrossEntropy, &[1e4, -1e4], &[0.0, 1.0]);
        assert_eq!((value, e), (2e4, vec![1.0, -1.0]));
        let (value, e) = loss_and_error(Loss::SoftmaxCrossEntropy, &[1e4, -1e4], &[1.0, 0.0]);
        assert_eq!((value, e), (0.0, vec![0.0, 0.0]));
        let (value, e) = loss_and_error(Loss::LogisticCrossEntropy, &[1e4, -1e4], &[0.0, 1.0]);
        assert_eq!((value, e), (2e4, vec![1.0, -1.0]));
        let (value, e) = loss_and_error(Loss::LogisticCrossEntropy, &[1e4, -1e4], &[1.0, 0.0]);
        assert_eq!((value, e), (0.0, vec![0.0, 0.0]));
        let logits = DMatrix::from_column_slice(2, 1, &[1e4_f32, -1e4]);
        for loss in [Loss::SoftmaxCrossEntropy, Loss::LogisticCrossEntropy] {
            assert_eq!(loss.probabilities(&logits).unwrap().as_slice(), [1.0, 0.0]);
        }
    }

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
    fn labels_are_one_hot_targets() {
        let mut logits = Columns::new(3);
        logits.set_batch(2).unwrap();
        logits.as_mut_slice().copy_from_slice(&[0.1, 0.2, -0.4, 1.0, 0.0, 0.5]);
        let one_hot = DMatrix::from_column_slice(3, 2, &[0., 0., 1., 1., 0., 0.]);
        for loss in Loss::all() {
            let (mut by_label, mut by_value) = (logits.clone(), logits.clone());
            let labels = loss.evaluate(&Targets::from(&[2, 0]), &logits, &mut by_label);
            let values = loss.evaluate(&Targets::from(&one_hot), &logits, &mut by_value);
            assert_eq!(labels, values);
            assert_eq!(by_label.as_slice(), by_value.as_slice());
        }
    }

    #[test]
    fn names_round_trip() {
        for loss in Loss::all() {
            assert_eq!(loss.to_string().parse::<Loss>().unwrap(), loss);
        }
        assert!("hinge".parse::<Loss>().is_err());
    }
}
